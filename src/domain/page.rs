//! A page.

use super::id::{PageId, UserId};
use crate::clock::Timestamp;

/// A page and its history in brief.
#[derive(Clone, Debug)]
pub struct Page {
    /// Never reused.
    pub id: PageId,
    /// Who created it, and alone may change it.
    pub owner: UserId,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// 1 at first, one more with each change.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Who changed it last.
    pub updated_by: UserId,
}

/// A page as a list shows it.
#[derive(Clone, Debug)]
pub struct ListedPage {
    /// Never reused.
    pub id: PageId,
    /// Who created it, and alone may change it.
    pub owner: UserId,
    /// Its title.
    pub title: String,
    /// Its text, unless the list has no room for it.
    pub body: Option<String>,
    /// 1 at first, one more with each change.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Who changed it last.
    pub updated_by: UserId,
}
