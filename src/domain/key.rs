//! API keys, without their secrets.

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
    /// The user on whose account the key acts.
    pub owner: UserId,
    /// The name that its owner gave it.
    pub name: String,
    /// The granted scopes. At each use they are reduced to those that the role of the owner holds.
    pub grant: Grant,
    /// The prefix and the last four characters of the secret, to distinguish keys. `None` until the key is claimed.
    pub hint: Option<String>,
    /// Until when the secret before the last rotation is valid, if it is.
    pub previous_expires_at: Option<Timestamp>,
    /// When the key was created.
    pub created_at: Timestamp,
    /// The time from which the key is expired. `None` if it does not expire.
    pub expires_at: Option<Timestamp>,
    /// When the key was last used, to the minute or better. `None` if never.
    pub last_used_at: Option<Timestamp>,
    /// The client address of that use.
    pub last_used_ip: Option<IpAddr>,
    /// The data of an issued key. `None` for a key that its owner created for their own use.
    pub issue: Option<Issue>,
}

/// The data of an issued key: the purchase and its state.
#[derive(Clone, Debug)]
pub struct Issue {
    /// The seller's reference of the purchase.
    pub order: Option<String>,
    /// Data that the seller stores with the key.
    pub metadata: BTreeMap<String, Value>,
    /// When the key was revoked. `None` if it was not.
    pub revoked_at: Option<Timestamp>,
    /// Until when the key can be claimed. `None` if the seller received the secret itself.
    pub claim_expires_at: Option<Timestamp>,
    /// When the key was claimed. `None` if it was not.
    pub claimed_at: Option<Timestamp>,
}
