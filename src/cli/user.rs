//! `latchkey user …`: accounts from the command line. A password is asked for, or read from standard input; never an
//! argument, where other users of the machine would see it.

use std::io::{IsTerminal, Read};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Outcome, Output, explain, user_named};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::Call;
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::domain::role::Role;
use crate::domain::user::User;
use crate::http::user::UserResponse;
use crate::server::open_service;
use crate::service::Service;
use crate::service::user::{Administration, LIMIT_MAX, Registration, UserQuery};

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Add a user; the password comes from the terminal or from standard input
    Create(Create),
    /// List all users
    List {
        /// Only those with this in their e-mail, name or surname
        #[arg(long, default_value = "")]
        search: String,
    },
    /// Show a user
    Show(Named),
    /// Give a user another role
    SetRole {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// member, auditor or admin
        #[arg(value_parser = role)]
        role: Role,
    },
    /// Give a user a new password, from the terminal or from standard input, and end their token and their own API keys
    SetPassword {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// End the token only
        #[arg(long)]
        keep_keys: bool,
    },
    /// Keep a user out; their token and all their API keys end for good
    Disable(Named),
    /// Let a user sign in again
    Enable(Named),
    /// Remove a user with all that belongs to them
    Delete(Named),
}

#[derive(Args)]
pub(super) struct Named {
    /// E-mail address, in any equivalent spelling
    email: String,
}

#[derive(Args)]
pub(super) struct Create {
    /// E-mail address
    email: String,
    /// First name
    #[arg(long)]
    name: String,
    /// Family name
    #[arg(long, default_value = "")]
    surname: String,
    /// Any text
    #[arg(long, default_value = "")]
    website: String,
    /// member, auditor or admin
    #[arg(long, default_value = "member", value_parser = role)]
    role: Role,
}

fn role(name: &str) -> Result<Role, String> {
    Role::named(name).ok_or_else(|| format!("use one of: {}", Role::ALL.map(Role::name).join(", ")))
}

pub(super) async fn user(settings: &Settings, command: UserCommand, output: Output) -> Outcome {
    let service = &open_service(settings, Clock::default()).await?;
    match command {
        UserCommand::Create(user) => create(service, user, output).await,
        UserCommand::List { search } => list(service, &search, output).await,
        UserCommand::Show(Named { email }) => show(user_named(service, &email).await?, output),
        UserCommand::SetRole { email, role } => {
            let set = Administration { role: Some(role), disabled: None };
            administer(service, &email, set, output).await
        }
        UserCommand::SetPassword { email, keep_keys } => set_password(service, &email, !keep_keys, output).await,
        UserCommand::Disable(Named { email }) => {
            administer(service, &email, Administration { role: None, disabled: Some(true) }, output).await
        }
        UserCommand::Enable(Named { email }) => {
            administer(service, &email, Administration { role: None, disabled: Some(false) }, output).await
        }
        UserCommand::Delete(Named { email }) => delete(service, &email, output).await,
    }
}

async fn create(service: &Service, user: Create, output: Output) -> Outcome {
    let Create { email, name, surname, website, role } = user;
    let registration = Registration { name, surname, email, website, password: read_password()? };
    let user = service.register(Call::command_line(), registration, role).await.map_err(explain)?;
    let line = format!("created {} {} {}", user.role, user.id, user.email);
    output.show(&UserResponse::from(user), line)
}

async fn list(service: &Service, search: &str, output: Output) -> Outcome {
    let mut after = Some(0);
    while let Some(from) = after {
        let query = UserQuery { search: search.to_owned(), after: from, limit: LIMIT_MAX, with_total: false };
        let list = service.users(query).await.map_err(explain)?;
        list.items.into_iter().try_for_each(|user| show(user, output))?;
        after = list.next.map(|id| id.0);
    }
    Ok(())
}

/// One line, its fields separated by tabs.
fn show(user: User, output: Output) -> Outcome {
    let state = if user.disabled_at.is_some() { "disabled" } else { "enabled" };
    let line = format!("{}\t{}\t{}\t{}\t{}\t{state}", user.id, user.email, user.name, user.surname, user.role);
    output.show(&UserResponse::from(user), line)
}

async fn administer(service: &Service, email: &str, set: Administration, output: Output) -> Outcome {
    let user = user_named(service, email).await?;
    let changed = service.administer_user(Call::command_line(), user.id, set).await.map_err(explain)?;
    announce_cleanup(service, user.id).await?;
    show(changed, output)
}

async fn set_password(service: &Service, email: &str, revoke_keys: bool, output: Output) -> Outcome {
    let user = user_named(service, email).await?;
    service.reset_password(Call::command_line(), user.id, read_password()?, revoke_keys).await.map_err(explain)?;
    announce_cleanup(service, user.id).await?;
    let ended = if revoke_keys { "the token and the user's own keys are ended" } else { "the token is ended" };
    output.show(&UserResponse::from(user), format_args!("changed the password of {email}; {ended}"))
}

async fn delete(service: &Service, email: &str, output: Output) -> Outcome {
    let user = user_named(service, email).await?;
    service.delete_user(Call::command_line(), user.id).await.map_err(explain)?;
    announce_cleanup(service, user.id).await?;
    if !service.erase().await.map_err(explain)? {
        eprintln!("latchkey: other programs read the database, so the next server that runs erases the last traces");
    }
    output.show(&json!({ "id": user.id.0, "deleted": true }), format_args!("deleted {email}"))
}

/// Says so if the change has left something to a server: what has ended has ended, but not every row says so.
async fn announce_cleanup(service: &Service, user: UserId) -> Outcome {
    if service.has_cleanup(user).await.map_err(explain)? {
        eprintln!(
            "latchkey: done; the account owns so much that a running server records and removes the rest in the background"
        );
    }
    Ok(())
}

/// From the terminal without echo, twice; or all of standard input but the final line break.
fn read_password() -> Result<Password, String> {
    let failed = |error: std::io::Error| format!("cannot read the password: {error}");
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(failed)?;
        let second = rpassword::prompt_password("Password again: ").map_err(failed)?;
        return if first == second { Ok(Password::new(first)) } else { Err("the passwords differ".to_owned()) };
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(failed)?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Password::new(text.to_owned()))
}
