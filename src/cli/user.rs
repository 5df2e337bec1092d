//! `latchkey user …`: accounts from the command line. A password is asked for, or read from standard input; never an
//! argument, where other users of the machine would see it.

use std::io::{IsTerminal, Read};

use clap::{Args, Subcommand};

use super::{Outcome, print};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::error::AppError;
use crate::server::open_service;
use crate::service::Service;
use crate::service::user::Registration;

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Add a user; the password comes from the terminal or from standard input
    Create(Create),
    /// List all users
    List,
    /// Give a user a new password, from the terminal or from standard input, and end their token
    SetPassword {
        /// E-mail address, in any equivalent spelling
        email: String,
    },
    /// Remove a user with all that belongs to them
    Delete {
        /// E-mail address, in any equivalent spelling
        email: String,
    },
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
}

pub(super) async fn user(settings: &Settings, command: UserCommand) -> Outcome {
    let service = open_service(settings, Clock::default()).await?;
    match command {
        UserCommand::Create(user) => create(&service, user).await,
        UserCommand::List => list(&service).await,
        UserCommand::SetPassword { email } => set_password(&service, &email).await,
        UserCommand::Delete { email } => delete(&service, &email).await,
    }
}

async fn create(service: &Service, user: Create) -> Outcome {
    let Create { email, name, surname, website } = user;
    let registration = Registration { name, surname, email, website, password: read_password()? };
    let user = service.register(registration).await.map_err(explain)?;
    print(format_args!("created user {} {}\n", user.id, user.email))?;
    Ok(())
}

async fn list(service: &Service) -> Outcome {
    let mut after = UserId(0);
    loop {
        let users = service.users_after(after).await?;
        let Some(last) = users.last() else {
            return Ok(());
        };
        after = last.id;
        for user in users {
            print(format_args!("{}\t{}\t{}\t{}\n", user.id, user.email, user.name, user.surname))?;
        }
    }
}

async fn set_password(service: &Service, email: &str) -> Outcome {
    service.set_password(&address(email)?, read_password()?).await.map_err(explain)?;
    print(format_args!("changed the password of {email}; the token is ended\n"))?;
    Ok(())
}

async fn delete(service: &Service, email: &str) -> Outcome {
    service.delete_user(&address(email)?).await.map_err(explain)?;
    print(format_args!("deleted {email}\n"))?;
    Ok(())
}

fn address(email: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(email).ok_or_else(|| format!("{email:?} is not an e-mail address"))
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

/// On the command line each bad field gets its line.
fn explain(error: AppError) -> String {
    match error {
        AppError::Invalid(errors) => {
            let lines = errors.iter().map(|error| format!("{}: {}", error.field, error.message));
            lines.collect::<Vec<_>>().join("\n")
        }
        AppError::Conflict { detail, .. } => detail.to_owned(),
        error => error.to_string(),
    }
}
