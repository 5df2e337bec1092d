//! Compares the tables, triggers and views of a SQLite file with those that the migrations create. Others would run in
//! every database that is restored from the file.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::sql_types::Text;

use crate::db::engine::connection::Conn;
use crate::db::engine::migrate::reference_schema;
use crate::error::AppError;

/// Triggers, views and virtual tables with their text, and other tables with their columns, because the text of a table
/// depends on how its schema came about. Indexes are omitted: they only change how fast a query is.
const OBJECTS: &str = "
    SELECT type || ' ' || name AS object, COALESCE(sql, '') AS definition FROM sqlite_master
    WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL TABLE%'
    UNION ALL
    SELECT 'table ' || m.name, group_concat(c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' '
        || COALESCE(c.dflt_value, '') || ' ' || c.pk || ' ' || c.hidden, ', ' ORDER BY c.cid)
    FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c
    WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL TABLE%' AND m.name <> 'backup_manifest'
        AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
    GROUP BY m.name";

/// Maximum number of objects in an error message.
const MAX_REPORTED: usize = 10;

#[derive(QueryableByName)]
struct Object {
    #[diesel(sql_type = Text)]
    object: String,
    #[diesel(sql_type = Text)]
    definition: String,
}

fn objects(conn: &mut SqliteConnection) -> Result<BTreeMap<String, String>, AppError> {
    let found: Vec<Object> = diesel::sql_query(OBJECTS).load(conn)?;
    Ok(found.into_iter().map(|object| (object.object, object.definition)).collect())
}

/// Fails if a SQLite file has other tables, triggers or views than the migrations that it has applied create, or lacks
/// some of them. Does nothing on PostgreSQL, of which only rows are copied.
pub fn require_own(conn: &mut Conn) -> Result<(), AppError> {
    if let Conn::Postgres(_) = conn {
        return Ok(());
    }
    let mut reference = reference_schema(conn)?;
    let Conn::Sqlite(conn) = conn else { return Ok(()) };
    let (expected, found) = (objects(&mut reference)?, objects(conn)?);
    let differs = |name: &&String| expected.get(*name) != found.get(*name);
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).filter(differs).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().take(MAX_REPORTED).map(String::as_str).collect();
    let names = names.join(", ");
    Err(AppError::Internal(format!("these objects are not those that Latchkey creates: {names}").into()))
}
