//! Reading the audit trail: who changed what, when, with which credential, and at what level.

use std::sync::Arc;

use super::Service;
use crate::db::audit_entries::{self, Slice};
use crate::db::pages;
use crate::domain::audit::{Action, Call, Entry, Filter, Outcome, Target};
use crate::domain::id::{EntryId, PageId};
use crate::error::{AppError, FieldError};

/// Most entries in one answer.
pub const LIMIT_MAX: i64 = 500;
/// Entries in one answer unless asked otherwise.
pub const LIMIT_DEFAULT: i64 = 50;

/// In which order.
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

    fn from(self, cursor: Option<EntryId>) -> Slice {
        match self {
            Self::Newest => Slice::Before(cursor.unwrap_or(EntryId(i64::MAX))),
            Self::Oldest => Slice::After(cursor.unwrap_or(EntryId(0))),
        }
    }
}

/// A part of the trail.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// In which order.
    pub order: Order,
    /// From the entry after this one on, in that order.
    pub cursor: Option<EntryId>,
    /// At most so many.
    pub limit: i64,
}

impl Span {
    /// From `cursor` on, at most `limit` entries. Errors: [`AppError::Invalid`] for bounds that are out of range.
    pub fn new(order: Order, cursor: Option<i64>, limit: Option<i64>) -> Result<Self, AppError> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(FieldError::new("limit", "range", format!("Use 1 to {LIMIT_MAX}.")).into());
        }
        if cursor.is_some_and(|cursor| cursor < 0) {
            return Err(FieldError::new("after", "range", "Use what `next` said, or 0 for the beginning.").into());
        }
        Ok(Self { order, cursor: cursor.filter(|cursor| *cursor > 0).map(EntryId), limit })
    }
}

/// Some entries.
#[derive(Debug)]
pub struct EntryList {
    /// In the order that was asked for.
    pub items: Vec<Entry>,
    /// After which entry the list goes on, if it does. A filter may leave less than was asked for, or nothing, and the list
    /// still go on: an answer looks at a bounded part of the trail.
    pub next: Option<EntryId>,
}

impl Service {
    /// A part of the whole trail. Errors: [`AppError::Invalid`] for an action that does not exist.
    pub async fn audit(&self, filter: Filter, span: Span) -> Result<EntryList, AppError> {
        check_action(&filter)?;
        self.entries(Arc::new(filter), span).await
    }

    /// What the caller did, and what others did to what is theirs. Where others were is not the caller's business.
    pub async fn activity(&self, call: &Call, span: Span) -> Result<EntryList, AppError> {
        let user = call.user()?.user_id;
        let mut list = self.entries(Arc::new(Filter { concerns: Some(user), ..Filter::default() }), span).await?;
        let account = Target::User(user).to_string();
        let own = |entry: &Entry| match entry.user {
            Some(by) => by == user,
            // Whoever tries to get into the account; but not, say, who claims a key.
            None => entry.target.as_deref() == Some(&account),
        };
        let others = list.items.iter_mut().filter(|entry| !own(entry));
        others.for_each(|entry| (entry.client, entry.request_id) = (None, None));
        // Whose it is that was not found is not the caller's business, either.
        let not_found = list.items.iter_mut().filter(|entry| entry.detail.as_deref() == Some("not_found"));
        not_found.filter(|entry| entry.subject != Some(user)).for_each(|entry| entry.subject = None);
        Ok(list)
    }

    /// What happened to a page, even if it is no more. Errors: [`AppError::NotFound`] if there never was one.
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
        // Past the end of a history, at a page that is older than the trail, or at nothing at all.
        let known = self.db.read(move |conn| {
            if pages::find(conn, page)?.is_some() {
                return Ok(true);
            }
            let begin = audit_entries::list(conn, &filter, Slice::After(EntryId(0)), 1)?;
            Ok(!begin.entries.is_empty() || begin.next.is_some())
        });
        if known.await? { Ok(list) } else { Err(AppError::NotFound("page")) }
    }

    async fn entries(&self, filter: Arc<Filter>, span: Span) -> Result<EntryList, AppError> {
        let slice = span.order.from(span.cursor);
        let part = self.db.read(move |conn| audit_entries::list(conn, &filter, slice, span.limit)).await?;
        Ok(EntryList { items: part.entries, next: part.next })
    }
}

fn check_action(filter: &Filter) -> Result<(), FieldError> {
    match &filter.action {
        Some(name) if !Action::ALL.iter().any(|action| action.name() == name) => {
            let names: Vec<&str> = Action::ALL.iter().map(|action| action.name()).collect();
            Err(FieldError::new("action", "unknown", format!("Use one of: {}.", names.join(", "))))
        }
        _ => Ok(()),
    }
}
