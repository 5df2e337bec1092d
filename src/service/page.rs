//! Pages: callers with `pages:read` see all pages, and only the owner can change a page.

use validator::{Validate, ValidationError};

use crate::db::Conn;
use crate::db::pages::{self, PageChange, PageRow};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::id::{PageId, UserId};
use crate::domain::page::{ListedPage, Page};
use crate::error::{AppError, Denial, FieldError};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::lists::{ANSWER_BYTES, TOTAL_MAX, Total};
use crate::service::validation::readable;

/// Maximum length of a title, in characters.
pub const TITLE_MAX: u64 = 200;
/// Maximum size of a page's text, in bytes of UTF-8.
pub const BODY_MAX: usize = 64 * 1024;
/// Maximum number of items on one page of the list.
pub const SIZE_MAX: i64 = 100;
/// Default number of items on one page of the list.
pub const SIZE_DEFAULT: i64 = 20;
/// Maximum version in a request: the highest integer that every JSON library represents exactly.
pub const VERSION_MAX: i64 = (1 << 53) - 1;
/// Maximum number of pages that a page number can skip. The cost of a query grows with this number; `after` has no such
/// cost.
pub const OFFSET_MAX: i64 = 10_000;

/// Selects one part of the list of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRange {
    /// Where the part begins.
    pub start: ListStart,
    /// Maximum number of items: 1 to [`SIZE_MAX`].
    pub size: i64,
}

/// Where a part of the list of pages begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListStart {
    /// At the list page with this number, counted from 1, of `size` items each.
    Number(i64),
    /// After the page with this id.
    After(PageId),
}

impl ListRange {
    /// Validates the parameters of a list. The default is the first page of [`SIZE_DEFAULT`] items. Errors:
    /// [`AppError::Invalid`] names each parameter out of range.
    pub fn new(page: Option<i64>, after: Option<i64>, size: Option<i64>) -> Result<Self, AppError> {
        let (number, size) = (page.unwrap_or(1), size.unwrap_or(SIZE_DEFAULT));
        let mut errors = Vec::new();
        if page.is_some() && after.is_some() {
            errors.push(FieldError::new("after", "exclusive", "Send page or after, not both."));
        }
        if after.is_some_and(|after| after < 0) {
            errors.push(FieldError::new("after", "range", "Use the value of `next`, or 0 for the beginning."));
        }
        if !(1..=SIZE_MAX).contains(&size) {
            errors.push(FieldError::new("size", "range", format!("Use 1 to {SIZE_MAX}.")));
        }
        if number < 1 {
            errors.push(FieldError::new("page", "range", "Use 1 or more."));
        } else if number.saturating_sub(1).saturating_mul(size.max(1)) > OFFSET_MAX {
            let detail =
                "A page number can skip at most 10000 pages. Send `after` with the `next` of the previous response.";
            errors.push(FieldError::new("page", "page_too_deep", detail));
        }
        let start = after.map_or(ListStart::Number(number), |after| ListStart::After(PageId(after)));
        if errors.is_empty() { Ok(Self { start, size }) } else { Err(AppError::Invalid(errors)) }
    }
}

/// One part of the list of pages.
#[derive(Debug)]
pub struct PageList {
    /// The number of all pages.
    pub total: Total,
    /// The pages of this part, in the order of their ids.
    pub items: Vec<ListedPage>,
    /// The last page of this part, if there are more pages after it.
    pub next: Option<PageId>,
}

/// The data of a new page.
#[derive(Debug, Validate)]
pub struct NewPage {
    /// Title. Length: 1 to [`TITLE_MAX`] characters.
    #[validate(length(min = 1, max = TITLE_MAX), custom(function = readable))]
    pub title: String,
    /// Text of at most [`BODY_MAX`] bytes; may be empty.
    #[validate(custom(function = check_body_size))]
    pub body: String,
}

/// Changes of a page. `None` leaves a field unchanged.
#[derive(Debug, Validate)]
#[validate(schema(function = require_a_change))]
pub struct PageEdit {
    /// The new title. Length: 1 to [`TITLE_MAX`] characters.
    #[validate(length(min = 1, max = TITLE_MAX), custom(function = readable))]
    pub title: Option<String>,
    /// The new text of at most [`BODY_MAX`] bytes.
    #[validate(custom(function = check_body_size))]
    pub body: Option<String>,
}

fn check_body_size(text: &str) -> Result<(), ValidationError> {
    if text.len() > BODY_MAX {
        return Err(ValidationError::new("length").with_message("Use at most 65536 bytes of UTF-8.".into()));
    }
    Ok(())
}

fn require_a_change(edit: &PageEdit) -> Result<(), ValidationError> {
    if edit.title.is_none() && edit.body.is_none() {
        return Err(ValidationError::new("missing").with_message("Send a title, a body, or both.".into()));
    }
    Ok(())
}

/// The versions for which a change is allowed (`If-Match`). `None` allows any version.
pub type ExpectedVersions = Option<Vec<i64>>;

impl Service {
    /// Returns one part of the list. The texts are limited to [`ANSWER_BYTES`] per response. When they reach the limit,
    /// a part that starts after an id ends early, and a numbered part returns the remaining pages without text, so that
    /// the numbering stays the same.
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

    /// Returns the page with this id. Errors: [`AppError::NotFound`].
    pub async fn page(&self, id: PageId) -> Result<Page, AppError> {
        let found = self.db.read(move |conn| pages::find(conn, id)).await?;
        found.map(Page::from).ok_or(AppError::NotFound("page"))
    }

    /// Stores a new page of the caller. Errors: [`AppError::Invalid`].
    pub async fn create_page(&self, context: RequestContext, new: NewPage) -> Result<Page, AppError> {
        new.validate()?;
        let owner = context.user()?.user_id;
        let created = self.trail.change(context, Event::of(Action::CreatePage), move |change| {
            let now = change.now.naive();
            change.set_subject(owner);
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
            change.set_target(Target::Page(page.id));
            change.record(|event| event.versions(None, Some(page.version)).changed(vec!["title", "body"]))?;
            Ok(page)
        });
        created.await.map(Page::from)
    }

    /// Changes a page. Errors: [`AppError::Invalid`]; [`AppError::NotFound`]; [`AppError::Forbidden`] for another
    /// user's page; [`AppError::Stale`] for an unexpected version.
    pub async fn edit_page(
        &self,
        context: RequestContext,
        id: PageId,
        edit: PageEdit,
        expected: ExpectedVersions,
    ) -> Result<Page, AppError> {
        edit.validate()?;
        let user = context.user()?.user_id;
        let changed = self.trail.change(context, Event::of(Action::EditPage).on(Target::Page(id)), move |change| {
            let before = lock_for_change(change, id, user, expected.as_deref())?;
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

    /// Deletes a page. Errors: as [`Self::edit_page`].
    pub async fn delete_page(
        &self,
        context: RequestContext,
        id: PageId,
        expected: ExpectedVersions,
    ) -> Result<(), AppError> {
        let user = context.user()?.user_id;
        let removed = self.trail.change(context, Event::of(Action::DeletePage).on(Target::Page(id)), move |change| {
            let page = lock_for_change(change, id, user, expected.as_deref())?;
            pages::delete(change.conn, id)?;
            change.record(|event| event.versions(Some(page.version), None)).map(drop)
        });
        removed.await
    }
}

/// Returns the pages of a part of the list with their texts, as far as these fit into a response. The first text always
/// does. The remaining pages are left out if `ends_when_full`, or else returned without text.
fn with_bodies(
    conn: &mut Conn,
    part: pages::ListPart,
    ends_when_full: bool,
) -> Result<(Vec<ListedPage>, Option<PageId>), AppError> {
    let pages::ListPart { mut rows, mut next } = part;
    let (mut remaining, mut fitting) = (ANSWER_BYTES, Vec::new());
    for (page, bytes) in &rows {
        if *bytes <= remaining || fitting.is_empty() {
            remaining = remaining.saturating_sub(*bytes);
            fitting.push(page.id);
        } else if ends_when_full {
            next = fitting.last().copied();
            rows.truncate(fitting.len());
            break;
        }
    }
    let mut bodies = pages::bodies(conn, &fitting)?;
    let items = rows.into_iter().map(|(page, _)| ListedPage { body: bodies.remove(&page.id), ..page });
    Ok((items.collect(), next))
}

/// Locks and returns the page, if it belongs to `user` and has an expected version.
fn lock_for_change(
    change: &mut Change<'_>,
    id: PageId,
    user: UserId,
    expected: Option<&[i64]>,
) -> Result<pages::Page, AppError> {
    let page = pages::lock(change.conn, id)?.ok_or(AppError::NotFound("page"))?;
    change.set_subject(page.owner_id);
    if page.owner_id != user {
        return Err(AppError::Forbidden(Denial::NotOwner));
    }
    if expected.is_some_and(|versions| !versions.contains(&page.version)) {
        return Err(AppError::Stale);
    }
    Ok(page)
}
