//! The command `latchkey audit prune`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::export::OldEntryReader;
use super::file::ExportedLines;
use super::{Output, date, require_past};
use crate::cli::{Outcome, explain};
use crate::clock::Timestamp;
use crate::domain::audit::{Actor, Caller, TrailPart};
use crate::error::AppError;
use crate::http::audit::AuditEntryResponse;
use crate::service::Service;
use crate::service::audit::pruning::{OldEntries, Removed};

/// Pause before another attempt while another process removes entries.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);
/// Pause before another attempt after the database was busy.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of attempts in a row at which the database is busy.
const MAX_BUSY: u32 = 10;

#[derive(Args)]
pub(in crate::cli) struct Prune {
    /// Remove the entries from before this date (UTC) or time (RFC 3339)
    #[arg(long, value_name = "DATE", value_parser = date)]
    before: Timestamp,
    #[command(flatten)]
    proof: Proof,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Proof {
    /// The export that contains these entries. Each of them is compared with it first
    #[arg(long, value_name = "FILE")]
    exported: Option<PathBuf>,
    /// Remove the entries although they were not exported
    #[arg(long)]
    without_export: bool,
}

pub(super) async fn prune(service: &Service, prune: Prune, output: Output) -> Outcome {
    let Prune { before, proof: Proof { exported, .. } } = prune;
    require_past(before)?;
    // Completes removals that were interrupted, so that no entry is counted twice.
    remove_recorded(service, TrailPart::AnonymousFailures).await?;
    let mut removed = remove_recorded(service, TrailPart::All).await?;
    if let Some(old) = service.pruning().older_than(before).await.map_err(explain)? {
        let reason = match exported {
            None => "without an export".to_owned(),
            Some(file) => {
                let digest = compare(service, old, &file).await?;
                format!("exported to a file with the SHA-256 digest {digest}")
            }
        };
        let reason = format!("from before {before}, {reason}");
        while !service.pruning().record(old, Actor::caller(&Caller::CommandLine), &reason).await.map_err(explain)? {
            tokio::time::sleep(LOCKED_PAUSE).await;
        }
        removed += remove_recorded(service, TrailPart::All).await?;
    }
    let line = format!("removed {removed} entries from before {before}");
    output.show(&json!({ "removed": removed, "before": before }), line)
}

/// Compares the entries with those in the file. Returns the SHA-256 digest of the file.
///
/// Errors: the file lacks one of them, holds it with other contents, or cannot be read to its end.
async fn compare(service: &Service, old: OldEntries, file: &Path) -> Result<String, Box<dyn Error>> {
    let mut lines = ExportedLines::open(file)?;
    let mut reader = OldEntryReader::new(service, Some(old));
    while let Some(entries) = reader.next().await? {
        for entry in entries {
            let id = entry.id;
            let stored = serde_json::to_string(&AuditEntryResponse::from(entry))?;
            let problem = match lines.find(id.0)? {
                Some(exported) if exported == stored => continue,
                Some(_) => "holds other contents of",
                None => "lacks",
            };
            return Err(format!(
                "{} {problem} entry {id}, so nothing was removed: export the entries again with `latchkey audit \
                 export`",
                file.display()
            )
            .into());
        }
    }
    Ok(lines.finish()?)
}

/// Deletes the entries of a part whose removal is recorded. Returns their number.
async fn remove_recorded(service: &Service, part: TrailPart) -> Result<u64, String> {
    let (mut count, mut busy) = (0, 0);
    loop {
        match service.pruning().remove_recorded(part).await {
            Ok(Removed { count: removed, is_locked }) => {
                count += removed;
                busy = 0;
                if !is_locked {
                    return Ok(count);
                }
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            Err(AppError::Busy(_)) if busy < MAX_BUSY => {
                busy += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => {
                return Err(format!(
                    "{}. The rest is removed by a running server, or when you repeat the command",
                    explain(error)
                ));
            }
        }
    }
}
