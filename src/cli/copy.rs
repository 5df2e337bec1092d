//! The command `latchkey copy`.

use clap::Args;
use serde_json::json;

use super::progress::ProgressReport;
use super::{Outcome, Output};
use crate::clock::Clock;
use crate::config::Settings;
use crate::service::transfer::copy::{Copied, copy as copy_database};

#[derive(Args)]
pub(super) struct Copy {
    /// The address of the other database, as in `database.url`
    #[arg(long, value_name = "URL")]
    to: String,
    /// Replace a database that holds data. Its data is lost
    #[arg(long)]
    replace: bool,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

pub(super) fn copy(settings: &Settings, command: &Copy) -> Outcome {
    settings.check_database_exists()?;
    let target = settings.with_database("--to", &command.to)?;
    target.check_database_file()?;
    let output = Output { json: command.json };
    let mut report = ProgressReport::new(output.json);
    let (source, target, now) = (&settings.database.url, &target.database.url, Clock::default().now());
    let Copied { tables, missed_entries } =
        copy_database(source, target, command.replace, now, &mut |progress| report.show(progress))?;
    drop(report);
    if missed_entries > 0 {
        eprintln!(
            "latchkey: warning: the source was in use: it has {missed_entries} newer audit entries, which are not \
             copied. Stop all servers on it, and copy again with --replace"
        );
    }
    let rows: i64 = tables.iter().map(|table| table.rows).sum();
    let line = format!("copied {rows} rows from {source} to {target}; set database.url to the new address");
    output.show(&json!({ "rows": rows, "tables": tables, "missed_audit_entries": missed_entries }), line)
}
