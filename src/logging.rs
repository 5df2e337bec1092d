//! Log lines on standard error: text for people, or one JSON object per line.
//!
//! Whoever logs never waits: lines go to a thread of their own by way of a bounded queue. If nobody reads what is
//! written, and the queue is full, lines are lost, and counted.

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use env_logger::fmt::Formatter;
use env_logger::{Builder, Target, WriteStyle};
use log::Record;
use log::kv::{Error, Key, Value, VisitSource};

use crate::config::LogFormat;

/// Lines that may wait to be written.
const QUEUE: usize = 10_000;
/// How long the end waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Keeps the log going. When it is dropped, what has been logged is written.
pub struct Log(SyncSender<Message>);

enum Message {
    Line(Vec<u8>),
    /// Tell when all that came before is written.
    Flush(SyncSender<()>),
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // Neither a full queue nor a reader that has gone to sleep keeps the process from its end.
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_LINES);
        }
    }
}

/// Starts logging. `RUST_LOG` chooses what is logged; without it, `info` and above, but
/// not what the HTTP parser says of garbage that anybody may send. A second call changes nothing.
///
/// Errors: the system has no thread for it.
pub fn start(format: LogFormat) -> std::io::Result<Log> {
    let (queue, lines) = sync_channel(QUEUE);
    let lost = Arc::<AtomicU64>::default();
    let lost_too = Arc::clone(&lost);
    thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&lines, &lost_too))?;

    // An empty variable is what a template leaves that nobody filled in.
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let mut builder = Builder::new();
    builder.parse_filters(filter.as_deref().unwrap_or("info,actix_server=warn,actix_http=off"));
    let style = if std::io::stderr().is_terminal() { WriteStyle::Always } else { WriteStyle::Never };
    builder.write_style(style).target(Target::Pipe(Box::new(Lines { queue: queue.clone(), lost })));
    if format == LogFormat::Json {
        builder.format(json_line);
    }
    // Only a second logger in one process (tests) is refused, and the first one serves.
    let _ = builder.try_init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(queue))
}

/// Where the logger writes its lines, each by one call.
struct Lines {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_all(lines: &Receiver<Message>, lost: &AtomicU64) {
    for message in lines {
        match message {
            // There is nowhere to tell that standard error takes no more.
            Message::Line(line) => drop(std::io::stderr().write_all(&line)),
            Message::Flush(done) => drop(done.try_send(())),
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => log::error!("{count} log lines are lost, because nobody took them in time"),
        }
    }
}

/// A panic is a log line like any other. Words that were put together may quote somebody's data, so only fixed ones are
/// shown.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("its message may quote data");
    log::error!(target: "latchkey::panic", place = place.as_str(); "panicked: {said}");
}

fn json_line(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let mut line = serde_json::Map::new();
    line.insert("time".into(), out.timestamp_micros().to_string().into());
    line.insert("level".into(), record.level().as_str().into());
    line.insert("target".into(), record.target().into());
    line.insert("message".into(), record.args().to_string().into());
    // The only error a visitor of ours can return is its own, and it has none.
    let _ = record.key_values().visit(&mut Fields(&mut line));
    writeln!(out, "{}", serde_json::Value::Object(line))
}

struct Fields<'a>(&'a mut serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_u64().map_or_else(|| value.to_string().into(), Into::into);
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}
