//! Search for users by a part of their e-mail address, name or surname. It uses a trigram index: an FTS5 table on
//! SQLite, a GIN index of pg_trgm on PostgreSQL if the extension is installed. The text must have three characters or
//! more.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::{PgConnection, SqliteConnection};

use crate::db::engine::connection::Conn;
use crate::db::engine::transaction::is_lost;
use crate::db::schema::users;
use crate::db::users::existing;
use crate::domain::id::UserId;
use crate::error::AppError;

/// The length of the shortest text that the index finds, in characters.
pub const MIN_CHARACTERS: usize = 3;
/// The most candidates that a search compares before the text counts as too broad.
pub const CANDIDATES_MAX: i64 = 10_000;
/// The number of candidates that one query on SQLite loads.
const BATCH_SIZE: i64 = 500;
/// The most trigrams in one FTS5 query. The candidates are then compared with the whole text.
const TRIGRAMS_MAX: usize = 64;
/// The time-out of a search on PostgreSQL; the same as in the statement of [`on_postgres`].
const TIMEOUT: Duration = Duration::from_millis(800);

/// The result of a search by the index.
#[derive(Debug)]
pub enum Matches {
    /// The ids of the users who match, in ascending order.
    Users(Vec<UserId>),
    /// The search found more than [`CANDIDATES_MAX`] candidates, or timed out.
    TooMany,
    /// The text is shorter than [`MIN_CHARACTERS`], so the index cannot find it.
    TooShort,
    /// The database has no index.
    NoIndex,
}

/// The fields of a user that are searched.
#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct Texts {
    /// The user.
    #[diesel(deserialize_as = i64)]
    pub id: UserId,
    name: String,
    surname: String,
    email: String,
    email_key: String,
}

impl Texts {
    /// Whether one of the fields contains `text`, ignoring case. `text` must be in lower case.
    pub fn contain(&self, text: &str) -> bool {
        let fields = [&self.name, &self.surname, &self.email, &self.email_key];
        fields.into_iter().any(|field| field.to_lowercase().contains(text))
    }
}

/// The searched fields of at most `limit` users with higher ids than `after`, in the order of their ids.
pub fn texts(conn: &mut Conn, after: UserId, limit: i64) -> Result<Vec<Texts>, AppError> {
    let rows = existing().filter(users::id.gt(after.0)).order(users::id).limit(limit);
    Ok(rows.select(Texts::as_select()).load(conn)?)
}

/// At most `limit` users with higher ids than `after` who have `text` in one of the searched fields. `text` must be in
/// lower case.
pub fn matches(conn: &mut Conn, text: &str, after: UserId, limit: i64) -> Result<Matches, AppError> {
    if text.chars().count() < MIN_CHARACTERS {
        return Ok(Matches::TooShort);
    }
    match conn {
        Conn::Sqlite(conn) => on_sqlite(conn, text, after, limit),
        Conn::Postgres(conn) => on_postgres(conn, text, after, limit),
    }
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// The index finds users who have all trigrams of the text in any place. Each candidate is therefore compared with the
/// text.
fn on_sqlite(conn: &mut SqliteConnection, text: &str, after: UserId, limit: i64) -> Result<Matches, AppError> {
    const CANDIDATES: &str =
        "SELECT rowid AS id FROM user_search WHERE user_search MATCH ? AND rowid > ? ORDER BY rowid LIMIT ?";
    let trigrams = trigrams(text);
    let (mut found, mut after, mut compared) = (Vec::new(), after.0, 0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    while compared < CANDIDATES_MAX {
        let candidates: Vec<IdRow> = diesel::sql_query(CANDIDATES)
            .bind::<Text, _>(&trigrams)
            .bind::<BigInt, _>(after)
            .bind::<BigInt, _>(BATCH_SIZE)
            .load(conn)?;
        let ids: Vec<i64> = candidates.iter().map(|candidate| candidate.id).collect();
        let rows = existing().filter(users::id.eq_any(&ids)).order(users::id).select(Texts::as_select());
        let rows: Vec<Texts> = rows.load(conn)?;
        found.extend(rows.iter().filter(|texts| texts.contain(text)).map(|texts| texts.id));
        found.truncate(limit);
        if found.len() == limit || ids.len() < usize::try_from(BATCH_SIZE).unwrap_or_default() {
            return Ok(Matches::Users(found));
        }
        after = ids.last().copied().unwrap_or(i64::MAX);
        compared += BATCH_SIZE;
    }
    Ok(Matches::TooMany)
}

/// An FTS5 query for all trigrams of the text, each as a quoted string.
fn trigrams(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut trigrams: Vec<String> = Vec::new();
    for trigram in characters.windows(MIN_CHARACTERS) {
        let trigram: String = trigram.iter().collect();
        let quoted = format!("\"{}\"", trigram.replace('"', "\"\""));
        if !trigrams.contains(&quoted) && trigrams.len() < TRIGRAMS_MAX {
            trigrams.push(quoted);
        }
    }
    trigrams.join(" AND ")
}

#[derive(QueryableByName)]
struct IndexExists {
    #[diesel(sql_type = Bool)]
    is_there: bool,
}

/// The planner chooses between the index and a scan, which finds a common text sooner. It may choose badly for a text
/// that is common among some users only, so the search has a time-out.
#[expect(clippy::disallowed_methods, reason = "a savepoint in a transaction that has begun")]
fn on_postgres(conn: &mut PgConnection, text: &str, after: UserId, limit: i64) -> Result<Matches, AppError> {
    const INDEX: &str = "SELECT to_regclass('users_search') IS NOT NULL AS is_there";
    const MATCHES: &str = "SELECT id FROM users
         WHERE id > $1 AND deleted_at IS NULL AND user_search_text(name, surname, email, email_key) LIKE user_search_fold($2) ESCAPE '\\'
         LIMIT $3";
    let index: IndexExists = diesel::sql_query(INDEX).get_result(conn)?;
    if !index.is_there {
        return Ok(Matches::NoIndex);
    }
    let literal = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let started = Instant::now();
    // In a savepoint, because a time-out ends the transaction that it happens in.
    let found: Result<Vec<IdRow>, _> = conn.transaction(|conn| {
        diesel::sql_query("SET LOCAL statement_timeout = '800ms'").execute(conn)?;
        diesel::sql_query(MATCHES)
            .bind::<BigInt, _>(after.0)
            .bind::<Text, _>(format!("%{literal}%"))
            .bind::<BigInt, _>(CANDIDATES_MAX + 1)
            .load(conn)
    });
    let mut found: Vec<UserId> = match found {
        Ok(found) => found.into_iter().map(|row| UserId(row.id)).collect(),
        Err(_) if started.elapsed() >= TIMEOUT && !is_lost(conn) => return Ok(Matches::TooMany),
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
    fn the_query_for_a_text_has_each_of_its_trigrams_as_a_quoted_string() {
        assert_eq!(trigrams("abcd"), r#""abc" AND "bcd""#);
        assert_eq!(trigrams("aaaa"), r#""aaa""#);
        assert_eq!(trigrams(r#"a"b"#), r#""a""b""#);
        assert_eq!(trigrams("\u{f6}d\u{f6}n"), "\"\u{f6}d\u{f6}\" AND \"d\u{f6}n\"");
        let long: String = ('\u{4e00}'..'\u{4f00}').collect();
        assert_eq!(trigrams(&long).split(" AND ").count(), 64);
    }
}
