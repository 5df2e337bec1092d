//! News of whose credentials may have changed, whoever changed them: on PostgreSQL by LISTEN, on SQLite by watching
//! `PRAGMA data_version`. Both are fed by triggers.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::Conn;
use super::conn::Manager;
use crate::domain::id::UserId;
use crate::error::AppError;

/// How often PostgreSQL is asked to tell something back. What others change comes by itself, in the order of commits.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// How long it may take over it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rows that are read at once; more than so many changes are a change of everybody.
const BATCH: i64 = 10_000;

/// A connection of its own that hears of changes.
pub struct Feed {
    conn: Conn,
    /// PostgreSQL's channel is one for all schemas of a database.
    schema: String,
    /// When everything that had been committed was known for certain, if it ever was.
    certain: Option<Instant>,
    /// What PostgreSQL has been asked to tell back, and when.
    beat: Option<(String, Instant)>,
    data_version: i64,
    last_change: i64,
}

/// What a look at the feed brought.
pub struct News {
    /// Whose credentials may have changed; `None` for everybody's.
    pub changed: Option<Vec<UserId>>,
    /// All that was committed before this moment is known.
    pub certain: Option<Instant>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

impl Feed {
    /// Starts to listen. What changed before is not told.
    pub(super) fn open(manager: &Manager) -> Result<Self, AppError> {
        let mut conn = manager.open()?.into_conn();
        if manager.pooler().is_present() {
            return Err(AppError::Busy("a pooler in transaction mode passes no LISTEN on".into()));
        }
        let mut feed = match &mut conn {
            Conn::Postgres(listener) => {
                listener.batch_execute("SET application_name = 'latchkey-follower'; LISTEN latchkey")?;
                // Where the table is that our statements find, whatever else is on the search path.
                let schema: Name = diesel::sql_query(
                    "SELECT CAST(n.nspname AS TEXT) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.oid = CAST('users' AS regclass)",
                )
                .get_result(listener)?;
                Self { conn, schema: schema.name, certain: None, beat: None, data_version: 0, last_change: 0 }
            }
            Conn::Sqlite(_) => {
                Self { conn, schema: String::new(), certain: None, beat: None, data_version: 0, last_change: 0 }
            }
        };
        feed.catch_up()?;
        Ok(feed)
    }

    /// What is new since the last look. It waits for nothing but the answer of a database that is there.
    pub fn look(&mut self) -> Result<News, AppError> {
        let now = Instant::now();
        let changed = match self.conn {
            Conn::Postgres(_) => self.notifications(now)?,
            Conn::Sqlite(_) => {
                let changed = self.sqlite_changes()?;
                self.certain = Some(now);
                changed
            }
        };
        Ok(News { changed, certain: self.certain })
    }

    /// What PostgreSQL has told since the last look.
    fn notifications(&mut self, now: Instant) -> Result<Option<Vec<UserId>>, AppError> {
        let Conn::Postgres(listener) = &mut self.conn else {
            return Ok(Some(Vec::new()));
        };
        let asked = self.beat.as_ref().map(|(_, asked)| *asked);
        if asked.is_some_and(|asked| now.duration_since(asked) > PATIENCE) {
            return Err(AppError::Busy("PostgreSQL does not pass on what NOTIFY tells".into()));
        }
        let fresh = self.certain.is_some_and(|certain| now.duration_since(certain) < HEARTBEAT);
        if asked.is_none() && !fresh {
            let beat = format!("{}:beat:{:032x}", self.schema, rand::random::<u128>());
            diesel::sql_query("SELECT pg_notify('latchkey', $1)").bind::<Text, _>(&beat).execute(listener)?;
            self.beat = Some((beat, now));
        }
        let mut changed = Some(Vec::new());
        for told in listener.notifications_iter() {
            let payload = told?.payload;
            // Whatever was committed before this was asked has been told before this.
            if let Some((_, asked)) = self.beat.take_if(|(beat, _)| *beat == payload) {
                self.certain = Some(asked);
            }
            let Some(whose) = payload.strip_prefix(&self.schema).and_then(|rest| rest.strip_prefix(':')) else {
                continue;
            };
            match (whose.parse(), &mut changed) {
                _ if whose.starts_with("beat:") => {}
                (Ok(user), Some(changed)) => changed.push(UserId(user)),
                _ => changed = None,
            }
        }
        Ok(changed)
    }

    /// The changes that other connections have made to the file, if it changed at all.
    fn sqlite_changes(&mut self) -> Result<Option<Vec<UserId>>, AppError> {
        let version = self.number("SELECT data_version AS number FROM pragma_data_version")?;
        if version == self.data_version {
            return Ok(Some(Vec::new()));
        }
        self.data_version = version;
        #[derive(QueryableByName)]
        struct Change {
            #[diesel(sql_type = BigInt)]
            id: i64,
            #[diesel(sql_type = BigInt)]
            user_id: i64,
        }
        let changes: Vec<Change> =
            diesel::sql_query("SELECT id, user_id FROM credential_changes WHERE id > $1 ORDER BY id LIMIT $2")
                .bind::<BigInt, _>(self.last_change)
                .bind::<BigInt, _>(BATCH)
                .load(&mut self.conn)?;
        if changes.is_empty() && self.newest_change()? < self.last_change {
            // Another file has come in place of this one.
            self.catch_up()?;
            return Ok(None);
        }
        if let (Some(first), Some(last)) = (changes.first(), changes.last()) {
            // Ids have no gaps, so one that is missing was purged before it was seen.
            if first.id != self.last_change + 1 || last.id - self.last_change >= BATCH {
                self.catch_up()?;
                return Ok(None);
            }
            self.last_change = last.id;
        }
        Ok(Some(changes.into_iter().map(|change| UserId(change.user_id)).collect()))
    }

    /// Skips what is there already.
    fn catch_up(&mut self) -> Result<(), AppError> {
        if let Conn::Sqlite(_) = self.conn {
            self.last_change = self.newest_change()?;
        }
        Ok(())
    }

    fn newest_change(&mut self) -> Result<i64, AppError> {
        self.number("SELECT COALESCE(MAX(id), 0) AS number FROM credential_changes")
    }

    fn number(&mut self, sql: &str) -> Result<i64, AppError> {
        let number: Number = diesel::sql_query(sql).get_result(&mut self.conn)?;
        Ok(number.number)
    }
}
