//! Log lines on standard error: text for people, or one JSON object per line.
//!
//! A thread that logs never waits: lines go through a bounded queue to a thread that writes them in batches. If nobody
//! reads what is written, and the queue is full, lines are lost, and counted.

mod format;
mod queue;

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

use env_filter::Filter;
use log::{Metadata, Record};

use self::format::Format;
use self::queue::Queue;
use crate::clock::time_of_day;
use crate::config::LogFormat;

/// What is logged without `RUST_LOG`: not what the HTTP parser says of garbage that anybody may send.
const FILTER: &str = "info,actix_server=warn,actix_http=off";
/// Panics that are logged per minute. A caller may have found out how to cause one.
const PANICS: u64 = 100;

/// Keeps the log going. When it is dropped, what has been logged is written.
pub struct Log(Queue);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging. `RUST_LOG` chooses what is logged. A second call changes nothing.
///
/// Errors: the system has no thread for it.
pub fn start(format: LogFormat) -> std::io::Result<Log> {
    let queue = Queue::start(std::io::stderr())?;
    // An empty variable is what a template leaves that nobody filled in.
    let chosen = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let filter = env_filter::Builder::new().parse(chosen.as_deref().unwrap_or(FILTER)).build();
    let level = filter.filter();
    let format = Format::new(format, std::io::stderr().is_terminal());
    let logger = Logger { filter, format, queue: queue.clone() };
    // Only a second logger in one process (tests) is refused, and the first one serves.
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

/// A panic is a log line like any other. Words that were put together may quote somebody's data, so only fixed ones are
/// shown.
fn log_panic(panic: &PanicHookInfo<'_>) {
    static LOGGED: AtomicU64 = AtomicU64::new(0);
    if !is_among_the_first(PANICS, &LOGGED, time_of_day()) {
        return;
    }
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("its message may quote data");
    log::error!(target: "latchkey::panic", place = place.as_str(); "panicked: {said}");
}

/// Counts an event. Whether it is one of the first `most` in its minute.
fn is_among_the_first(most: u64, counter: &AtomicU64, micros: i64) -> bool {
    let minute = u64::try_from(micros / 60_000_000).unwrap_or_default() << 32;
    let next = |counted: u64| Some(if counted & !u64::from(u32::MAX) == minute { counted + 1 } else { minute + 1 });
    let counted = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().and_then(next);
    counted.unwrap_or_default() - minute <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_events_are_logged_in_each_minute() {
        let (counter, minute) = (AtomicU64::new(0), 60_000_000);
        let logged = |at: i64| (0..5).filter(|_| is_among_the_first(3, &counter, at)).count();
        assert_eq!([logged(7 * minute), logged(8 * minute - 1), logged(8 * minute)], [3, 0, 3]);
    }
}
