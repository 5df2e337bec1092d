//! Users who have a text in their e-mail, name or surname, by an index: on SQLite a table of FTS5, on PostgreSQL a GIN
//! index of pg_trgm, if that is installed. Each finds texts of three characters or more.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::{PgConnection, SqliteConnection};

use super::Conn;
use super::schema::users;
use super::users::existing;
use crate::domain::id::UserId;
use crate::error::AppError;

/// Shortest text that the index finds, in characters.
pub const SHORTEST: usize = 3;
/// How many users may match a text, or seem to, before it is too broad.
pub const CANDIDATES_MAX: i64 = 10_000;
/// How many candidates are compared with the text at once.
const BATCH: i64 = 500;
/// Parts of a text that the index of SQLite is asked for at most; all of the text is compared afterwards.
const PARTS_MAX: usize = 64;
/// How long PostgreSQL may search.
const TIMEOUT: Duration = Duration::from_millis(800);

/// What the index knows.
#[derive(Debug)]
pub enum Matches {
    /// These users match, by id.
    Users(Vec<UserId>),
    /// More than [`CANDIDATES_MAX`] match or seem to.
    TooMany,
    /// The index cannot find such a text.
    NotIndexed,
}

/// The texts of a user that are searched.
#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct Texts {
    /// Whose they are.
    #[diesel(deserialize_as = i64)]
    pub id: UserId,
    name: String,
    surname: String,
    email: String,
    email_key: String,
}

impl Texts {
    /// Whether one of them contains `text`, which is in lower case.
    pub fn contain(&self, text: &str) -> bool {
        let fields = [&self.name, &self.surname, &self.email, &self.email_key];
        fields.into_iter().any(|field| field.to_lowercase().contains(text))
    }
}

/// The texts of the users after `after`, by id, at most `limit`.
pub fn texts(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<Texts>, AppError> {
    let rows = existing().filter(users::id.gt(after.0)).order(users::id).limit(limit);
    Ok(rows.select(Texts::as_select()).load(conn)?)
}

/// The users after `after` whose texts contain `text`, which is in lower case, at most `limit`.
pub fn matches(conn: &mut Conn, text: &str, after: UserId, limit: i64) -> Result<Matches, AppError> {
    if text.chars().count() < SHORTEST {
        return Ok(Matches::NotIndexed);
    }
    match conn {
        Conn::Sqlite(conn) => on_sqlite(conn, text, after, limit),
        Conn::Postgres(conn) => on_postgres(conn, text, after, limit),
    }
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// The index knows which users have all parts of the text somewhere; whether they have them in a row is looked at here.
fn on_sqlite(conn: &mut SqliteConnection, text: &str, after: UserId, limit: i64) -> Result<Matches, AppError> {
    const CANDIDATES: &str =
        "SELECT rowid AS id FROM user_search WHERE user_search MATCH ? AND rowid > ? ORDER BY rowid LIMIT ?";
    let parts = parts(text);
    let (mut found, mut after, mut compared) = (Vec::new(), after.0, 0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    while compared < CANDIDATES_MAX {
        let candidates: Vec<Id> = diesel::sql_query(CANDIDATES)
            .bind::<Text, _>(&parts)
            .bind::<BigInt, _>(after)
            .bind::<BigInt, _>(BATCH)
            .load(conn)?;
        let ids: Vec<i64> = candidates.iter().map(|candidate| candidate.id).collect();
        let rows = existing().filter(users::id.eq_any(&ids)).order(users::id).select(Texts::as_select());
        let rows: Vec<Texts> = rows.load(conn)?;
        found.extend(rows.iter().filter(|texts| texts.contain(text)).map(|texts| texts.id));
        found.truncate(limit);
        if found.len() == limit || ids.len() < usize::try_from(BATCH).unwrap_or_default() {
            return Ok(Matches::Users(found));
        }
        after = ids.last().copied().unwrap_or(i64::MAX);
        compared += BATCH;
    }
    Ok(Matches::TooMany)
}

/// All sequences of three characters, each as a string of FTS5.
fn parts(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut parts: Vec<String> = Vec::new();
    for part in characters.windows(SHORTEST) {
        let part: String = part.iter().collect();
        let quoted = format!("\"{}\"", part.replace('"', "\"\""));
        if !parts.contains(&quoted) && parts.len() < PARTS_MAX {
            parts.push(quoted);
        }
    }
    parts.join(" AND ")
}

#[derive(QueryableByName)]
struct IsThere {
    #[diesel(sql_type = Bool)]
    is_there: bool,
}

/// The planner decides: a common text is soon found without the index. A text that is common among some users and rare
/// among the others may mislead it, so the time is limited, too.
fn on_postgres(conn: &mut PgConnection, text: &str, after: UserId, limit: i64) -> Result<Matches, AppError> {
    const INDEX: &str = "SELECT to_regclass('users_search') IS NOT NULL AS is_there";
    const MATCHES: &str = "SELECT id FROM users
         WHERE id > $1 AND deleted_at IS NULL AND user_search_text(name, surname, email, email_key) LIKE user_search_fold($2) ESCAPE '\\'
         LIMIT $3";
    let index: IsThere = diesel::sql_query(INDEX).get_result(conn)?;
    if !index.is_there {
        return Ok(Matches::NotIndexed);
    }
    let literal = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let began = Instant::now();
    diesel::sql_query("SET LOCAL statement_timeout = '800ms'").execute(conn)?;
    let found: Result<Vec<Id>, _> = diesel::sql_query(MATCHES)
        .bind::<BigInt, _>(after.0)
        .bind::<Text, _>(format!("%{literal}%"))
        .bind::<BigInt, _>(CANDIDATES_MAX + 1)
        .load(conn);
    let mut found: Vec<UserId> = match found {
        Ok(found) => found.into_iter().map(|row| UserId(row.id)).collect(),
        Err(_) if began.elapsed() >= TIMEOUT => return Ok(Matches::TooMany),
        Err(error) => return Err(error.into()),
    };
    if found.len() > usize::try_from(CANDIDATES_MAX).unwrap_or(usize::MAX) {
        return Ok(Matches::TooMany);
    }
    found.sort_unstable_by_key(|user| user.0);
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Matches::Users(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_asked_for_in_parts_that_are_strings_to_fts5() {
        assert_eq!(parts("abcd"), r#""abc" AND "bcd""#);
        assert_eq!(parts("aaaa"), r#""aaa""#);
        assert_eq!(parts(r#"a"b"#), r#""a""b""#);
        assert_eq!(parts("\u{f6}d\u{f6}n"), "\"\u{f6}d\u{f6}\" AND \"d\u{f6}n\"");
        let long: String = ('\u{4e00}'..'\u{4f00}').collect();
        assert_eq!(parts(&long).split(" AND ").count(), 64);
    }
}
