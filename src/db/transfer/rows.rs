//! One row type per table, with all of its columns.

use chrono::NaiveDateTime;
use diesel::connection::DefaultLoadingMode;
use diesel::dsl::sql;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::Text;
use sha2::{Digest, Sha256};

use crate::db::engine::connection::Conn;
use crate::db::schema::{for_each_copied_mail_table, for_each_copied_table};
use crate::error::AppError;

/// A row of a table that is copied.
pub(super) trait CopiedRow: Sized {
    /// The name of the table.
    const TABLE: &'static str;

    /// Whether the table assigns ids.
    const ASSIGNS_IDS: bool;

    /// Adds all values to `digest`. The values of equal rows are equal on both databases.
    fn hash(&self, digest: &mut Sha256);

    /// Calls `each` with every row, in the order of the key, without loading all rows at once.
    fn for_each(conn: &mut Conn, each: &mut dyn FnMut(Self) -> Result<(), AppError>) -> Result<(), AppError>;

    /// Inserts rows with their ids.
    fn insert(conn: &mut Conn, rows: &[Self]) -> Result<(), AppError>;

    /// The number of rows.
    fn count(conn: &mut Conn) -> Result<i64, AppError>;

    /// A query for the key and all texts of each row of SQLite, as bytes.
    const TEXTS: &'static str;
}

/// A value that is hashed as a type, a length and bytes, so that no two rows have the same bytes.
trait Hashed {
    fn hash(&self, digest: &mut Sha256);
}

impl Hashed for i64 {
    fn hash(&self, digest: &mut Sha256) {
        digest.update(b"i");
        digest.update(self.to_be_bytes());
    }
}

impl Hashed for bool {
    fn hash(&self, digest: &mut Sha256) {
        digest.update(if *self { b"t" } else { b"f" });
    }
}

impl Hashed for String {
    fn hash(&self, digest: &mut Sha256) {
        digest.update(b"s");
        digest.update(u64::try_from(self.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(self.as_bytes());
    }
}

impl Hashed for NaiveDateTime {
    fn hash(&self, digest: &mut Sha256) {
        digest.update(b"d");
        digest.update(self.and_utc().timestamp_micros().to_be_bytes());
    }
}

impl<T: Hashed> Hashed for Option<T> {
    fn hash(&self, digest: &mut Sha256) {
        match self {
            Some(value) => value.hash(digest),
            None => digest.update(b"n"),
        }
    }
}

macro_rules! rows {
    ($($table:ident by $key:literal, postgres $postgres:expr, sqlite $sqlite:expr => {
        $($column:ident: $kind:ty,)*
    })*) => {$(
        pub(super) mod $table {
            use crate::db::transfer::rows::*;
            use crate::db::schema::$table;

            #[derive(Insertable, Queryable)]
            #[diesel(table_name = $table, treat_none_as_default_value = false)]
            pub(crate) struct Row {
                $($column: $kind,)*
            }

            /// Compiles only if the columns above are those of the schema, in the same order.
            fn columns() -> <$table::table as Table>::AllColumns {
                ($($table::$column,)*)
            }

            impl CopiedRow for Row {
                const TABLE: &'static str = stringify!($table);
                const ASSIGNS_IDS: bool = matches!($key.as_bytes(), b"id");

                fn hash(&self, digest: &mut Sha256) {
                    $(Hashed::hash(&self.$column, digest);)*
                }

                fn for_each(
                    conn: &mut Conn,
                    each: &mut dyn FnMut(Self) -> Result<(), AppError>,
                ) -> Result<(), AppError> {
                    match conn {
                        Conn::Postgres(conn) => {
                            let query = $table::table.select(columns()).order($postgres);
                            for row in query.load_iter::<Self, PgRowByRowLoadingMode>(conn)? {
                                each(row?)?;
                            }
                        }
                        Conn::Sqlite(conn) => {
                            let query = $table::table.select(columns()).order($sqlite);
                            for row in query.load_iter::<Self, DefaultLoadingMode>(conn)? {
                                each(row?)?;
                            }
                        }
                    }
                    Ok(())
                }

                fn insert(conn: &mut Conn, rows: &[Self]) -> Result<(), AppError> {
                    match conn {
                        // Ids of an identity column are accepted by COPY, but not by INSERT.
                        Conn::Postgres(conn) => diesel::copy_from($table::table).from_insertable(rows).execute(conn)?,
                        Conn::Sqlite(conn) => diesel::insert_into($table::table).values(rows).execute(conn)?,
                    };
                    Ok(())
                }

                fn count(conn: &mut Conn) -> Result<i64, AppError> {
                    Ok($table::table.count().get_result(conn)?)
                }

                const TEXTS: &'static str = concat!(
                    "SELECT CAST(", $key, " AS BLOB) AS key, CAST(''",
                    $(" || ' ' || coalesce(", stringify!($column), ", '')",)*
                    " AS BLOB) AS texts FROM ", stringify!($table)
                );
            }
        }
    )*};
}

for_each_copied_table!(rows);
for_each_copied_mail_table!(rows);
