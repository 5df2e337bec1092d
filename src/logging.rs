//! Log lines on standard error: text for people, or one JSON object per line.
//!
//! A thread that logs never waits: lines go through a bounded queue to a thread that writes them in batches. If
//! standard error is not read and the queue is full, further lines are dropped and counted.

mod format;
mod queue;
pub mod repeated;

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

use env_filter::Filter;
use log::{Metadata, Record};

use self::format::Format;
use self::queue::Queue;
use crate::clock::time_of_day;
use crate::config::LogFormat;

/// The filter without `RUST_LOG`. Messages of the HTTP parser about malformed requests are off, because any client can
/// cause them.
const DEFAULT_FILTER: &str = "info,actix_server=warn,actix_http=off";
/// Maximum number of logged panics per minute, in case a caller can cause them.
const MAX_PANICS_PER_MINUTE: u64 = 100;

/// A guard for logging. Dropping it writes the lines that are still queued.
pub struct Log(Queue);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging with the filter in `RUST_LOG`. A second call in the same process keeps the first logger.
///
/// Errors: the thread cannot be started.
pub fn start(format: LogFormat) -> std::io::Result<Log> {
    let queue = Queue::start(std::io::stderr())?;
    // An empty variable counts as unset, because templates can leave it empty.
    let configured = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let filter = env_filter::Builder::new().parse(configured.as_deref().unwrap_or(DEFAULT_FILTER)).build();
    let level = filter.filter();
    let format = Format::new(format, std::io::stderr().is_terminal());
    let logger = Logger { filter, format, queue: queue.clone() };
    // This fails only for a second logger in one process, as in tests. The first one stays in use.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(queue))
}

struct Logger {
    filter: Filter,
    format: Format,
    queue: Queue,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.queue.push(self.format.line(record, time_of_day()));
        }
    }

    fn flush(&self) {
        self.queue.flush();
    }
}

/// Logs a panic. Only constant messages are logged, because formatted ones can contain user data.
fn log_panic(panic: &PanicHookInfo<'_>) {
    static LOGGED: AtomicU64 = AtomicU64::new(0);
    if !is_below_rate(MAX_PANICS_PER_MINUTE, &LOGGED, time_of_day()) {
        return;
    }
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("its message may quote data");
    log::error!(target: "latchkey::panic", place = place.as_str(); "panicked: {message}");
}

/// Counts an event. Returns whether it is one of the first `max` in its minute.
fn is_below_rate(max: u64, counter: &AtomicU64, micros: i64) -> bool {
    let minute = u64::try_from(micros / 60_000_000).unwrap_or_default() << 32;
    let next = |counted: u64| Some(if counted & !u64::from(u32::MAX) == minute { counted + 1 } else { minute + 1 });
    let counted = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().and_then(next);
    counted.unwrap_or_default() - minute <= max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maximum_number_of_events_is_logged_in_each_minute() {
        let (counter, minute) = (AtomicU64::new(0), 60_000_000);
        let logged = |at: i64| (0..5).filter(|_| is_below_rate(3, &counter, at)).count();
        assert_eq!([logged(7 * minute), logged(8 * minute - 1), logged(8 * minute)], [3, 0, 3]);
    }
}
