//! The commands `latchkey user …`.

mod links;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{Outcome, Output, explain, password, user_by_email};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::audit::RequestContext;
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::roles::Role;
use crate::domain::user::User;
use crate::error::AppError;
use crate::http::account::users::UserResponse;
use crate::server::open_service;
use crate::service::Service;
use crate::service::account::creation::Person;
use crate::service::account::owned::AccountEnd;
use crate::service::account::registration::Registration;
use crate::service::account::user_search::{LIMIT_MAX, UserQuery};
use crate::service::account::users::Administration;

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
    Show(EmailArg),
    /// Change a user's role
    SetRole {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// member, auditor, admin, or a role of the settings (latchkey role list)
        role: String,
    },
    /// Set a user's password, read as in `create`. Revokes the sign-in token, all sessions, and the API keys that
    /// act on the account: own keys, and issued keys with Latchkey's own scopes
    SetPassword {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// Revoke only the sign-in token and the sessions
        #[arg(long)]
        keep_keys: bool,
    },
    /// Print a link with which the user sets a new password, to deliver it without a mail. It is a secret
    ResetLink(EmailArg),
    /// State that a user receives mails at the address of the account
    VerifyEmail(EmailArg),
    /// Invite a person to create an account, by a mail. Without an SMTP server, print the link to deliver; it is a
    /// secret. An earlier invitation of the address ends
    Invite(Invite),
    /// Disable a user, and permanently revoke the sign-in token, all sessions and all API keys of the account. Fails if
    /// the account has issued keys
    Disable {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// Disable the user also if the account has issued keys. They end permanently
        #[arg(long)]
        yes: bool,
    },
    /// Enable a disabled user, and end a lockout
    Enable(EmailArg),
    /// End a lockout after failed sign-ins. A disabled user stays disabled
    Unlock(EmailArg),
    /// Delete a user and everything that they own. Fails if the account owns issued keys, or objects such as pages
    Delete {
        /// E-mail address, in any equivalent spelling
        email: String,
        /// Delete the user also if the account owns issued keys, or objects such as pages. They are lost
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
pub(super) struct EmailArg {
    /// E-mail address, in any equivalent spelling
    email: String,
}

#[derive(Args)]
pub(super) struct Invite {
    /// E-mail address
    email: String,
    /// member, auditor, admin, or a role of the settings (latchkey role list)
    #[arg(long, default_value = "member")]
    role: String,
    /// Language of the mail: en or de. The default is mail.language
    #[arg(long)]
    language: Option<String>,
    /// Print the link instead of sending a mail
    #[arg(long)]
    print_link: bool,
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
    /// member, auditor, admin, or a role of the settings (latchkey role list)
    #[arg(long, default_value = "member")]
    role: String,
    /// State that the user receives mails at the address
    #[arg(long)]
    verified: bool,
    /// If the user exists, change nothing: succeed if they are enabled in this role, exit with 3 if not
    #[arg(long)]
    if_absent: bool,
}

/// The error if the user that `--if-absent` found has another role or is disabled.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UserDiffers(String);

/// The JSON output with `--if-absent`.
#[derive(Serialize)]
struct EnsuredUser {
    created: bool,
    /// The fields in which an existing user differs from the arguments.
    differs: Vec<&'static str>,
    #[serde(flatten)]
    user: UserResponse,
}

pub(super) async fn user(settings: &Settings, command: UserCommand, output: Output) -> Outcome {
    let service = &open_service(settings, Clock::default()).await?;
    match command {
        UserCommand::Create(user) => create(service, user, output).await,
        UserCommand::List { search } => list(service, &search, output).await,
        UserCommand::Show(EmailArg { email }) => show(user_by_email(service, &email).await?, output),
        UserCommand::SetRole { email, role } => {
            let set = Administration { role: Some(role), disabled: None };
            administer(service, &email, set, output).await
        }
        UserCommand::SetPassword { email, keep_keys } => set_password(service, &email, !keep_keys, output).await,
        UserCommand::ResetLink(EmailArg { email }) => links::reset_link(service, &email, output).await,
        UserCommand::VerifyEmail(EmailArg { email }) => links::verify_email(service, &email, output).await,
        UserCommand::Invite(invite) => links::invite(service, &invite, output).await,
        UserCommand::Disable { email, yes } => {
            if !yes {
                confirm(service, &email, AccountEnd::Disabled).await?;
            }
            administer(service, &email, Administration { role: None, disabled: Some(true) }, output).await
        }
        UserCommand::Enable(EmailArg { email }) => {
            administer(service, &email, Administration { role: None, disabled: Some(false) }, output).await
        }
        UserCommand::Unlock(EmailArg { email }) => unlock(service, &email, output).await,
        UserCommand::Delete { email, yes } => {
            if !yes {
                confirm(service, &email, AccountEnd::Deleted).await?;
            }
            delete(service, &email, output).await
        }
    }
}

async fn create(service: &Service, user: Create, output: Output) -> Outcome {
    service.find_role(&user.role).map_err(|error| explain(error.into()))?;
    if user.if_absent && user_exists(service, &user.email).await? {
        password::discard();
        return compare(&user, user_by_email(service, &user.email).await?, output);
    }
    let person = Person {
        name: user.name.clone(),
        surname: user.surname.clone(),
        website: user.website.clone(),
        password: password::read()?,
    };
    let registration = Registration { person, email: user.email.clone() };
    let mut created = match service.create_user(RequestContext::command_line(), registration, Some(&user.role)).await {
        // Another process has created the user in the meantime.
        Err(AppError::Conflict { .. }) if user.if_absent && user_exists(service, &user.email).await? => {
            return compare(&user, user_by_email(service, &user.email).await?, output);
        }
        created => created.map_err(explain)?,
    };
    if user.verified {
        let verified = service.mark_email_verified(RequestContext::command_line(), created.id).await;
        created.email_verified = verified.map(|_| true).map_err(explain)?;
    }
    if !created.email_verified && service.requires_verified_email() {
        let command = format!("latchkey user verify-email {}", created.email);
        eprintln!("latchkey: the user cannot sign in until the address is verified ({command})");
    }
    let line = format!("created {} {} {}", user.role, created.id, created.email);
    match user.if_absent {
        true => output.show(&EnsuredUser { created: true, differs: Vec::new(), user: created.into() }, line),
        false => output.show(&UserResponse::from(created), line),
    }
}

async fn user_exists(service: &Service, email: &str) -> Result<bool, String> {
    // An invalid address is reported together with the other fields.
    let Some(address) = EmailAddress::parse(email) else {
        return Ok(false);
    };
    match service.user_by_email(&address).await {
        Ok(_) => Ok(true),
        Err(AppError::NotFound(_)) => Ok(false),
        Err(error) => Err(explain(error)),
    }
}

/// Prints an existing user, and fails if the user is disabled or has another role. Other differences are no failure,
/// because users can change their own names and website.
fn compare(requested: &Create, user: User, output: Output) -> Outcome {
    let is_other = |requested: &str, current: &str| !requested.is_empty() && requested != current;
    let differs = [
        ("role", user.role.name().as_str() != requested.role),
        ("disabled", user.disabled_at.is_some()),
        ("email_verified", requested.verified && !user.email_verified),
        ("name", is_other(&requested.name, &user.name)),
        ("surname", is_other(&requested.surname, &user.surname)),
        ("website", is_other(&requested.website, &user.website)),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(field, _)| *field).collect();
    let (id, email, role, requested_role) = (user.id, user.email.clone(), shown(&user.role), requested.role.as_str());
    let has_other_role = user.role.name().as_str() != requested_role;
    let is_disabled = user.disabled_at.is_some();
    let note = if differs.is_empty() { String::new() } else { format!(", differs in {}", differs.join(", ")) };
    let line = format!("exists {role} {id} {email}{note}");
    output.show(&EnsuredUser { created: false, differs, user: user.into() }, line)?;
    let mut commands = Vec::new();
    if has_other_role {
        let command = format!("latchkey user set-role {email} {requested_role}");
        commands.push(format!("the role is {role}, not {requested_role} ({command})"));
    }
    if is_disabled {
        commands.push(format!("the user is disabled (latchkey user enable {email})"));
    }
    match commands.is_empty() {
        true => Ok(()),
        false => Err(UserDiffers(commands.join("; ")).into()),
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

/// The role in the output. Its name is marked if the settings do not define it.
fn shown(role: &Role) -> String {
    if role.is_defined() { role.name().to_string() } else { format!("{} (undefined)", role.name()) }
}

/// Prints a user as one line with tab-separated fields.
fn show(user: User, output: Output) -> Outcome {
    let state = match &user {
        user if user.disabled_at.is_some() => "disabled",
        user if user.sign_in_stopped => "stopped",
        _ => "enabled",
    };
    let line = format!("{}\t{}\t{}\t{}\t{}\t{state}", user.id, user.email, user.name, user.surname, shown(&user.role));
    output.show(&UserResponse::from(user), line)
}

async fn administer(service: &Service, email: &str, set: Administration, output: Output) -> Outcome {
    let user = user_by_email(service, email).await?;
    let changed = service.administer_user(RequestContext::command_line(), user.id, set).await.map_err(explain)?;
    report_cleanup(service, user.id).await;
    show(changed, output)
}

/// Fails if something would be lost with the account, and lists it.
async fn confirm(service: &Service, email: &str, end: AccountEnd) -> Outcome {
    let user = user_by_email(service, email).await?;
    let owned = service.count_owned(user.id, end).await.map_err(explain)?;
    if owned.is_empty() {
        return Ok(());
    }
    let owned = owned.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (effect, command) = match end {
        AccountEnd::Disabled => ("disabling the user permanently revokes", "disable"),
        AccountEnd::Deleted => ("deleting the user deletes", "delete"),
    };
    let email = user.email;
    Err(format!(
        "nothing was changed, because {effect} {owned}. If you want this, run `latchkey user {command} --yes {email}`"
    )
    .into())
}

async fn unlock(service: &Service, email: &str, output: Output) -> Outcome {
    let user = user_by_email(service, email).await?;
    let unlocked = service.unlock_user(RequestContext::command_line(), user.id).await.map_err(explain)?;
    let line = if unlocked { format!("unlocked {email}") } else { format!("{email} has no failed sign-ins") };
    output.show(&json!({ "id": user.id.0, "unlocked": unlocked }), line)
}

async fn set_password(service: &Service, email: &str, revoke_keys: bool, output: Output) -> Outcome {
    let user = user_by_email(service, email).await?;
    let ended = if revoke_keys { service.count_acting(user.id).await.map_err(explain)? } else { Vec::new() };
    let hint = if ended.is_empty() { "" } else { "; --keep-keys keeps the keys" };
    let ended: Vec<String> = std::iter::once("the sign-in token, all sessions".to_owned())
        .chain(ended.iter().map(ToString::to_string))
        .collect();
    let ended = ended.join(", ");
    // Standard output and standard input are those of scripts.
    eprintln!("latchkey: a new password of {email} will revoke {ended}{hint}");
    let changed = service
        .reset_password(RequestContext::command_line(), user.id, password::read()?, revoke_keys)
        .await
        .map_err(explain)?;
    report_cleanup(service, user.id).await;
    output.show(&UserResponse::from(changed), format_args!("changed the password of {email}, and revoked {ended}"))
}

async fn delete(service: &Service, email: &str, output: Output) -> Outcome {
    let user = user_by_email(service, email).await?;
    service.delete_user(RequestContext::command_line(), user.id).await.map_err(explain)?;
    report_cleanup(service, user.id).await;
    match service.lifecycle().cleanups().erase().await {
        Ok(true) => {}
        Ok(false) => {
            eprintln!(
                "latchkey: other programs are reading the database; the next server start erases the remaining data"
            );
        }
        Err(error) => eprintln!("latchkey: done; the next server start erases the remaining data: {error}"),
    }
    output.show(&json!({ "id": user.id.0, "deleted": true }), format_args!("deleted {email}"))
}

/// Prints a note if a server must finish the change in the background.
async fn report_cleanup(service: &Service, user: UserId) {
    if let Some(note) = cleanup_note(service.lifecycle().cleanups().is_pending(user).await) {
        eprintln!("latchkey: {note}");
    }
}

/// The note about rows that a server removes in the background. The change itself is complete, so that an error here is
/// not a failure of the command.
fn cleanup_note(is_pending: Result<bool, AppError>) -> Option<String> {
    match is_pending {
        Ok(true) => Some(
            "done; the account owns many objects; a running server removes and records the rest in the background"
                .to_owned(),
        ),
        Ok(false) => None,
        Err(error) => Some(format!("done; cannot check whether a running server has to remove more: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_cleanup_is_reported_as_a_note() {
        let pending = cleanup_note(Ok(true)).unwrap();
        assert!(pending.starts_with("done; ") && pending.contains("in the background"), "{pending}");
        assert_eq!(cleanup_note(Ok(false)), None);
        let unknown = cleanup_note(Err(AppError::Busy("the database is away".into()))).unwrap();
        assert!(unknown.starts_with("done; ") && unknown.ends_with(": the database is away"), "{unknown}");
    }
}
