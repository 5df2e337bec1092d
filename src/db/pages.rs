//! The `pages` table.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use diesel::dsl::{exists, select};
use diesel::prelude::*;

use super::Conn;
use super::cached::Cached;
use super::conn::{on_backend, one_locked};
use super::schema::{pages, users};
use crate::clock::Timestamp;
use crate::domain::id::{PageId, UserId};
use crate::domain::page::ListedPage;
use crate::error::AppError;

/// A row of `pages`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = pages)]
pub struct Page {
    /// Never reused.
    #[diesel(deserialize_as = i64)]
    pub id: PageId,
    /// Who created it, and alone may change it.
    #[diesel(deserialize_as = i64)]
    pub owner_id: UserId,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// 1 at first, one more with each change.
    pub version: i64,
    /// When it was created.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[diesel(deserialize_as = NaiveDateTime)]
    pub updated_at: Timestamp,
    /// Who changed it last.
    #[diesel(deserialize_as = i64)]
    pub updated_by: UserId,
}

impl From<Page> for crate::domain::page::Page {
    fn from(row: Page) -> Self {
        let Page { id, owner_id: owner, title, body, version, created_at, updated_at, updated_by } = row;
        Self { id, owner, title, body, version, created_at, updated_at, updated_by }
    }
}

/// A row to be.
#[derive(Insertable)]
#[diesel(table_name = pages)]
pub struct PageRow<'a> {
    /// The creator.
    pub owner_id: i64,
    /// Its title.
    pub title: &'a str,
    /// Its text.
    pub body: &'a str,
    /// 1.
    pub version: i64,
    /// Now.
    pub created_at: NaiveDateTime,
    /// Now.
    pub updated_at: NaiveDateTime,
    /// The creator.
    pub updated_by: i64,
}

/// What a change writes; `None` leaves a column as it is.
#[derive(AsChangeset)]
#[diesel(table_name = pages)]
pub struct PageChange<'a> {
    /// The new title.
    pub title: Option<&'a str>,
    /// The new text.
    pub body: Option<&'a str>,
    /// One more than before.
    pub version: i64,
    /// Now.
    pub updated_at: NaiveDateTime,
    /// The caller.
    pub updated_by: i64,
}

/// Pages of deleted users that one look at the list passes over.
const PASSED_MAX: i64 = 5_000;

/// All pages but those of deleted users, which are about to be removed. Every query for pages begins here
/// (`tests/arch.rs`).
#[diesel::dsl::auto_type]
fn existing() -> _ {
    let deleted = users::table.filter(users::deleted_at.is_not_null()).select(users::id);
    pages::table.filter(pages::owner_id.ne_all(deleted))
}

/// Stores a page.
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

/// The page with this id, which stays as found until the transaction ends.
pub fn lock(conn: &mut Conn, id: PageId) -> Result<Option<Page>, AppError> {
    Ok(one_locked!(conn => existing().filter(pages::id.eq(id.0)).select(Page::as_select()))?)
}

/// Where a look at the pages after `after` ends that is to find `wanted` of them, so that it passes over a bounded number
/// of pages of deleted users. `None` if it need not end before the last page.
fn scan_end(conn: &mut Conn, after: PageId, wanted: i64) -> Result<Option<PageId>, AppError> {
    let deleted = users::table.filter(users::deleted_at.is_not_null());
    if !select(exists(deleted)).get_result::<bool>(conn)? {
        return Ok(None);
    }
    let ids = pages::table.filter(pages::id.gt(after.0)).order(pages::id).select(pages::id);
    Ok(ids.offset(wanted + PASSED_MAX).limit(1).get_result::<i64>(conn).optional()?.map(PageId))
}

/// After the one page, up to the other.
#[diesel::dsl::auto_type]
fn within(after: PageId, end: Option<PageId>) -> _ {
    let after: i64 = after.0;
    let end: i64 = end.map_or(i64::MAX, |end| end.0);
    pages::id.gt(after).and(pages::id.le(end))
}

diesel::define_sql_function! {
    /// The bytes of a text in UTF-8. Neither database reads the text for it.
    fn octet_length(text: diesel::sql_types::Text) -> diesel::sql_types::Integer;
}

/// A part of the list, by id, without text.
pub struct ListPart {
    /// The pages, each with the bytes of its text.
    pub rows: Vec<(ListedPage, usize)>,
    /// After which page the list continues, if it does.
    pub next: Option<PageId>,
}

/// The pages after `after`, at most `limit`. Every list of pages comes from here, so a condition on what is visible
/// belongs here; `next` may then be a page that is not in `rows`.
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
    // One more tells whether the list continues.
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

/// The page that `offset` pages end with, by id; `None` if there are fewer.
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

/// How many pages there are; `None` if there are more than `most`, or too many of deleted users to count the others.
pub fn count_up_to(conn: &mut Conn, most: i64) -> Result<Option<i64>, AppError> {
    // Without an order, so that the smallest index answers.
    let end = scan_end(conn, PageId(0), most)?;
    let found = existing().filter(within(PageId(0), end)).select(pages::id).offset(most);
    if end.is_some() || found.limit(1).get_result::<i64>(conn).optional()?.is_some() {
        return Ok(None);
    }
    Ok(Some(existing().count().get_result(conn)?))
}

/// Changes a page and answers what it has become.
pub fn update(conn: &mut Conn, id: PageId, change: &PageChange<'_>) -> Result<Page, AppError> {
    Ok(on_backend!(conn => Cached(diesel::update(pages::table.find(id.0))
        .set(change)
        .returning(Page::as_returning()))
        .get_result(conn))?)
}

/// The ids and versions of pages of a user after `after`, by id, at most `limit`, deleted or not.
pub fn versions_of(conn: &mut Conn, owner: UserId, after: PageId, limit: i64) -> Result<Vec<(PageId, i64)>, AppError> {
    let rows: Vec<(i64, i64)> = pages::table
        .filter(pages::owner_id.eq(owner.0))
        .filter(pages::id.gt(after.0))
        .order(pages::id)
        .limit(limit)
        .select((pages::id, pages::version))
        .load(conn)?;
    Ok(rows.into_iter().map(|(id, version)| (PageId(id), version)).collect())
}

/// Removes pages.
pub fn delete_all(conn: &mut Conn, ids: impl Iterator<Item = PageId>) -> Result<(), AppError> {
    diesel::delete(pages::table.filter(pages::id.eq_any(ids.map(|id| id.0)))).execute(conn)?;
    Ok(())
}

/// Removes a page.
pub fn delete(conn: &mut Conn, id: PageId) -> Result<(), AppError> {
    diesel::delete(pages::table.find(id.0)).execute(conn)?;
    Ok(())
}
