//! Slices of the `audit_entries` table, by id and by time. Ids follow time, so a binary search by id finds where a period
//! begins or ends, without an index on `at`.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::schema::audit_entries;
use crate::domain::audit::Filter;
use crate::domain::id::EntryId;
use crate::error::AppError;

/// The order of a list, and where it starts.
#[derive(Clone, Copy, Debug)]
pub enum Slice {
    /// Oldest first, after this entry.
    After(EntryId),
    /// Newest first, before this entry.
    Before(EntryId),
}

/// The number of seconds by which the times of two entries may differ from the order of their ids: by the time that a
/// transaction takes, and by the difference between the clocks of two processes.
const MARGIN: i64 = 600;

/// The slice, without the entries at its beginning that are outside the period of the filter.
pub(super) fn skip_to_period(conn: &mut Conn, filter: &Filter, slice: Slice) -> Result<Slice, AppError> {
    Ok(match (slice, earliest(filter), latest(filter)) {
        (Slice::After(id), Some(earliest), _) => match next(conn, id.0.saturating_add(1))? {
            Some((_, at)) if at < earliest => Slice::After(EntryId(first_from(conn, id.0, earliest)? - 1)),
            _ => slice,
        },
        (Slice::Before(id), _, Some(latest)) => match previous(conn, id)? {
            Some((last, at)) if at >= latest => Slice::Before(EntryId(first_from(conn, 0, latest)?.min(last))),
            _ => slice,
        },
        _ => slice,
    })
}

/// Whether the period of the filter has ended before this entry, in the order of the slice.
pub(super) fn is_past_period(conn: &mut Conn, filter: &Filter, slice: Slice, entry: EntryId) -> Result<bool, AppError> {
    let Some((_, at)) = next(conn, entry.0)? else { return Ok(true) };
    Ok(match slice {
        Slice::After(_) => latest(filter).is_some_and(|latest| at >= latest),
        Slice::Before(_) => earliest(filter).is_some_and(|earliest| at < earliest),
    })
}

fn earliest(filter: &Filter) -> Option<NaiveDateTime> {
    filter.since.map(|since| Timestamp::naive(since.plus_seconds(-MARGIN)))
}

fn latest(filter: &Filter) -> Option<NaiveDateTime> {
    filter.until.map(|until| Timestamp::naive(until.plus_seconds(MARGIN)))
}

/// The first entry with this id or a greater one.
fn next(conn: &mut Conn, id: i64) -> Result<Option<(i64, NaiveDateTime)>, AppError> {
    let from = audit_entries::table.filter(audit_entries::id.ge(id)).order(audit_entries::id.asc());
    Ok(from.select((audit_entries::id, audit_entries::at)).limit(1).get_result(conn).optional()?)
}

/// The last entry before `id`.
fn previous(conn: &mut Conn, id: EntryId) -> Result<Option<(i64, NaiveDateTime)>, AppError> {
    let until = audit_entries::table.filter(audit_entries::id.lt(id.0)).order(audit_entries::id.desc());
    Ok(until.select((audit_entries::id, audit_entries::at)).limit(1).get_result(conn).optional()?)
}

/// An id after `low`, so that the entries before it are older than `time`, and those from it on are not.
fn first_from(conn: &mut Conn, low: i64, time: NaiveDateTime) -> Result<i64, AppError> {
    let first = next(conn, low.saturating_add(1))?.map_or(low, |(id, _)| id);
    let last = previous(conn, EntryId(i64::MAX))?.map_or(low, |(id, _)| id);
    let (mut low, mut high) = (first, last.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        match next(conn, middle)? {
            Some((id, at)) if at < time => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
