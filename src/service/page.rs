//! Pages: everybody who may read sees all of them, only the owner changes one.

use validator::{Validate, ValidationError};

use super::Service;
use super::trail::Change;
use crate::db::pages::{self, PageChange, PageRow};
use crate::domain::audit::{Action, Call, Event, Target};
use crate::domain::id::{PageId, UserId};
use crate::domain::page::Page;
use crate::error::{AppError, Denial};

/// Longest title in characters.
pub const TITLE_MAX: u64 = 200;
/// Longest text in bytes of UTF-8.
pub const BODY_MAX: usize = 64 * 1024;
/// Highest page number of the list.
pub const NUMBER_MAX: i64 = 1_000_000_000;
/// Most items on one page of the list.
pub const SIZE_MAX: i64 = 100;
/// Items on one page of the list unless asked otherwise.
pub const SIZE_DEFAULT: i64 = 20;

/// Which part of the list of pages.
#[derive(Clone, Copy, Debug, Validate)]
pub struct ListRange {
    /// Page number, from 1.
    #[validate(range(min = 1, max = NUMBER_MAX))]
    pub page: i64,
    /// Items on a page.
    #[validate(range(min = 1, max = SIZE_MAX))]
    pub size: i64,
}

impl ListRange {
    /// What was asked for, or the beginning.
    pub fn new(page: Option<i64>, size: Option<i64>) -> Self {
        Self { page: page.unwrap_or(1), size: size.unwrap_or(SIZE_DEFAULT) }
    }
}

/// One page of the list of pages.
#[derive(Debug)]
pub struct PageList {
    /// How many there are in all.
    pub total: i64,
    /// These ones, by id.
    pub items: Vec<Page>,
}

/// A page to be.
#[derive(Debug, Validate)]
pub struct NewPage {
    /// Its title.
    #[validate(length(min = 1, max = TITLE_MAX))]
    pub title: String,
    /// Its text.
    #[validate(custom(function = at_most_64_kib))]
    pub body: String,
}

/// What a change sets; `None` leaves it.
#[derive(Debug, Validate)]
#[validate(schema(function = something_to_change))]
pub struct PageEdit {
    /// The new title.
    #[validate(length(min = 1, max = TITLE_MAX))]
    pub title: Option<String>,
    /// The new text.
    #[validate(custom(function = at_most_64_kib))]
    pub body: Option<String>,
}

fn at_most_64_kib(text: &str) -> Result<(), ValidationError> {
    if text.len() > BODY_MAX {
        return Err(ValidationError::new("length").with_message("Use at most 65536 bytes of UTF-8.".into()));
    }
    Ok(())
}

fn something_to_change(edit: &PageEdit) -> Result<(), ValidationError> {
    if edit.title.is_none() && edit.body.is_none() {
        return Err(ValidationError::new("missing").with_message("Send a title, a body, or both.".into()));
    }
    Ok(())
}

/// The versions that a caller is prepared to change (`If-Match`); `None` means any.
pub type ExpectedVersions = Option<Vec<i64>>;

impl Service {
    /// One part of the list.
    pub async fn pages(&self, range: ListRange) -> Result<PageList, AppError> {
        range.validate()?;
        let offset = (range.page - 1) * range.size;
        let (total, items) = self.db.read_consistent(move |conn| pages::list(conn, offset, range.size)).await?;
        Ok(PageList { total, items: items.into_iter().map(Page::from).collect() })
    }

    /// The page with this id.
    pub async fn page(&self, id: PageId) -> Result<Page, AppError> {
        let found = self.db.read(move |conn| pages::find(conn, id)).await?;
        found.map(Page::from).ok_or(AppError::NotFound("page"))
    }

    /// Stores a new page of the caller's.
    pub async fn create_page(&self, call: Call, new: NewPage) -> Result<Page, AppError> {
        new.validate()?;
        let owner = call.user()?.user_id;
        let created = self.change(call, Event::of(Action::CreatePage), move |change| {
            let now = change.now.naive();
            change.concerns(owner);
            let page = pages::insert(
                change.conn,
                &PageRow {
                    owner_id: owner.0,
                    title: &new.title,
                    body: &new.body,
                    version: 1,
                    created_at: now,
                    updated_at: now,
                    updated_by: owner.0,
                },
            )?;
            change.is_on(Target::Page(page.id));
            change.record(|event| event.versions(None, Some(page.version)).changed(vec!["title", "body"]))?;
            Ok(page)
        });
        created.await.map(Page::from)
    }

    /// Changes a page. Errors: not found, not the owner's, or [`AppError::Stale`] for an unexpected version.
    pub async fn edit_page(
        &self,
        call: Call,
        id: PageId,
        edit: PageEdit,
        expected: ExpectedVersions,
    ) -> Result<Page, AppError> {
        edit.validate()?;
        let user = call.user()?.user_id;
        let changed = self.change(call, Event::of(Action::EditPage).on(Target::Page(id)), move |change| {
            let before = changeable(change, id, user, expected.as_deref())?;
            let after = pages::update(
                change.conn,
                id,
                &PageChange {
                    title: edit.title.as_deref(),
                    body: edit.body.as_deref(),
                    version: before.version + 1,
                    updated_at: change.now.naive(),
                    updated_by: user.0,
                },
            )?;
            let fields = [("title", before.title != after.title), ("body", before.body != after.body)];
            change.record(|event| event.versions(Some(before.version), Some(after.version)).changed_where(fields))?;
            Ok(after)
        });
        changed.await.map(Page::from)
    }

    /// Removes a page, with the same errors as [`Self::edit_page`].
    pub async fn delete_page(&self, call: Call, id: PageId, expected: ExpectedVersions) -> Result<(), AppError> {
        let user = call.user()?.user_id;
        let removed = self.change(call, Event::of(Action::DeletePage).on(Target::Page(id)), move |change| {
            let page = changeable(change, id, user, expected.as_deref())?;
            pages::delete(change.conn, id)?;
            change.record(|event| event.versions(Some(page.version), None)).map(drop)
        });
        removed.await
    }
}

/// The page, locked, if `user` may change this version of it.
fn changeable(
    change: &mut Change<'_>,
    id: PageId,
    user: UserId,
    expected: Option<&[i64]>,
) -> Result<pages::Page, AppError> {
    let page = pages::lock(change.conn, id)?.ok_or(AppError::NotFound("page"))?;
    change.concerns(page.owner_id);
    if page.owner_id != user {
        return Err(AppError::Forbidden(Denial::NotOwner));
    }
    if expected.is_some_and(|versions| !versions.contains(&page.version)) {
        return Err(AppError::Stale);
    }
    Ok(page)
}
