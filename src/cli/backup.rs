//! The commands `latchkey backup create`, `verify` and `restore`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::progress::ProgressReport;
use super::{Outcome, Output};
use crate::clock::Clock;
use crate::config::Settings;
use crate::service::transfer::Manifest;
use crate::service::transfer::backup::{self, Verified};
use crate::service::transfer::restore::{RestoreOptions, Restored, restore};

#[derive(Subcommand)]
pub(super) enum BackupCommand {
    /// Make a backup of the database, which can be in use
    Create {
        /// The backup, which must not exist; `-` writes it to standard output
        file: PathBuf,
    },
    /// Check that a backup is complete and unchanged
    Verify {
        /// The backup
        file: PathBuf,
    },
    /// Restore a backup into the database of the settings. Stop all servers before
    Restore {
        /// The backup
        file: PathBuf,
        /// Replace a database that holds data. Its data is lost
        #[arg(long)]
        replace: bool,
        /// End all sign-in tokens and sessions of the backup
        #[arg(long)]
        revoke_tokens: bool,
        /// End all API keys of the backup
        #[arg(long)]
        revoke_keys: bool,
    },
}

pub(super) fn backup(settings: &Settings, command: BackupCommand, output: Output) -> Outcome {
    let mut report = ProgressReport::new(output.json);
    match command {
        BackupCommand::Create { file } => create(settings, &file, report, output),
        BackupCommand::Verify { file } => {
            let Verified { manifest, pending } = backup::verify(&file, &mut |progress| report.show(progress))?;
            drop(report);
            let note = match pending.len() {
                0 => String::new(),
                count => format!("; its schema lacks {count} migrations, which a restore applies"),
            };
            let line = format!("{} is complete: {}{note}", file.display(), summary(&manifest));
            output.show(&with(&manifest, [("verified", json!(true)), ("pending", json!(pending))]), line)
        }
        BackupCommand::Restore { file, replace, revoke_tokens, revoke_keys } => {
            settings.check_database_file()?;
            let (url, now) = (&settings.database.url, Clock::default().now());
            let options = RestoreOptions { replace, revoke_tokens, revoke_keys };
            let restored = restore(&file, url, options, now, &mut |progress| report.show(progress))?;
            drop(report);
            show_restored(&restored, options, url, output)
        }
    }
}

fn create(settings: &Settings, file: &Path, mut report: ProgressReport, output: Output) -> Outcome {
    settings.check_database_exists()?;
    let (url, now) = (&settings.database.url, Clock::default().now());
    let mut show = |progress| report.show(progress);
    if file == Path::new("-") {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err("a backup is not text: redirect standard output to a file or to another program".into());
        }
        backup::stream(url, &mut stdout.lock(), now, &mut show)?;
        return Ok(());
    }
    let manifest = backup::create(url, file, now, &mut show)?;
    drop(report);
    output.show(&with(&manifest, []), format_args!("made {}: {}", file.display(), summary(&manifest)))
}

fn show_restored(
    restored: &Restored,
    options: RestoreOptions,
    url: &impl std::fmt::Display,
    output: Output,
) -> Outcome {
    let Restored { manifest, tokens, sessions, keys, migrations } = restored;
    let revoked = match (options.revoke_tokens, options.revoke_keys) {
        (false, false) => "tokens, sessions and keys",
        (true, false) => "keys",
        (false, true) => "tokens and sessions",
        (true, true) => "",
    };
    if !revoked.is_empty() {
        let created_at = &manifest.created_at;
        eprintln!(
            "latchkey: warning: {revoked} that were revoked since the backup ({created_at}) are valid again, and \
             passwords are those of that time. To end all of them, restore again with --replace --revoke-tokens \
             --revoke-keys"
        );
    }
    let line =
        format!("restored {url}: {}; revoked {tokens} tokens, {sessions} sessions and {keys} keys", summary(manifest));
    let more = [
        ("migrations", json!(migrations)),
        ("revoked_tokens", json!(tokens)),
        ("ended_sessions", json!(sessions)),
        ("revoked_keys", json!(keys)),
    ];
    output.show(&with(manifest, more), line)
}

fn summary(manifest: &Manifest) -> String {
    let Manifest { created_at, version, audit_head, .. } = manifest;
    format!("{} rows of {created_at}, version {version}, last audit entry {audit_head}", manifest.rows())
}

/// The manifest as JSON, with more members.
fn with<const N: usize>(manifest: &Manifest, more: [(&str, Value); N]) -> Value {
    let mut shown = json!({
        "created_at": manifest.created_at,
        "version": manifest.version,
        "migration": manifest.migration,
        "audit_head": manifest.audit_head,
        "rows": manifest.rows(),
        "tables": manifest.summaries().unwrap_or_default(),
    });
    if let Some(members) = shown.as_object_mut() {
        members.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    shown
}
