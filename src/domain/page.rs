//! Pages.

use super::id::{PageId, UserId};
use crate::clock::Timestamp;

/// A page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Never reused.
    pub id: PageId,
    /// The user who created the page. Only the owner may change or delete it.
    pub owner: UserId,
    /// The title.
    pub title: String,
    /// The text.
    pub body: String,
    /// 1 after creation. Each change adds 1.
    pub version: i64,
    /// When the page was created.
    pub created_at: Timestamp,
    /// When the page last changed.
    pub updated_at: Timestamp,
    /// The user who made the last change.
    pub updated_by: UserId,
}

/// A page in a list.
#[derive(Clone, Debug)]
pub struct ListedPage {
    /// Never reused.
    pub id: PageId,
    /// The user who created the page. Only the owner may change or delete it.
    pub owner: UserId,
    /// The title.
    pub title: String,
    /// The text. `None` if the list would exceed its maximum size.
    pub body: Option<String>,
    /// 1 after creation. Each change adds 1.
    pub version: i64,
    /// When the page was created.
    pub created_at: Timestamp,
    /// When the page last changed.
    pub updated_at: Timestamp,
    /// The user who made the last change.
    pub updated_by: UserId,
}
