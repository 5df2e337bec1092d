//! The `audit_entries` table: it only ever grows.

use std::sync::Arc;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::cached::Cached;
use super::conn::on_backend;
use super::schema::audit_entries;
use crate::clock::Timestamp;
use crate::domain::audit::{By, Entry, Event, Filter, Origin, Outcome};
use crate::domain::id::{EntryId, UserId};
use crate::domain::principal::Level;
use crate::domain::role::Role;
use crate::domain::scope::ScopeSet;
use crate::error::AppError;

#[derive(Insertable)]
#[diesel(table_name = audit_entries, treat_none_as_default_value = false)]
struct NewEntry<'a> {
    at: NaiveDateTime,
    actor: &'a str,
    user_id: Option<i64>,
    credential: &'a str,
    role: Option<&'a str>,
    scopes: String,
    action: &'a str,
    target: Option<String>,
    subject_id: Option<i64>,
    version_before: Option<i64>,
    version_after: Option<i64>,
    changed: String,
    outcome: &'a str,
    detail: Option<&'a str>,
    client: Option<String>,
    request_id: Option<&'a str>,
}

/// Appends an entry; its id.
pub fn insert(
    conn: &mut Conn,
    at: Timestamp,
    by: &By,
    event: &Event,
    outcome: Outcome,
    origin: &Origin,
) -> Result<EntryId, AppError> {
    let entry = new_entry(at, by, event, outcome, origin);
    let insert = Cached(diesel::insert_into(audit_entries::table).values(entry).returning(audit_entries::id));
    let id: i64 = on_backend!(conn => insert.get_result(conn))?;
    Ok(EntryId(id))
}

/// By whom and from where the change was made that this entry tells of; `None` if somebody has removed it.
pub fn maker(conn: &mut Conn, id: EntryId) -> Result<Option<(By, Origin)>, AppError> {
    let row: Option<Row> = audit_entries::table.find(id.0).select(Row::as_select()).get_result(conn).optional()?;
    Ok(row.map(|row| {
        let scopes = ScopeSet::from_stored(&row.scopes);
        let level = row.role.as_deref().and_then(Role::named).map(|role| Level { role, scopes });
        let by = By { actor: row.actor, user: row.user_id.map(UserId), credential: row.credential, level };
        let client = row.client.and_then(|client| client.parse().ok());
        (by, Origin { client, request_id: row.request_id.map(Arc::from) })
    }))
}

/// Appends entries about things that went along with a change.
pub fn insert_all(conn: &mut Conn, at: Timestamp, by: &By, events: &[Event], origin: &Origin) -> Result<(), AppError> {
    // A statement takes a bounded number of values.
    for some in events.chunks(500) {
        let entries: Vec<_> = some.iter().map(|event| new_entry(at, by, event, Outcome::Success, origin)).collect();
        on_backend!(conn => diesel::insert_into(audit_entries::table).values(&entries).execute(conn))?;
    }
    Ok(())
}

fn new_entry<'a>(at: Timestamp, by: &'a By, event: &'a Event, outcome: Outcome, origin: &'a Origin) -> NewEntry<'a> {
    NewEntry {
        at: at.naive(),
        actor: &by.actor,
        user_id: by.user.map(|user| user.0),
        credential: &by.credential,
        role: by.level.map(|level| level.role.name()),
        scopes: by.level.map(|level| level.scopes.to_string()).unwrap_or_default(),
        action: event.action.name(),
        target: event.target.as_ref().map(ToString::to_string),
        subject_id: event.subject.map(|subject| subject.0),
        version_before: event.version_before,
        version_after: event.version_after,
        changed: event.changed.join(" "),
        outcome: outcome.name(),
        detail: event.detail.as_deref(),
        client: origin.client.map(|client| client.to_string()),
        request_id: origin.request_id.as_deref(),
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit_entries)]
struct Row {
    id: i64,
    at: NaiveDateTime,
    actor: String,
    user_id: Option<i64>,
    credential: String,
    role: Option<String>,
    scopes: String,
    action: String,
    target: Option<String>,
    subject_id: Option<i64>,
    version_before: Option<i64>,
    version_after: Option<i64>,
    changed: String,
    outcome: String,
    detail: Option<String>,
    client: Option<String>,
    request_id: Option<String>,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        Self {
            id: EntryId(row.id),
            at: row.at.into(),
            actor: row.actor,
            user: row.user_id.map(UserId),
            credential: row.credential,
            role: row.role,
            scopes: row.scopes,
            action: row.action,
            target: row.target,
            subject: row.subject_id.map(UserId),
            version_before: row.version_before,
            version_after: row.version_after,
            changed: row.changed,
            outcome: row.outcome,
            detail: row.detail,
            client: row.client,
            request_id: row.request_id,
        }
    }
}

/// In which order, and from where on.
#[derive(Clone, Copy, Debug)]
pub enum Slice {
    /// Oldest first, after this entry.
    After(EntryId),
    /// Newest first, before this entry.
    Before(EntryId),
}

/// Some entries, and after which one the slice continues, if it does: not always the last of them.
pub struct Part {
    /// In the order of the slice.
    pub entries: Vec<Entry>,
    /// Send it as the end of the next slice.
    pub next: Option<EntryId>,
}

/// How many entries one query reads where an index does not find those that match.
pub const SCAN_MAX: i64 = 10_000;

/// The entries of a slice that match, at most `limit`, of the first [`SCAN_MAX`].
pub fn list(conn: &mut Conn, filter: &Filter, slice: Slice, limit: i64) -> Result<Part, AppError> {
    // One more tells whether the slice continues.
    let most = limit.saturating_add(1);
    let (mut entries, mut next) = match filter.concerns {
        // Each part by its own index and no further than needed, which no database does for an OR.
        Some(user) => {
            let mut entries = select(conn, filter, Whose::By(user), slice, most)?;
            entries.extend(select(conn, filter, Whose::About(user), slice, most)?);
            entries.sort_by_key(|entry| match slice {
                Slice::After(_) => entry.id.0,
                Slice::Before(_) => -entry.id.0,
            });
            (entries, None)
        }
        None => {
            let last = if is_scan(filter) { last_of_scan(conn, filter, slice)? } else { None };
            (select(conn, filter, Whose::Anybodys { until: last }, slice, most)?, last)
        }
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if entries.len() > limit {
        entries.truncate(limit);
        next = entries.last().map(|entry| entry.id);
    }
    Ok(Part { entries, next })
}

/// The user whose entries an index finds, if the filter names one.
fn indexed_user(filter: &Filter) -> Option<i64> {
    filter.user.map(|user| user.0).or_else(|| user_of(filter.actor.as_deref()?))
}

/// The id in `user:<id>`.
fn user_of(actor: &str) -> Option<i64> {
    actor.strip_prefix("user:")?.parse().ok()
}

/// Whether entries are read that do not match: whatever is filtered beside what an index answers.
fn is_scan(filter: &Filter) -> bool {
    let Filter { actor, user, concerns: _, action, target, outcome, since, until } = filter;
    let beside_the_target = target.is_some() && user.is_some();
    // What a user's keys do is on the same account, under another name.
    let beside_the_user = actor.is_some();
    let by_no_index = action.is_some() || outcome.is_some() || since.is_some() || until.is_some();
    beside_the_target || beside_the_user || by_no_index
}

/// The last entry that a scan reads; `None` if it reads the whole slice.
fn last_of_scan(conn: &mut Conn, filter: &Filter, slice: Slice) -> Result<Option<EntryId>, AppError> {
    let mut ids = audit_entries::table.select(audit_entries::id).into_boxed();
    ids = match slice {
        Slice::After(id) => ids.filter(audit_entries::id.gt(id.0)).order(audit_entries::id.asc()),
        Slice::Before(id) => ids.filter(audit_entries::id.lt(id.0)).order(audit_entries::id.desc()),
    };
    if let Some(target) = &filter.target {
        ids = ids.filter(audit_entries::target.eq(target));
    } else if let Some(user) = indexed_user(filter) {
        ids = ids.filter(audit_entries::user_id.eq(user));
    }
    Ok(ids.offset(SCAN_MAX - 1).limit(1).get_result(conn).optional()?.map(EntryId))
}

/// Whose entries.
#[derive(Clone, Copy)]
enum Whose {
    /// All that match, up to this one in the order of the slice.
    Anybodys { until: Option<EntryId> },
    /// On the account of this user.
    By(UserId),
    /// About what is this user's, by somebody else.
    About(UserId),
}

fn select(conn: &mut Conn, filter: &Filter, whose: Whose, slice: Slice, limit: i64) -> Result<Vec<Entry>, AppError> {
    let mut rows = audit_entries::table.select(Row::as_select()).limit(limit).into_boxed();
    rows = match slice {
        Slice::After(id) => rows.filter(audit_entries::id.gt(id.0)).order(audit_entries::id.asc()),
        Slice::Before(id) => rows.filter(audit_entries::id.lt(id.0)).order(audit_entries::id.desc()),
    };
    if let Some(actor) = &filter.actor {
        rows = rows.filter(audit_entries::actor.eq(actor));
        // What a user does is on their account, which has an index.
        if let Some(user) = user_of(actor) {
            rows = rows.filter(audit_entries::user_id.eq(user));
        }
    }
    if let Some(user) = filter.user {
        rows = rows.filter(audit_entries::user_id.eq(user.0));
    }
    rows = match whose {
        Whose::Anybodys { until: None } => rows,
        Whose::Anybodys { until: Some(last) } => match slice {
            Slice::After(_) => rows.filter(audit_entries::id.le(last.0)),
            Slice::Before(_) => rows.filter(audit_entries::id.ge(last.0)),
        },
        Whose::By(user) => rows.filter(audit_entries::user_id.eq(user.0)),
        Whose::About(user) => {
            // In the words of the index on `subject_id`, which leaves out what users do to their own.
            let by_others = audit_entries::user_id.is_null().or(audit_entries::user_id.ne(audit_entries::subject_id));
            rows.filter(audit_entries::subject_id.eq(user.0).and(by_others))
        }
    };
    if let Some(action) = &filter.action {
        rows = rows.filter(audit_entries::action.eq(action));
    }
    if let Some(target) = &filter.target {
        rows = rows.filter(audit_entries::target.eq(target));
    }
    if let Some(outcome) = filter.outcome {
        rows = rows.filter(audit_entries::outcome.eq(outcome));
    }
    if let Some(since) = filter.since {
        rows = rows.filter(audit_entries::at.ge(since.naive()));
    }
    if let Some(until) = filter.until {
        rows = rows.filter(audit_entries::at.lt(until.naive()));
    }
    Ok(rows.load(conn)?.into_iter().map(Entry::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_who_is_a_user_is_found_by_the_index_of_users() {
        let filter = |actor: &str| Filter { actor: Some(actor.to_owned()), ..Filter::default() };
        assert_eq!(indexed_user(&filter("user:17")), Some(17));
        for actor in ["key:17", "user:", "user:x", "anonymous"] {
            assert_eq!(indexed_user(&filter(actor)), None, "{actor}");
        }
        assert_eq!(indexed_user(&Filter { user: Some(UserId(18)), ..filter("user:17") }), Some(18));
    }
}
