//! The command `latchkey audit export`.

use std::error::Error;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::file::ExportFile;
use super::{Output, date, require_past};
use crate::cli::{Outcome, explain};
use crate::clock::Timestamp;
use crate::config::DatabaseUrl;
use crate::domain::audit::{Entry, Filter};
use crate::http::audit::AuditEntryResponse;
use crate::service::Service;
use crate::service::audit::pruning::OldEntries;
use crate::service::audit::read::{Order, Span};

/// Number of entries that one query reads.
const BATCH_SIZE: i64 = 500;

#[derive(Args)]
pub(in crate::cli) struct Export {
    /// Export the entries from before this date (UTC) or time (RFC 3339)
    #[arg(long, value_name = "DATE", value_parser = date)]
    before: Timestamp,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// The file; compressed if its name ends in .gz. - is the standard output
    file: PathBuf,
}

pub(super) async fn export(service: &Service, database: &DatabaseUrl, export: Export, output: Output) -> Outcome {
    let Export { before, force, file } = export;
    require_past(before)?;
    if database.owns(&file) {
        return Err(format!("{} belongs to the database: name another file", file.display()).into());
    }
    let is_stdout = file == Path::new("-");
    let target = if is_stdout { None } else { Some(ExportFile::create(&file, force)?) };
    let old = service.pruning().older_than(before).await.map_err(explain)?;
    let Some(mut target) = target else {
        let mut stdout = BufWriter::new(std::io::stdout());
        let written = write_entries(service, old, &mut stdout).await;
        return match written.and_then(|_| Ok(stdout.flush()?)) {
            Err(error) if is_broken_pipe(error.as_ref()) => Ok(()),
            written => written,
        };
    };
    let count = write_entries(service, old, &mut target).await?;
    target.finish(force)?;
    let file = file.display().to_string();
    let line = format!("exported {count} entries from before {before} to {file}");
    output.show(&json!({ "exported": count, "before": before, "file": file }), line)
}

/// Writes each entry as a line of JSON, as the API returns it. Returns their number.
async fn write_entries(
    service: &Service,
    old: Option<OldEntries>,
    target: &mut dyn Write,
) -> Result<u64, Box<dyn Error>> {
    let mut reader = OldEntryReader::new(service, old);
    let mut count = 0;
    while let Some(entries) = reader.next().await? {
        for entry in entries {
            serde_json::to_writer(&mut *target, &AuditEntryResponse::from(entry))?;
            target.write_all(b"\n")?;
            count += 1;
        }
    }
    Ok(count)
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let of_json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    let kind = of_json.or_else(|| error.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
    kind == Some(ErrorKind::BrokenPipe)
}

/// Reads old entries in the order of their ids, with one short query for each batch.
pub(super) struct OldEntryReader<'s> {
    service: &'s Service,
    span: Option<Span>,
    below: i64,
}

impl<'s> OldEntryReader<'s> {
    pub(super) fn new(service: &'s Service, old: Option<OldEntries>) -> Self {
        let start = Span { order: Order::Oldest, cursor: None, limit: BATCH_SIZE };
        Self { service, span: old.map(|_| start), below: old.map_or(0, |old| old.below.0) }
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>, String> {
        let Some(span) = self.span else { return Ok(None) };
        let list = self.service.audit(Filter::default(), span).await.map_err(explain)?;
        let mut entries = list.items;
        entries.retain(|entry| entry.id.0 < self.below);
        let is_end = list.next.is_none_or(|next| next.0 >= self.below);
        self.span = (!is_end).then_some(Span { cursor: list.next, ..span });
        Ok(Some(entries))
    }
}
