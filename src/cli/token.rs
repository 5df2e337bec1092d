//! `latchkey token revoke`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Outcome, Output, explain, user_named};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::Call;
use crate::domain::id::UserId;
use crate::server::open_service;
use crate::service::Service;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Revoke the sign-in token of a user, or of all users
    Revoke(Whose),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whose {
    /// The user with this e-mail address
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// All users
    #[arg(long)]
    all: bool,
}

pub(super) async fn token(settings: &Settings, command: TokenCommand, output: Output) -> Outcome {
    let TokenCommand::Revoke(whose) = command;
    let service = open_service(settings, Clock::default()).await?;
    match whose.user {
        Some(email) => {
            let user = user_named(&service, &email).await?.id;
            let ended = service.revoke_token(Call::command_line(), user).await.map_err(explain)?;
            let line = if ended { format!("ended the token of {email}") } else { format!("{email} has no token") };
            output.show(&json!({ "revoked": i32::from(ended) }), line)
        }
        None => {
            let ended = revoke_all(&service).await?;
            output.show(&json!({ "revoked": ended }), format_args!("ended {ended} tokens"))
        }
    }
}

/// Ends the tokens of all users, part by part; how many there were.
async fn revoke_all(service: &Service) -> Result<usize, String> {
    let (mut ended, mut next) = (0, Some(UserId(0)));
    while let Some(after) = next {
        let part = service.revoke_tokens_after(Call::command_line(), after).await;
        let (some, more) =
            part.map_err(|error| format!("{}; {ended} tokens were ended before that", explain(error)))?;
        ended += some;
        next = more;
    }
    Ok(ended)
}
