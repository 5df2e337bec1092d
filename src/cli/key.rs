//! The commands `latchkey key …`.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{Outcome, Output, explain, key_id, user_by_email};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::RequestContext;
use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::http::key::issued::{IssuedKeyResponse, KeyIssueResponse};
use crate::http::key::own::FreshKeyResponse;
use crate::server::open_service;
use crate::service::Service;
use crate::service::key::grant::KeyRequest;
use crate::service::key::issued::{Delivery, IssueRequest, Issued};

/// Number of keys per query.
const BATCH: i64 = 500;

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Issue a key on a user's account and print its secret, once
    Issue(Issue),
    /// List keys: issued keys and users' own keys
    List {
        /// Only keys of the user with this e-mail address
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
    },
    /// Revoke a key
    Revoke {
        /// Id of the key
        #[arg(value_parser = key_id)]
        id: i64,
    },
    /// Replace a key's secret and print the new one, once
    Rotate {
        /// Id of the key
        #[arg(value_parser = key_id)]
        id: i64,
        /// Seconds for which the old secret stays valid
        #[arg(long, default_value_t = 0)]
        overlap_seconds: i64,
    },
}

#[derive(Args)]
pub(super) struct Issue {
    /// E-mail address of the key's owner
    email: String,
    /// Name of the key
    #[arg(long)]
    name: String,
    /// Scope of the key; repeat for more
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Time from which the key is invalid (RFC 3339)
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Your id of the purchase. The same id again returns the same key
    #[arg(long)]
    order: Option<String>,
    /// JSON object to store with the key
    #[arg(long, value_name = "JSON", default_value = "{}")]
    metadata: String,
    /// Print a claim code instead of the secret
    #[arg(long)]
    claim: bool,
}

pub(super) async fn key(settings: &Settings, command: KeyCommand, output: Output) -> Outcome {
    let service = &open_service(settings, Clock::default()).await?;
    match command {
        KeyCommand::Issue(issue) => issue_key(service, issue, output).await,
        KeyCommand::List { user } => list(service, user.as_deref(), output).await,
        KeyCommand::Revoke { id } => {
            service.revoke_any_key(RequestContext::command_line(), KeyId(id)).await.map_err(explain)?;
            output.show(&json!({ "id": id, "revoked": true }), format_args!("revoked key {id}"))
        }
        KeyCommand::Rotate { id, overlap_seconds } => {
            let rotated =
                service.rotate_any_key(RequestContext::command_line(), KeyId(id), Some(overlap_seconds)).await;
            let fresh = FreshKeyResponse::from(rotated.map_err(explain)?);
            let line = format!("rotated key {id}\n{}", fresh.secret());
            output.show(&fresh, line)
        }
    }
}

async fn issue_key(service: &Service, issue: Issue, output: Output) -> Outcome {
    let Issue { email, name, scopes, expires_at, order, metadata, claim } = issue;
    let request = IssueRequest {
        key: KeyRequest { name, scopes, expires_at },
        order,
        metadata: serde_json::from_str(&metadata).map_err(|error| format!("metadata: {error}"))?,
        delivery: if claim { Delivery::Claim } else { Delivery::Secret },
        idempotency_key: None,
    };
    let owner = user_by_email(service, &email).await?.id;
    let issued = service.issue_key_for(RequestContext::command_line(), owner, request).await.map_err(explain)?;
    let line = match &issued {
        Issued::New { key, .. } | Issued::Repeated { key, .. } => {
            format!("issued key {} on the account of {email}", key.id)
        }
        Issued::Existing(key) => format!("key {} was already issued; its secret was shown at that time", key.id),
    };
    let response = KeyIssueResponse::from(issued);
    let shown = response.shown_once().map(|secret| format!("\n{secret}")).unwrap_or_default();
    output.show(&response, format_args!("{line}{shown}"))
}

async fn list(service: &Service, email: Option<&str>, output: Output) -> Outcome {
    let user = match email {
        Some(email) => Some(user_by_email(service, email).await?.id),
        None => None,
    };
    let mut after = KeyId(0);
    loop {
        let keys = service.all_keys(user, after, BATCH).await?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = last.id;
        keys.into_iter().try_for_each(|key| show(key, output))?;
    }
}

/// Prints a key as one line with tab-separated fields.
fn show(key: Key, output: Output) -> Outcome {
    let state = match &key.issue {
        Some(issue) if issue.revoked_at.is_some() => "revoked",
        Some(issue) if issue.claim_expires_at.is_some() && issue.claimed_at.is_none() => "unclaimed",
        Some(_) => "issued",
        None => "own",
    };
    let (hint, scopes) = (key.hint.as_deref().unwrap_or("-"), &key.grant);
    let line = format!("{}\tuser:{}\t{}\t{hint}\t{state}\t{scopes}", key.id, key.owner, key.name);
    let listed = ListedKey { owner: key.owner.0, issued: key.issue.is_some(), record: key.into() };
    output.show(&listed, line)
}

/// The JSON of a key, with its owner and kind.
#[derive(Serialize)]
struct ListedKey {
    owner: i64,
    issued: bool,
    #[serde(flatten)]
    record: IssuedKeyResponse,
}
