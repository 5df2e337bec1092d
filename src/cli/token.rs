//! `latchkey token revoke`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Outcome, Output, explain, user_named};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::Call;
use crate::server::open_service;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// End the sign-in token of a user, or of all users
    Revoke(Whose),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whose {
    /// That of the user with this e-mail address
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// Those of all users
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
            let ended = service.revoke_all_tokens(Call::command_line()).await.map_err(explain)?;
            output.show(&json!({ "revoked": ended }), format_args!("ended {ended} tokens"))
        }
    }
}
