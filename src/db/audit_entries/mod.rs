//! The `audit_entries` table, to which Latchkey only appends.

pub mod removals;
pub mod slices;

use std::sync::Arc;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::audit_entries::slices::{Slice, is_past_period, skip_to_period};
use crate::db::cached::Cached;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::on_backend;
use crate::db::schema::audit_entries;
use crate::domain::audit::{Actor, ClientInfo, Entry, Event, Filter, Outcome};
use crate::domain::id::{EntryId, UserId};
use crate::domain::principal::Level;
use crate::domain::role::RoleName;
use crate::domain::scope::Grant;
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

/// Appends an entry and returns its id.
pub fn insert(
    conn: &mut Conn,
    at: Timestamp,
    actor: &Actor,
    event: &Event,
    outcome: Outcome,
    client_info: &ClientInfo,
) -> Result<EntryId, AppError> {
    let entry = new_entry(at, actor, event, outcome, client_info);
    let insert = Cached(diesel::insert_into(audit_entries::table).values(entry).returning(audit_entries::id));
    let id: i64 = on_backend!(conn => insert.get_result(conn))?;
    Ok(EntryId(id))
}

/// The actor and the client of this entry; `None` if the entry has been deleted from the database by hand.
pub fn find_actor(conn: &mut Conn, id: EntryId) -> Result<Option<(Actor, ClientInfo)>, AppError> {
    let row: Option<Row> = audit_entries::table.find(id.0).select(Row::as_select()).get_result(conn).optional()?;
    Ok(row.map(|row| {
        let scopes = Grant::from_stored_list(&row.scopes);
        let level = row.role.as_deref().map(|role| Level { role: RoleName::from(role), scopes });
        let actor = Actor { actor: row.actor, user: row.user_id.map(UserId), credential: row.credential, level };
        let client = row.client.and_then(|client| client.parse().ok());
        (actor, ClientInfo { client, request_id: row.request_id.map(Arc::from) })
    }))
}

/// Appends entries about the effects of a change, all by the same actor and with the outcome success.
pub fn insert_all(
    conn: &mut Conn,
    at: Timestamp,
    actor: &Actor,
    events: &[Event],
    client_info: &ClientInfo,
) -> Result<(), AppError> {
    // Both databases limit the number of bound values per statement.
    for chunk in events.chunks(500) {
        let entries: Vec<_> =
            chunk.iter().map(|event| new_entry(at, actor, event, Outcome::Success, client_info)).collect();
        on_backend!(conn => diesel::insert_into(audit_entries::table).values(&entries).execute(conn))?;
    }
    Ok(())
}

fn new_entry<'a>(
    at: Timestamp,
    actor: &'a Actor,
    event: &'a Event,
    outcome: Outcome,
    client_info: &'a ClientInfo,
) -> NewEntry<'a> {
    NewEntry {
        at: at.naive(),
        actor: &actor.actor,
        user_id: actor.user.map(|user| user.0),
        credential: &actor.credential,
        role: actor.level.as_ref().map(|level| level.role.as_str()),
        scopes: actor.level.as_ref().map(|level| level.scopes.to_string()).unwrap_or_default(),
        action: event.action.name(),
        target: event.target.as_ref().map(ToString::to_string),
        subject_id: event.subject.map(|subject| subject.0),
        version_before: event.version_before,
        version_after: event.version_after,
        changed: event.changed.join(" "),
        outcome: outcome.name(),
        detail: event.detail.as_deref(),
        client: client_info.client.map(|client| client.to_string()),
        request_id: client_info.request_id.as_deref(),
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

/// One part of a list of entries.
pub struct Part {
    /// In the order of the slice.
    pub entries: Vec<Entry>,
    /// The id that the next [`Slice`] starts from; `None` at the end of the list. It is not always the last of
    /// `entries`: a scan can end at an entry that does not match.
    pub next: Option<EntryId>,
}

/// The most entries that one query reads if the filter is not covered by an index.
pub const SCAN_MAX: i64 = 10_000;

/// At most `limit` entries of a slice that match the filter. If no index covers the filter, only the first [`SCAN_MAX`]
/// entries of the slice are read, beginning with the period of the filter.
pub fn list(conn: &mut Conn, filter: &Filter, slice: Slice, limit: i64) -> Result<Part, AppError> {
    // One more entry than asked for shows whether the slice continues.
    let most = limit.saturating_add(1);
    let (mut entries, mut next) = match filter.involves {
        // Two queries, each by its own index and with its own limit: neither database does that for an OR.
        Some(user) => {
            let mut entries = select(conn, filter, EntryOwner::Actor(user), slice, most)?;
            entries.extend(select(conn, filter, EntryOwner::About(user), slice, most)?);
            entries.sort_by_key(|entry| match slice {
                Slice::After(_) => entry.id.0,
                Slice::Before(_) => -entry.id.0,
            });
            (entries, None)
        }
        None => {
            let slice = skip_to_period(conn, filter, slice)?;
            let last = if is_scan(filter) { last_of_scan(conn, filter, slice)? } else { None };
            let next = match last {
                Some(last) if is_past_period(conn, filter, slice, last)? => None,
                last => last,
            };
            (select(conn, filter, EntryOwner::Any { until: last }, slice, most)?, next)
        }
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if entries.len() > limit {
        entries.truncate(limit);
        next = entries.last().map(|entry| entry.id);
    }
    Ok(Part { entries, next })
}

/// The user by whom the index on `user_id` finds the entries, if the filter names one.
fn indexed_user(filter: &Filter) -> Option<i64> {
    filter.user.map(|user| user.0).or_else(|| user_of(filter.actor.as_deref()?))
}

/// The id of an actor of the form `user:<id>`.
fn user_of(actor: &str) -> Option<i64> {
    actor.strip_prefix("user:")?.parse().ok()
}

/// Whether the query may read entries that do not match, because one index does not cover the whole filter.
fn is_scan(filter: &Filter) -> bool {
    let Filter { actor, user, involves: _, action, target, outcome, since, until } = filter;
    let not_by_target_index = target.is_some() && user.is_some();
    // The entries of a user's keys have the same `user_id` and another actor.
    let not_by_user_index = actor.is_some();
    let without_index = action.is_some() || outcome.is_some() || since.is_some() || until.is_some();
    not_by_target_index || not_by_user_index || without_index
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

/// Which entries a query selects by their owner.
#[derive(Clone, Copy)]
enum EntryOwner {
    /// All entries, up to and including `until` in the order of the slice.
    Any { until: Option<EntryId> },
    /// Entries of actions on the account of this user.
    Actor(UserId),
    /// Entries about objects of this user, by other users.
    About(UserId),
}

fn select(
    conn: &mut Conn,
    filter: &Filter,
    owner: EntryOwner,
    slice: Slice,
    limit: i64,
) -> Result<Vec<Entry>, AppError> {
    let mut rows = audit_entries::table.select(Row::as_select()).limit(limit).into_boxed();
    rows = match slice {
        Slice::After(id) => rows.filter(audit_entries::id.gt(id.0)).order(audit_entries::id.asc()),
        Slice::Before(id) => rows.filter(audit_entries::id.lt(id.0)).order(audit_entries::id.desc()),
    };
    if let Some(actor) = &filter.actor {
        rows = rows.filter(audit_entries::actor.eq(actor));
        // `user_id` is indexed, and the entries of an actor `user:<id>` have that id.
        if let Some(user) = user_of(actor) {
            rows = rows.filter(audit_entries::user_id.eq(user));
        }
    }
    if let Some(user) = filter.user {
        rows = rows.filter(audit_entries::user_id.eq(user.0));
    }
    rows = match owner {
        EntryOwner::Any { until: None } => rows,
        EntryOwner::Any { until: Some(last) } => match slice {
            Slice::After(_) => rows.filter(audit_entries::id.le(last.0)),
            Slice::Before(_) => rows.filter(audit_entries::id.ge(last.0)),
        },
        EntryOwner::Actor(user) => rows.filter(audit_entries::user_id.eq(user.0)),
        EntryOwner::About(user) => {
            // The condition is that of the partial index on `subject_id`, which omits users' actions on their own
            // objects.
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
