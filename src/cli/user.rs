//! `latchkey user …`: accounts from the command line.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{Outcome, Output, explain, password, user_named};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::Call;
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::role::Role;
use crate::domain::user::User;
use crate::error::AppError;
use crate::http::user::UserResponse;
use crate::server::open_service;
use crate::service::Service;
use crate::service::user::{Administration, LIMIT_MAX, Registration, UserQuery};

#[derive(Subcommand)]
pub(super) enum UserCommand {
    /// Create a user. The password is read from the terminal or from standard input
    Create(Create),
    /// List all users
    List {
        /// Only users whose e-mail, name or surname contains this text
        #[arg(long, default_value = "")]
        search: String,
    },
    /// Show a user
    Show(Named),
    /// Change a user's role
    SetRole {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// member, auditor or admin
        #[arg(value_parser = role)]
        role: Role,
    },
    /// Set a user's password, read as in `create`, and revoke their token and their own API keys
    SetPassword {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// Revoke the token only
        #[arg(long)]
        keep_keys: bool,
    },
    /// Disable a user and revoke their token and all their API keys, for good
    Disable(Named),
    /// Enable a disabled user
    Enable(Named),
    /// Delete a user with everything that they own
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
    /// One line of text
    #[arg(long, default_value = "")]
    website: String,
    /// member, auditor or admin
    #[arg(long, default_value = "member", value_parser = role)]
    role: Role,
    /// If the user exists, change nothing: succeed if they are enabled in this role, exit with 3 if not
    #[arg(long)]
    if_absent: bool,
}

/// A user whom `--if-absent` found is not as asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Differs(String);

/// What `--if-absent` answers.
#[derive(Serialize)]
struct Ensured {
    created: bool,
    /// The fields in which a user who existed is not as asked.
    differs: Vec<&'static str>,
    #[serde(flatten)]
    user: UserResponse,
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
    if user.if_absent && is_known(service, &user.email).await? {
        password::discard();
        return compare(&user, user_named(service, &user.email).await?, output);
    }
    let registration = Registration {
        name: user.name.clone(),
        surname: user.surname.clone(),
        email: user.email.clone(),
        website: user.website.clone(),
        password: password::read()?,
    };
    let created = match service.register(Call::command_line(), registration, user.role).await {
        // Somebody else has just made the user.
        Err(AppError::Conflict { .. }) if user.if_absent => {
            return compare(&user, user_named(service, &user.email).await?, output);
        }
        created => created.map_err(explain)?,
    };
    let line = format!("created {} {} {}", created.role, created.id, created.email);
    match user.if_absent {
        true => output.show(&Ensured { created: true, differs: Vec::new(), user: created.into() }, line),
        false => output.show(&UserResponse::from(created), line),
    }
}

async fn is_known(service: &Service, email: &str) -> Result<bool, String> {
    // What is no address is explained with the other fields.
    let Some(address) = EmailAddress::parse(email) else {
        return Ok(false);
    };
    match service.user_by_email(&address).await {
        Ok(_) => Ok(true),
        Err(AppError::NotFound(_)) => Ok(false),
        Err(error) => Err(explain(error)),
    }
}

/// Shows a user who existed, and fails if they are disabled or have another role. Names belong to the user, who may have
/// changed them.
fn compare(asked: &Create, user: User, output: Output) -> Outcome {
    let is_other = |asked: &str, known: &str| !asked.is_empty() && asked != known;
    let differs = [
        ("role", user.role != asked.role),
        ("disabled", user.disabled_at.is_some()),
        ("name", is_other(&asked.name, &user.name)),
        ("surname", is_other(&asked.surname, &user.surname)),
        ("website", is_other(&asked.website, &user.website)),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(field, _)| *field).collect();
    let (id, email, role, asked_role) = (user.id, user.email.clone(), user.role, asked.role);
    let is_disabled = user.disabled_at.is_some();
    let note = if differs.is_empty() { String::new() } else { format!(", differs in {}", differs.join(", ")) };
    let line = format!("exists {role} {id} {email}{note}");
    output.show(&Ensured { created: false, differs, user: user.into() }, line)?;
    let mut commands = Vec::new();
    if role != asked_role {
        commands.push(format!("the role is {role}, not {asked_role} (latchkey user set-role {email} {asked_role})"));
    }
    if is_disabled {
        commands.push(format!("the user is disabled (latchkey user enable {email})"));
    }
    match commands.is_empty() {
        true => Ok(()),
        false => Err(Differs(commands.join("; ")).into()),
    }
}

async fn list(service: &Service, search: &str, output: Output) -> Outcome {
    let mut after = Some(0);
    while let Some(from) = after {
        let query =
            UserQuery { search: search.trim_ascii().to_owned(), after: from, limit: LIMIT_MAX, with_total: false };
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
    announce_cleanup(service, user.id).await;
    show(changed, output)
}

async fn set_password(service: &Service, email: &str, revoke_keys: bool, output: Output) -> Outcome {
    let user = user_named(service, email).await?;
    service.reset_password(Call::command_line(), user.id, password::read()?, revoke_keys).await.map_err(explain)?;
    announce_cleanup(service, user.id).await;
    let ended = if revoke_keys { "the token and the user's own keys are ended" } else { "the token is ended" };
    output.show(&UserResponse::from(user), format_args!("changed the password of {email}; {ended}"))
}

async fn delete(service: &Service, email: &str, output: Output) -> Outcome {
    let user = user_named(service, email).await?;
    service.delete_user(Call::command_line(), user.id).await.map_err(explain)?;
    announce_cleanup(service, user.id).await;
    match service.erase().await {
        Ok(true) => {}
        Ok(false) => {
            eprintln!(
                "latchkey: other programs read the database, so the next server that runs erases the last traces"
            );
        }
        Err(error) => eprintln!("latchkey: done; the next server that runs erases the last traces: {error}"),
    }
    output.show(&json!({ "id": user.id.0, "deleted": true }), format_args!("deleted {email}"))
}

/// Says so if the change has left something to a server.
async fn announce_cleanup(service: &Service, user: UserId) {
    if let Some(note) = cleanup_note(service.has_cleanup(user).await) {
        eprintln!("latchkey: {note}");
    }
}

/// What to say of what a change may have left: what has ended has ended, but not every row says so. The change is done, so
/// nothing here is a failure of the command.
fn cleanup_note(left: Result<bool, AppError>) -> Option<String> {
    match left {
        Ok(true) => Some(
            "done; the account owns so much that a running server records and removes the rest in the background"
                .to_owned(),
        ),
        Ok(false) => None,
        Err(error) => Some(format!("done; cannot read whether a running server has something to remove: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_has_left_is_a_note_and_no_failure() {
        let some = cleanup_note(Ok(true)).unwrap();
        assert!(some.starts_with("done; ") && some.contains("in the background"), "{some}");
        assert_eq!(cleanup_note(Ok(false)), None);
        let unknown = cleanup_note(Err(AppError::Busy("the database is away".into()))).unwrap();
        assert!(unknown.starts_with("done; ") && unknown.ends_with(": the database is away"), "{unknown}");
    }
}
