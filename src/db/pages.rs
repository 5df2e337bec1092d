//! The `pages` table.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use diesel::dsl::{exists, select};
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::cached::Cached;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{on_backend, one_locked};
use crate::db::owned::{IdAndVersion, Owned};
use crate::db::schema::{pages, users};
use crate::domain::audit::{Action, Target};
use crate::domain::id::{PageId, UserId};
use crate::domain::page::ListedPage;
use crate::error::AppError;

/// A row of `pages`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = pages)]
pub struct Page {
    /// The id. Ids are never reused.
    #[diesel(deserialize_as = i64)]
    pub id: PageId,
    /// The user who created the page. Only this user may change it.
    #[diesel(deserialize_as = i64)]
    pub owner_id: UserId,
    /// The title.
    pub title: String,
    /// The text.
    pub body: String,
    /// 1 at creation, and incremented by every change.
    pub version: i64,
    /// When the page was created.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub created_at: Timestamp,
    /// When the page was last changed.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub updated_at: Timestamp,
    /// The user who last changed the page.
    #[diesel(deserialize_as = i64)]
    pub updated_by: UserId,
}

impl From<Page> for crate::domain::page::Page {
    fn from(row: Page) -> Self {
        let Page { id, owner_id: owner, title, body, version, created_at, updated_at, updated_by } = row;
        Self { id, owner, title, body, version, created_at, updated_at, updated_by }
    }
}

/// A new row of `pages`.
#[derive(Insertable)]
#[diesel(table_name = pages)]
pub struct PageRow<'a> {
    /// The user who creates the page.
    pub owner_id: i64,
    /// The title.
    pub title: &'a str,
    /// The text.
    pub body: &'a str,
    /// Must be 1.
    pub version: i64,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// The current time.
    pub updated_at: NaiveDateTime,
    /// The user who creates the page.
    pub updated_by: i64,
}

/// The columns that an update sets. `None` leaves a column unchanged.
#[derive(AsChangeset)]
#[diesel(table_name = pages)]
pub struct PageChange<'a> {
    /// The new title.
    pub title: Option<&'a str>,
    /// The new text.
    pub body: Option<&'a str>,
    /// The current version plus 1.
    pub version: i64,
    /// The current time.
    pub updated_at: NaiveDateTime,
    /// The user who changes the page.
    pub updated_by: i64,
}

/// Pages are deleted with their owner.
pub const OWNED: Owned = Owned {
    table: "pages",
    action: Action::DeletePage,
    target: |id| Target::Page(PageId(id)),
    of_user: versions_of,
    delete: delete_all,
};

/// The most pages of deleted users that one query for a list skips.
const SKIPPED_MAX: i64 = 5_000;

/// All pages, except those of deleted users, which the cleanup is about to delete. Every query for pages must start
/// from this one; `tests/arch.rs` checks that.
#[diesel::dsl::auto_type]
fn existing() -> _ {
    let deleted = users::table.filter(users::deleted_at.is_not_null()).select(users::id);
    pages::table.filter(pages::owner_id.ne_all(deleted))
}

/// Inserts a page.
pub fn insert(conn: &mut Conn, new: &PageRow<'_>) -> Result<Page, AppError> {
    Ok(on_backend!(conn => Cached(diesel::insert_into(pages::table)
        .values(new)
        .returning(Page::as_returning()))
        .get_result(conn))?)
}

/// The page with this id.
pub fn find(conn: &mut Conn, id: PageId) -> Result<Option<Page>, AppError> {
    Ok(existing().filter(pages::id.eq(id.0)).select(Page::as_select()).get_result(conn).optional()?)
}

/// The page with this id, with the row locked until the transaction ends.
pub fn lock(conn: &mut Conn, id: PageId) -> Result<Option<Page>, AppError> {
    Ok(one_locked!(conn => existing().filter(pages::id.eq(id.0)).select(Page::as_select()))?)
}

/// The last page that a query for `wanted` pages after `after` may read, so that it skips a bounded number of pages of
/// deleted users. `None` if it may read to the last page.
fn scan_end(conn: &mut Conn, after: PageId, wanted: i64) -> Result<Option<PageId>, AppError> {
    let deleted = users::table.filter(users::deleted_at.is_not_null());
    if !select(exists(deleted)).get_result::<bool>(conn)? {
        return Ok(None);
    }
    let ids = pages::table.filter(pages::id.gt(after.0)).order(pages::id).select(pages::id);
    Ok(ids.offset(wanted + SKIPPED_MAX).limit(1).get_result::<i64>(conn).optional()?.map(PageId))
}

/// The pages after `after`, up to and including `end`.
#[diesel::dsl::auto_type]
fn within(after: PageId, end: Option<PageId>) -> _ {
    let after: i64 = after.0;
    let end: i64 = end.map_or(i64::MAX, |end| end.0);
    pages::id.gt(after).and(pages::id.le(end))
}

diesel::define_sql_function! {
    /// The length of a text in bytes of UTF-8. Neither database reads the text to compute it.
    fn octet_length(text: diesel::sql_types::Text) -> diesel::sql_types::Integer;
}

/// A part of the list of pages, in the order of their ids, without their texts.
pub struct ListPart {
    /// The pages, each with the length of its text in bytes.
    pub rows: Vec<(ListedPage, usize)>,
    /// The page after which the list continues; `None` at the end of the list.
    pub next: Option<PageId>,
}

/// At most `limit` pages with higher ids than `after`. All lists of pages use this query, so conditions on what a
/// caller may see belong here. `next` can be a page that is not in `rows`.
pub fn list(conn: &mut Conn, after: PageId, limit: i64) -> Result<ListPart, AppError> {
    type Row = (i64, i64, String, i64, NaiveDateTime, NaiveDateTime, i64, i32);
    let columns = (
        pages::id,
        pages::owner_id,
        pages::title,
        pages::version,
        pages::created_at,
        pages::updated_at,
        pages::updated_by,
        octet_length(pages::body),
    );
    let end = scan_end(conn, after, limit)?;
    let rows = existing().filter(within(after, end)).order(pages::id);
    // One more row than asked for shows whether the list continues.
    let mut rows: Vec<Row> = rows.limit(limit + 1).select(columns).load(conn)?;
    let continues = i64::try_from(rows.len()).is_ok_and(|found| found > limit);
    if continues {
        rows.pop();
    }
    let next = if continues { rows.last().map(|row| PageId(row.0)) } else { end };
    let listed = |(id, owner, title, version, created_at, updated_at, updated_by, bytes): Row| {
        let page = ListedPage {
            id: PageId(id),
            owner: UserId(owner),
            title,
            body: None,
            version,
            created_at: created_at.into(),
            updated_at: updated_at.into(),
            updated_by: UserId(updated_by),
        };
        (page, usize::try_from(bytes).unwrap_or_default())
    };
    Ok(ListPart { rows: rows.into_iter().map(listed).collect(), next })
}

/// The id of the last of the first `offset` pages in the order of their ids. 0 if `offset` is 0; `None` if there are
/// fewer pages.
pub fn last_of_first(conn: &mut Conn, offset: i64) -> Result<Option<PageId>, AppError> {
    if offset == 0 {
        return Ok(Some(PageId(0)));
    }
    let end = scan_end(conn, PageId(0), offset)?;
    let ids = existing().filter(within(PageId(0), end)).order(pages::id).select(pages::id).offset(offset - 1);
    Ok(ids.limit(1).get_result::<i64>(conn).optional()?.map(PageId).or(end))
}

/// The texts of these pages.
pub fn bodies(conn: &mut Conn, ids: &[PageId]) -> Result<HashMap<PageId, String>, AppError> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<(i64, String)> =
        pages::table.filter(pages::id.eq_any(ids)).select((pages::id, pages::body)).load(conn)?;
    Ok(rows.into_iter().map(|(id, body)| (PageId(id), body)).collect())
}

/// The number of pages; `None` if there are more than `most`, or so many pages of deleted users that the query cannot
/// skip them all.
pub fn count_up_to(conn: &mut Conn, most: i64) -> Result<Option<i64>, AppError> {
    // No order, so that the planner can use the smallest index.
    let end = scan_end(conn, PageId(0), most)?;
    let found = existing().filter(within(PageId(0), end)).select(pages::id).offset(most);
    if end.is_some() || found.limit(1).get_result::<i64>(conn).optional()?.is_some() {
        return Ok(None);
    }
    Ok(Some(existing().count().get_result(conn)?))
}

/// Updates a page and returns the new row.
pub fn update(conn: &mut Conn, id: PageId, change: &PageChange<'_>) -> Result<Page, AppError> {
    Ok(on_backend!(conn => Cached(diesel::update(pages::table.find(id.0))
        .set(change)
        .returning(Page::as_returning()))
        .get_result(conn))?)
}

/// The ids and versions of at most `limit` pages of a user with higher ids than `after`, in the order of their ids. The
/// user may be deleted.
fn versions_of(conn: &mut Conn, owner: UserId, after: i64, limit: i64) -> Result<Vec<IdAndVersion>, AppError> {
    Ok(pages::table
        .filter(pages::owner_id.eq(owner.0))
        .filter(pages::id.gt(after))
        .order(pages::id)
        .limit(limit)
        .select((pages::id, pages::version.nullable()))
        .load(conn)?)
}

/// Deletes pages.
fn delete_all(conn: &mut Conn, ids: &[i64]) -> Result<(), AppError> {
    diesel::delete(pages::table.filter(pages::id.eq_any(ids))).execute(conn)?;
    Ok(())
}

/// Deletes a page.
pub fn delete(conn: &mut Conn, id: PageId) -> Result<(), AppError> {
    diesel::delete(pages::table.find(id.0)).execute(conn)?;
    Ok(())
}
