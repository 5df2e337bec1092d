//! Finds texts in SQLite that PostgreSQL cannot store: SQLite accepts NUL characters and invalid UTF-8.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Nullable};

use super::rows::{self, CopiedRow};
use crate::db::engine::connection::Conn;
use crate::db::schema::for_each_table;
use crate::error::AppError;

/// The maximum number of rows in the report.
const MAX_REPORTED: usize = 20;

#[derive(QueryableByName)]
struct Texts {
    #[diesel(sql_type = Nullable<Binary>)]
    key: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    texts: Vec<u8>,
}

/// Fails if a text is not valid UTF-8, or contains a NUL character unless `allow_nul`. The error lists tables and rows.
pub fn check_texts(conn: &mut Conn, allow_nul: bool) -> Result<(), AppError> {
    let Conn::Sqlite(conn) = conn else { return Ok(()) };
    let mut found = Vec::new();
    macro_rules! each {
        ($($table:ident: $privileges:literal,)*) => {
            $(check_table::<rows::$table::Row>(conn, allow_nul, &mut found)?;)*
        };
    }
    for_each_table!(each);
    if found.is_empty() {
        return Ok(());
    }
    let more = if found.len() > MAX_REPORTED { " and more" } else { "" };
    found.truncate(MAX_REPORTED);
    let message = format!(
        "nothing was written, because texts cannot be copied: {}{more}. Correct them in the source, and try again",
        found.join(", ")
    );
    Err(AppError::Internal(message.into()))
}

fn check_table<R: CopiedRow>(
    conn: &mut SqliteConnection,
    allow_nul: bool,
    found: &mut Vec<String>,
) -> Result<(), AppError> {
    let texts = R::TEXTS;
    for row in diesel::sql_query(texts).load_iter::<Texts, DefaultLoadingMode>(conn)? {
        let Texts { key, texts } = row?;
        let has_nul = !allow_nul && texts.contains(&0);
        let defect = match (std::str::from_utf8(&texts), has_nul) {
            (Err(_), true) => "invalid UTF-8 and a NUL character",
            (Err(_), false) => "invalid UTF-8",
            (Ok(_), true) => "a NUL character",
            (Ok(_), false) => continue,
        };
        found.push(format!("{} {:?} has {defect}", R::TABLE, String::from_utf8_lossy(&key.unwrap_or_default())));
        if found.len() > MAX_REPORTED {
            break;
        }
    }
    Ok(())
}
