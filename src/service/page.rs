//! Pages: everybody who may read sees all of them, only the owner changes one.

use validator::{Validate, ValidationError};

use super::rules::readable;
use super::trail::Change;
use super::{ANSWER_BYTES, Service, TOTAL_MAX, Total};
use crate::db::Conn;
use crate::db::pages::{self, PageChange, PageRow};
use crate::domain::audit::{Action, Call, Event, Target};
use crate::domain::id::{PageId, UserId};
use crate::domain::page::{ListedPage, Page};
use crate::error::{AppError, Denial, FieldError};

/// Longest title in characters.
pub const TITLE_MAX: u64 = 200;
/// Longest text in bytes of UTF-8.
pub const BODY_MAX: usize = 64 * 1024;
/// Most items on one page of the list.
pub const SIZE_MAX: i64 = 100;
/// Items on one page of the list unless asked otherwise.
pub const SIZE_DEFAULT: i64 = 20;
/// The highest version that a caller may name: the highest integer that every JSON library keeps.
pub const VERSION_MAX: i64 = (1 << 53) - 1;
/// How many pages a page number may skip. The work grows with it; that of `after` does not.
pub const OFFSET_MAX: i64 = 10_000;

/// Which part of the list of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRange {
    /// Where it begins.
    pub start: ListStart,
    /// Items at most.
    pub size: i64,
}

/// Where a part of the list of pages begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListStart {
    /// At the page of this number, from 1, of `size` items each.
    Number(i64),
    /// After the page with this id.
    After(PageId),
}

impl ListRange {
    /// What was asked for, or the beginning. Errors: [`AppError::Invalid`] names what is out of bounds.
    pub fn new(page: Option<i64>, after: Option<i64>, size: Option<i64>) -> Result<Self, AppError> {
        let (number, size) = (page.unwrap_or(1), size.unwrap_or(SIZE_DEFAULT));
        let mut errors = Vec::new();
        if page.is_some() && after.is_some() {
            errors.push(FieldError::new("after", "exclusive", "Send page or after, not both."));
        }
        if after.is_some_and(|after| after < 0) {
            errors.push(FieldError::new("after", "range", "Use what `next` said, or 0 for the beginning."));
        }
        if !(1..=SIZE_MAX).contains(&size) {
            errors.push(FieldError::new("size", "range", format!("Use 1 to {SIZE_MAX}.")));
        }
        if number < 1 {
            errors.push(FieldError::new("page", "range", "Use 1 or more."));
        } else if number.saturating_sub(1).saturating_mul(size.max(1)) > OFFSET_MAX {
            let detail = "Page numbers skip at most 10000 pages. Send `after` with the `next` of the answer before.";
            errors.push(FieldError::new("page", "page_too_deep", detail));
        }
        let start = after.map_or(ListStart::Number(number), |after| ListStart::After(PageId(after)));
        if errors.is_empty() { Ok(Self { start, size }) } else { Err(AppError::Invalid(errors)) }
    }
}

/// One part of the list of pages.
#[derive(Debug)]
pub struct PageList {
    /// How many there are in all.
    pub total: Total,
    /// These ones, by id.
    pub items: Vec<ListedPage>,
    /// After which page the list continues, if it does.
    pub next: Option<PageId>,
}

/// A page to be.
#[derive(Debug, Validate)]
pub struct NewPage {
    /// Its title.
    #[validate(length(min = 1, max = TITLE_MAX), custom(function = readable))]
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
    #[validate(length(min = 1, max = TITLE_MAX), custom(function = readable))]
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
    /// One part of the list. Texts come along until they fill an answer: what begins after a page ends there, and a
    /// numbered page lists the rest without text, so that the numbers of the others stay.
    pub async fn pages(&self, range: ListRange) -> Result<PageList, AppError> {
        let list = self.db.read_consistent(move |conn| {
            let total = Total::of(pages::count_up_to(conn, TOTAL_MAX)?);
            let after = match range.start {
                ListStart::After(page) => Some(page),
                ListStart::Number(number) => pages::last_of_first(conn, (number - 1) * range.size)?,
            };
            let Some(after) = after else {
                return Ok(PageList { total, items: Vec::new(), next: None });
            };
            let part = pages::list(conn, after, range.size)?;
            let (items, next) = with_bodies(conn, part, matches!(range.start, ListStart::After(_)))?;
            Ok(PageList { total, items, next })
        });
        list.await
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

/// The pages of a part of the list with their texts, as long as these fit into an answer; one always does. The others
/// are left out if `ends` says so, or else listed without text.
fn with_bodies(
    conn: &mut Conn,
    part: pages::ListPart,
    ends: bool,
) -> Result<(Vec<ListedPage>, Option<PageId>), AppError> {
    let pages::ListPart { mut rows, mut next } = part;
    let (mut room, mut fitting) = (ANSWER_BYTES, Vec::new());
    for (page, bytes) in &rows {
        if *bytes <= room || fitting.is_empty() {
            room = room.saturating_sub(*bytes);
            fitting.push(page.id);
        } else if ends {
            next = fitting.last().copied();
            rows.truncate(fitting.len());
            break;
        }
    }
    let mut bodies = pages::bodies(conn, &fitting)?;
    let items = rows.into_iter().map(|(page, _)| ListedPage { body: bodies.remove(&page.id), ..page });
    Ok((items.collect(), next))
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
