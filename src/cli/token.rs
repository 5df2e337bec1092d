//! The command `latchkey token revoke`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Outcome, Output, explain, user_by_email};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::RequestContext;
use crate::domain::id::UserId;
use crate::server::open_service;
use crate::service::Service;
use crate::service::token::end::EndedSignIns;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Revoke the sign-in token and end the sessions of a user, or of all users
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
            let line = match revoked {
                EndedSignIns { tokens: 0, sessions: 0 } => format!("{email} has no token and no sessions"),
                EndedSignIns { tokens: 0, sessions } => format!("{email} has no token; ended {sessions} sessions"),
                EndedSignIns { sessions, .. } => format!("revoked the token of {email}, and ended {sessions} sessions"),
            };
            output.show(&as_json(revoked), line)
        }
        None => {
            let revoked = revoke_all(&service).await?;
            let EndedSignIns { tokens, sessions } = revoked;
            output.show(&as_json(revoked), format_args!("revoked {tokens} tokens, and ended {sessions} sessions"))
        }
    }
}

fn as_json(revoked: EndedSignIns) -> Value {
    json!({ "revoked": revoked.tokens, "ended_sessions": revoked.sessions })
}

/// Revokes the tokens and ends the sessions of all users in batches, and returns their numbers.
async fn revoke_all(service: &Service) -> Result<EndedSignIns, String> {
    let (mut revoked, mut next) = (EndedSignIns::default(), Some(UserId(0)));
    while let Some(after) = next {
        let batch = service.revoke_tokens_after(RequestContext::command_line(), after).await;
        let (ended, last) = batch.map_err(|error| {
            let EndedSignIns { tokens, sessions } = revoked;
            let before = format!("{tokens} tokens were revoked and {sessions} sessions ended before the failure");
            format!("{}; {before}", explain(error))
        })?;
        revoked.tokens += ended.tokens;
        revoked.sessions += ended.sessions;
        next = last;
    }
    Ok(revoked)
}
