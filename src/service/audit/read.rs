//! Reads the audit trail: who changed what, when, with which credential, and at which level.

use std::sync::Arc;

use crate::db::audit_entries;
use crate::db::audit_entries::slices::Slice;
use crate::db::pages;
use crate::domain::audit::{Entry, Filter, Outcome, RequestContext, Target};
use crate::domain::id::{EntryId, PageId};
use crate::error::{AppError, FieldError};
use crate::service::Service;
use crate::service::audit::filters;

/// Maximum number of entries per response.
pub const LIMIT_MAX: i64 = 500;
/// Number of entries per response if the request gives no limit.
pub const LIMIT_DEFAULT: i64 = 50;

/// The order of a list of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    Newest,
    /// Oldest first.
    Oldest,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 2] = [Self::Newest, Self::Oldest];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        }
    }

    fn slice(self, cursor: Option<EntryId>) -> Slice {
        match self {
            Self::Newest => Slice::Before(cursor.unwrap_or(EntryId(i64::MAX))),
            Self::Oldest => Slice::After(cursor.unwrap_or(EntryId(0))),
        }
    }
}

/// Selects a part of the trail.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The order of the entries.
    pub order: Order,
    /// The list starts after this entry, in that order. `None`: it starts at the beginning.
    pub cursor: Option<EntryId>,
    /// Maximum number of entries.
    pub limit: i64,
}

impl Span {
    /// Selects at most `limit` entries (default [`LIMIT_DEFAULT`], at most [`LIMIT_MAX`]) after `cursor`. A cursor of 0
    /// is the beginning.
    ///
    /// Errors: [`AppError::Invalid`] if a value is out of range.
    pub fn new(order: Order, cursor: Option<i64>, limit: Option<i64>) -> Result<Self, AppError> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(FieldError::new("limit", "range", format!("Use 1 to {LIMIT_MAX}.")).into());
        }
        if cursor.is_some_and(|cursor| cursor < 0) {
            return Err(FieldError::new("after", "range", "Use the value of `next`, or 0 for the beginning.").into());
        }
        Ok(Self { order, cursor: cursor.filter(|cursor| *cursor > 0).map(EntryId), limit })
    }
}

/// A page of entries.
#[derive(Debug)]
pub struct EntryList {
    /// The entries, in the requested order.
    pub items: Vec<Entry>,
    /// The cursor for the next page, if there may be more entries. Each query reads a bounded part of the trail, so
    /// with a filter `items` may be short or empty although the list continues.
    pub next: Option<EntryId>,
}

impl Service {
    /// Returns entries of the whole trail that match `filter`.
    ///
    /// Errors: [`AppError::Invalid`] for a value that no entry can have.
    pub async fn audit(&self, filter: Filter, span: Span) -> Result<EntryList, AppError> {
        filters::check(&filter)?;
        self.entries(Arc::new(filter), span).await
    }

    /// Returns the entries about the caller: what the caller did, and what others did to the caller's account, keys and
    /// pages. Addresses and request ids of other users are removed.
    ///
    /// Errors: [`AppError::Forbidden`] if the caller is not a user or key.
    pub async fn activity(&self, context: &RequestContext, span: Span) -> Result<EntryList, AppError> {
        let user = context.user()?.user_id;
        let mut list = self.entries(Arc::new(Filter { involves: Some(user), ..Filter::default() }), span).await?;
        let account = Target::User(user).to_string();
        let is_own = |entry: &Entry| match entry.user {
            Some(actor) => actor == user,
            // Sign-in attempts on the account, but not, for example, the claim of a key.
            None => entry.target.as_deref() == Some(&account),
        };
        let others = list.items.iter_mut().filter(|entry| !is_own(entry));
        others.for_each(|entry| (entry.client, entry.request_id) = (None, None));
        // The caller must not learn the owner of a target that was not found.
        let not_found = list.items.iter_mut().filter(|entry| entry.detail.as_deref() == Some("not_found"));
        not_found.filter(|entry| entry.subject != Some(user)).for_each(|entry| entry.subject = None);
        Ok(list)
    }

    /// Returns the successful changes of a page, also of a deleted one as long as the trail has entries about it.
    ///
    /// Errors: [`AppError::NotFound`] if there is neither the page nor an entry about it: it never existed, or it was
    /// deleted and its entries were removed.
    pub async fn page_history(&self, page: PageId, span: Span) -> Result<EntryList, AppError> {
        let filter = Filter {
            target: Some(Target::Page(page).to_string()),
            outcome: Some(Outcome::Success.name()),
            ..Filter::default()
        };
        let filter = Arc::new(filter);
        let list = self.entries(Arc::clone(&filter), span).await?;
        if !list.items.is_empty() || list.next.is_some() {
            return Ok(list);
        }
        // Empty: the cursor is past the end, the entries were removed, or the page never existed.
        let exists = self.db.read(move |conn| {
            if pages::find(conn, page)?.is_some() {
                return Ok(true);
            }
            let first = audit_entries::list(conn, &filter, Slice::After(EntryId(0)), 1)?;
            Ok(!first.entries.is_empty() || first.next.is_some())
        });
        if exists.await? { Ok(list) } else { Err(AppError::NotFound("page")) }
    }

    async fn entries(&self, filter: Arc<Filter>, span: Span) -> Result<EntryList, AppError> {
        let slice = span.order.slice(span.cursor);
        let part = self.db.read(move |conn| audit_entries::list(conn, &filter, slice, span.limit)).await?;
        Ok(EntryList { items: part.entries, next: part.next })
    }
}
