//! What an account owns that others rely on or that cannot be restored, for a confirmation before the account ends.

use std::fmt::{self, Display};

use crate::db::api_keys::ApiKey;
use crate::db::owned::OfUser;
use crate::db::{OWNED, api_keys};
use crate::domain::id::{KeyId, UserId};
use crate::error::AppError;
use crate::service::Service;

/// Number of rows per query.
const BATCH: i64 = 500;
/// Counting ends at this number of objects of a kind.
const COUNT_MAX: usize = 10_000;

/// The end of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountEnd {
    /// Disabling permanently revokes the issued keys.
    Disabled,
    /// Deletion removes the issued keys, also those that were revoked, and all objects of the account.
    Deleted,
}

/// The number of objects of one kind.
#[derive(Debug)]
pub struct OwnedCount {
    /// In the plural, which ends in `s`.
    kind: &'static str,
    count: usize,
}

/// Formats as `2 pages` or `1 page`.
impl Display for OwnedCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = if self.count >= COUNT_MAX { "at least " } else { "" };
        let kind = if self.count == 1 { self.kind.trim_end_matches('s') } else { self.kind };
        write!(f, "{at_least}{} {kind}", self.count)
    }
}

impl Service {
    /// Counts what would end with the account: issued keys and, with [`AccountEnd::Deleted`], each kind of objects.
    /// Kinds of which there are none are not listed.
    pub async fn count_owned(&self, user: UserId, end: AccountEnd) -> Result<Vec<OwnedCount>, AppError> {
        let mut counts = vec![OwnedCount { kind: "issued keys", count: self.count_issued(user, end).await? }];
        if end == AccountEnd::Deleted {
            for kind in OWNED {
                counts.push(OwnedCount { kind: kind.table, count: self.count_objects(user, kind.of_user).await? });
            }
        }
        counts.retain(|owned| owned.count > 0);
        Ok(counts)
    }

    /// Counts the keys that act on the account, which a new password ends. Kinds of which there are none are not listed.
    pub async fn count_acting(&self, user: UserId) -> Result<Vec<OwnedCount>, AppError> {
        let acts = |key: &ApiKey| key.revoked_at.is_none() && !key.scopes.is_empty();
        let mut counts = vec![
            OwnedCount { kind: "own keys", count: self.count_keys(user, false, |_| true).await? },
            OwnedCount { kind: "issued keys", count: self.count_keys(user, true, acts).await? },
        ];
        counts.retain(|owned| owned.count > 0);
        Ok(counts)
    }

    async fn count_issued(&self, user: UserId, end: AccountEnd) -> Result<usize, AppError> {
        self.count_keys(user, true, |key| end == AccountEnd::Deleted || key.revoked_at.is_none()).await
    }

    async fn count_keys(&self, user: UserId, issued: bool, ends: impl Fn(&ApiKey) -> bool) -> Result<usize, AppError> {
        let (mut count, mut after) = (0, KeyId(0));
        while count < COUNT_MAX {
            let keys = self.db.read(move |conn| api_keys::list_of(conn, user, issued, after, BATCH)).await?;
            let Some(last) = keys.last() else { break };
            after = last.id;
            count += keys.iter().filter(|key| ends(key)).count();
        }
        Ok(count.min(COUNT_MAX))
    }

    async fn count_objects(&self, user: UserId, of_user: OfUser) -> Result<usize, AppError> {
        let (mut count, mut after) = (0, 0);
        while count < COUNT_MAX {
            let objects = self.db.read(move |conn| of_user(conn, user, after, BATCH)).await?;
            let Some((last, _)) = objects.last() else { break };
            after = *last;
            count += objects.len();
        }
        Ok(count.min(COUNT_MAX))
    }
}
