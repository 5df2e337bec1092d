//! `latchkey audit list`.

use clap::{Args, Subcommand};

use super::{Outcome, Output, explain};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::domain::audit::{Entry, Filter, Outcome as Ending};
use crate::domain::id::UserId;
use crate::http::audit::AuditEntryResponse;
use crate::server::open_service;
use crate::service::Service;
use crate::service::audit::{LIMIT_MAX, Order, Span};

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List entries, newest first
    List(List),
}

#[derive(Args)]
pub(super) struct List {
    /// Actor: user:ID, key:ID, command-line, constant-key or anonymous
    #[arg(long)]
    actor: Option<String>,
    /// Only entries about this user's account, by the id of the user
    #[arg(long, value_name = "ID")]
    user: Option<i64>,
    /// Action, such as page.update
    #[arg(long)]
    action: Option<String>,
    /// Target: user:ID, key:ID, page:ID …
    #[arg(long)]
    target: Option<String>,
    /// Outcome: success, failure or denied
    #[arg(long, value_parser = ending)]
    outcome: Option<Ending>,
    /// Only entries at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only entries before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Oldest entries first
    #[arg(long)]
    oldest: bool,
    /// Maximum number of entries
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or(Timestamp::FORM)
}

fn ending(name: &str) -> Result<Ending, String> {
    let known = Ending::ALL.into_iter().find(|ending| ending.name() == name);
    known.ok_or_else(|| format!("use one of: {}", Ending::ALL.map(Ending::name).join(", ")))
}

pub(super) async fn audit(settings: &Settings, command: AuditCommand, output: Output) -> Outcome {
    let AuditCommand::List(list) = command;
    let service: Service = open_service(settings, Clock::default()).await?;
    let filter = Filter {
        actor: list.actor,
        user: list.user.map(UserId),
        action: list.action,
        target: list.target,
        outcome: list.outcome.map(Ending::name),
        since: list.since,
        until: list.until,
        ..Filter::default()
    };
    let order = if list.oldest { Order::Oldest } else { Order::Newest };
    let (mut left, mut cursor) = (list.limit, None);
    while left > 0 {
        let limit = left.min(LIMIT_MAX);
        let part = service.audit(filter.clone(), Span { order, cursor, limit }).await.map_err(explain)?;
        let shown = i64::try_from(part.items.len()).unwrap_or(limit);
        part.items.into_iter().try_for_each(|entry| show(entry, output))?;
        cursor = part.next;
        left = if cursor.is_some() { left - shown } else { 0 };
    }
    Ok(())
}

/// One line, its fields separated by tabs.
fn show(entry: Entry, output: Output) -> Outcome {
    let or_dash = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
    let line = [
        entry.id.to_string(),
        entry.at.to_string(),
        entry.actor.clone(),
        entry.credential.clone(),
        or_dash(&entry.role),
        entry.action.clone(),
        or_dash(&entry.target),
        entry.outcome.clone(),
        or_dash(&entry.detail),
        or_dash(&entry.client),
    ];
    output.show(&AuditEntryResponse::from(entry), line.join("\t"))
}
