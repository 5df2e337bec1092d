//! Progress of long commands on standard error: a line on a terminal, or lines of JSON.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::service::transfer::Progress;

/// The interval between two updates.
const INTERVAL: Duration = Duration::from_millis(100);
/// The width of the bar in characters.
const WIDTH: i64 = 30;

/// Shows the progress of one command.
pub(super) struct ProgressReport {
    form: Form,
    shown: Option<(Instant, Progress)>,
}

enum Form {
    Bar,
    Json,
    None,
}

impl ProgressReport {
    pub(super) fn new(json: bool) -> Self {
        let form = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Bar,
            (false, false) => Form::None,
        };
        Self { form, shown: None }
    }

    /// Shows `progress`, at most ten times per second for the same table.
    pub(super) fn show(&mut self, progress: Progress) {
        let is_new = |at: &Instant, last: &Progress| {
            last.table != progress.table || last.step != progress.step || at.elapsed() >= INTERVAL
        };
        let is_done = progress.done == progress.total;
        if !is_done && self.shown.as_ref().is_some_and(|(at, last)| !is_new(at, last)) {
            return;
        }
        let Progress { step, table, done, total } = progress;
        // A terminal that is gone is no reason to stop.
        let _ = match self.form {
            Form::Bar => write!(std::io::stderr(), "\r\x1b[K{step} {table} {} {done}/{total}", bar(done, total)),
            Form::Json => {
                let line = json!({ "step": step, "table": table, "done": done, "total": total });
                writeln!(std::io::stderr(), "{line}")
            }
            Form::None => Ok(()),
        };
        self.shown = Some((Instant::now(), progress));
    }
}

impl Drop for ProgressReport {
    fn drop(&mut self) {
        if let (Form::Bar, Some(_)) = (&self.form, &self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: i64, total: i64) -> String {
    let filled = if total > 0 { (done * WIDTH / total).clamp(0, WIDTH) } else { WIDTH };
    (0..WIDTH).map(|at| if at < filled { '#' } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_filled_in_proportion() {
        assert_eq!(bar(0, 2).matches('#').count(), 0);
        assert_eq!(bar(1, 2).matches('#').count(), 15);
        assert_eq!(bar(2, 2).matches('#').count(), 30);
        assert_eq!(bar(0, 0).matches('#').count(), 30);
    }
}
