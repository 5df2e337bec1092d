//! The roles that users have, from the column `role` of the `users` table.

use diesel::dsl::{min, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::db::engine::connection::Conn;
use crate::db::schema::users;
use crate::db::users::{count_within, existing};
use crate::error::AppError;

/// The users with another role than `member`. The condition is literally that of the partial index on roles, so both
/// planners use it.
#[diesel::dsl::auto_type]
fn others() -> _ {
    let is_no_member: diesel::expression::SqlLiteral<Bool> = sql::<Bool>("role <> 'member'");
    existing().filter(is_no_member)
}

/// The first name after `after`, in the order of the database, among the roles that users have. Omits `member`. Reads
/// one entry of the index.
pub fn next_name(conn: &mut Conn, after: &str) -> Result<Option<String>, AppError> {
    Ok(others().filter(users::role.gt(after)).select(min(users::role)).get_result(conn)?)
}

/// The number of users with this role, which is not `member`. `None` if there are more than `most`.
pub fn count_up_to(conn: &mut Conn, role: &str, most: i64) -> Result<Option<i64>, AppError> {
    let some: Vec<i64> = others().filter(users::role.eq(role)).select(users::id).limit(most + 1).load(conn)?;
    Ok(count_within(&some, most))
}
