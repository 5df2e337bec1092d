//! The command `latchkey token revoke`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Outcome, Output, explain, user_by_email};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::RequestContext;
use crate::domain::id::UserId;
use crate::server::open_service;
use crate::service::Service;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Revoke the sign-in token of a user, or of all users
    Revoke(TokenSelector),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct TokenSelector {
    /// The user with this e-mail address
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// All users
    #[arg(long)]
    all: bool,
}

pub(super) async fn token(settings: &Settings, command: TokenCommand, output: Output) -> Outcome {
    let TokenCommand::Revoke(selector) = command;
    let service = open_service(settings, Clock::default()).await?;
    match selector.user {
        Some(email) => {
            let user = user_by_email(&service, &email).await?.id;
            let revoked = service.revoke_token(RequestContext::command_line(), user).await.map_err(explain)?;
            let line = if revoked { format!("revoked the token of {email}") } else { format!("{email} has no token") };
            output.show(&json!({ "revoked": i32::from(revoked) }), line)
        }
        None => {
            let revoked = revoke_all(&service).await?;
            output.show(&json!({ "revoked": revoked }), format_args!("revoked {revoked} tokens"))
        }
    }
}

/// Revokes the tokens of all users in batches, and returns their number.
async fn revoke_all(service: &Service) -> Result<usize, String> {
    let (mut revoked, mut next) = (0, Some(UserId(0)));
    while let Some(after) = next {
        let batch = service.revoke_tokens_after(RequestContext::command_line(), after).await;
        let (count, last) =
            batch.map_err(|error| format!("{}; {revoked} tokens were revoked before the failure", explain(error)))?;
        revoked += count;
        next = last;
    }
    Ok(revoked)
}
