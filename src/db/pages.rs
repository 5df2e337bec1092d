//! The `pages` table.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::conn::{on_backend, one_locked};
use super::schema::pages;
use crate::clock::Timestamp;
use crate::domain::id::{PageId, UserId};
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

/// Stores a page.
pub fn insert(conn: &mut Conn, new: &PageRow<'_>) -> Result<Page, AppError> {
    Ok(on_backend!(conn => diesel::insert_into(pages::table)
        .values(new)
        .returning(Page::as_returning())
        .get_result(conn))?)
}

/// The page with this id.
pub fn find(conn: &mut Conn, id: PageId) -> Result<Option<Page>, AppError> {
    Ok(pages::table.find(id.0).select(Page::as_select()).get_result(conn).optional()?)
}

/// The page with this id, which stays as found until the transaction ends.
pub fn lock(conn: &mut Conn, id: PageId) -> Result<Option<Page>, AppError> {
    Ok(one_locked!(conn => pages::table.find(id.0).select(Page::as_select()))?)
}

/// How many pages there are, and those from `offset` on, by id, at most `limit`.
pub fn list(conn: &mut Conn, offset: i64, limit: i64) -> Result<(i64, Vec<Page>), AppError> {
    let total = pages::table.count().get_result(conn)?;
    let items = pages::table.order(pages::id).offset(offset).limit(limit).select(Page::as_select()).load(conn)?;
    Ok((total, items))
}

/// Changes a page and answers what it has become.
pub fn update(conn: &mut Conn, id: PageId, change: &PageChange<'_>) -> Result<Page, AppError> {
    Ok(on_backend!(conn => diesel::update(pages::table.find(id.0))
        .set(change)
        .returning(Page::as_returning())
        .get_result(conn))?)
}

/// The ids and versions of all pages of a user, by id.
pub fn versions_of(conn: &mut Conn, owner: UserId) -> Result<Vec<(PageId, i64)>, AppError> {
    let rows: Vec<(i64, i64)> = pages::table
        .filter(pages::owner_id.eq(owner.0))
        .order(pages::id)
        .select((pages::id, pages::version))
        .load(conn)?;
    Ok(rows.into_iter().map(|(id, version)| (PageId(id), version)).collect())
}

/// Removes a page.
pub fn delete(conn: &mut Conn, id: PageId) -> Result<(), AppError> {
    diesel::delete(pages::table.find(id.0)).execute(conn)?;
    Ok(())
}
