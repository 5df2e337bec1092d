//! The commands `latchkey audit list`, `export` and `prune`.

mod export;
mod file;
mod prune;

use clap::{Args, Subcommand};

use super::{Outcome, Output, explain};
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::domain::audit::{Entry, Filter, Outcome as AuditOutcome};
use crate::domain::id::UserId;
use crate::http::audit::AuditEntryResponse;
use crate::server::open_service;
use crate::service::Service;
use crate::service::audit::pruning::MIN_AGE;
use crate::service::audit::read::{LIMIT_MAX, Order, Span};

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// List entries, newest first
    List(List),
    /// Write old entries to a file, one JSON object per line
    Export(export::Export),
    /// Remove old entries, while servers run
    Prune(prune::Prune),
}

#[derive(Args)]
pub(super) struct List {
    /// Actor: user:ID, key:ID, command-line, server, static-key, anonymous, or various for a sum
    #[arg(long)]
    actor: Option<String>,
    /// Only entries about the account of the user with this id
    #[arg(long, value_name = "ID")]
    user: Option<i64>,
    /// Action, such as page.update
    #[arg(long)]
    action: Option<String>,
    /// Target: user:ID, key:ID, page:ID …
    #[arg(long)]
    target: Option<String>,
    /// Outcome: success, failure or denied
    #[arg(long, value_parser = audit_outcome)]
    outcome: Option<AuditOutcome>,
    /// Only entries at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    since: Option<Timestamp>,
    /// Only entries before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    until: Option<Timestamp>,
    /// Oldest entries first
    #[arg(long)]
    oldest: bool,
    /// Maximum number of entries
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
}

fn timestamp(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or(Timestamp::FORMAT_HINT)
}

fn audit_outcome(name: &str) -> Result<AuditOutcome, String> {
    let known = AuditOutcome::ALL.into_iter().find(|outcome| outcome.name() == name);
    known.ok_or_else(|| format!("use one of: {}", AuditOutcome::ALL.map(AuditOutcome::name).join(", ")))
}

/// Parses a date, which means its start in UTC, or a time.
fn date(text: &str) -> Result<Timestamp, &'static str> {
    let found = Timestamp::parse(&format!("{text}T00:00:00Z")).or_else(|| Timestamp::parse(text));
    found.ok_or("use a date such as 2030-01-31, or a time such as 2030-01-31T12:00:00Z")
}

/// Requires that no more entries from before this time can be written.
fn require_past(before: Timestamp) -> Result<(), String> {
    match before <= Clock::default().now().plus_seconds(-MIN_AGE) {
        true => Ok(()),
        false => Err(format!("--before must be at least {MIN_AGE} seconds in the past")),
    }
}

pub(super) async fn audit(settings: &Settings, command: AuditCommand, output: Output) -> Outcome {
    let service: Service = open_service(settings, Clock::default()).await?;
    match command {
        AuditCommand::List(command) => list(&service, command, output).await,
        AuditCommand::Export(command) => export::export(&service, &settings.database.url, command, output).await,
        AuditCommand::Prune(command) => prune::prune(&service, command, output).await,
    }
}

async fn list(service: &Service, list: List, output: Output) -> Outcome {
    let filter = Filter {
        actor: list.actor,
        user: list.user.map(UserId),
        action: list.action,
        target: list.target,
        outcome: list.outcome.map(AuditOutcome::name),
        since: list.since,
        until: list.until,
        ..Filter::default()
    };
    let order = if list.oldest { Order::Oldest } else { Order::Newest };
    let (mut remaining, mut cursor) = (list.limit, None);
    while remaining > 0 {
        let limit = remaining.min(LIMIT_MAX);
        let batch = service.audit(filter.clone(), Span { order, cursor, limit }).await.map_err(explain)?;
        let shown = i64::try_from(batch.items.len()).unwrap_or(limit);
        batch.items.into_iter().try_for_each(|entry| show(entry, output))?;
        cursor = batch.next;
        remaining = if cursor.is_some() { remaining - shown } else { 0 };
    }
    Ok(())
}

/// Prints an entry as one line with tab-separated fields.
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
