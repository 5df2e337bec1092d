//! The command `latchkey role list`.

use clap::Subcommand;
use serde::Serialize;

use super::{Outcome, Output};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::roles::RoleKind;
use crate::server::open_service;

#[derive(Subcommand)]
pub(super) enum RoleCommand {
    /// List the built-in roles, those of the settings, and those that users have although no setting defines them
    List,
}

/// A role in the output.
#[derive(Serialize)]
struct ListedRole<'a> {
    name: &'a str,
    kind: &'static str,
    scopes: Vec<&'a str>,
    description: String,
}

pub(super) async fn role(settings: &Settings, command: RoleCommand, output: Output) -> Outcome {
    let RoleCommand::List = command;
    let service = open_service(settings, Clock::default()).await?;
    for role in service.roles().all() {
        let (kind, scopes) = (role.kind().name(), role.scopes().names());
        show(
            &ListedRole { name: role.name().as_str(), kind, scopes, description: role.description().to_owned() },
            output,
        )?;
    }
    for role in service.undefined_roles().await? {
        let description = format!("Grants nothing; users with this role: {}", role.users);
        let kind = RoleKind::Undefined.name();
        show(&ListedRole { name: &role.name, kind, scopes: Vec::new(), description }, output)?;
    }
    Ok(())
}

/// Prints a role as one line with tab-separated fields.
fn show(role: &ListedRole<'_>, output: Output) -> Outcome {
    let ListedRole { name, kind, scopes, description } = role;
    let line = format!("{name}\t{kind}\t{}\t{description}", scopes.join(" "));
    output.show(role, line)
}
