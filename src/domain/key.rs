//! An API key, without its secret.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::id::{KeyId, UserId};
use super::scope::Grant;
use crate::clock::Timestamp;

/// An API key as its owner may see it.
#[derive(Clone, Debug)]
pub struct Key {
    /// Never reused.
    pub id: KeyId,
    /// On whose account it acts.
    pub owner: UserId,
    /// What its owner calls it.
    pub name: String,
    /// What it was granted; how much of that counts is decided at use.
    pub grant: Grant,
    /// The prefix and the last four characters of the secret, to tell keys apart; `None` until it is claimed.
    pub hint: Option<String>,
    /// Until when the secret before the last rotation works.
    pub previous_expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The first moment at which it is dead, if there is one.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute or better.
    pub last_used_at: Option<Timestamp>,
    /// From where.
    pub last_used_ip: Option<IpAddr>,
    /// Of a key that was issued to somebody else.
    pub issue: Option<Issue>,
}

/// To whom a key was issued, and what became of it.
#[derive(Clone, Debug)]
pub struct Issue {
    /// The shop's own name for the purchase.
    pub order: Option<String>,
    /// Whatever the shop wants to remember.
    pub metadata: BTreeMap<String, Value>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Until when it can be claimed; `None` if the shop got the secret itself.
    pub claim_expires_at: Option<Timestamp>,
    /// When it was claimed.
    pub claimed_at: Option<Timestamp>,
}
