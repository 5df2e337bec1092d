//! Log lines on standard error: text for people, or one JSON object per line.

use std::io::Write;
use std::panic::PanicHookInfo;

use env_logger::fmt::Formatter;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource};

use crate::config::LogFormat;

/// Starts logging. `RUST_LOG` chooses what is logged; without it, `info` and above, but
/// not what the HTTP parser says of garbage that anybody may send. A second call changes nothing.
pub fn start(format: LogFormat) {
    let mut builder = env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,actix_server=warn,actix_http=off"),
    );
    if format == LogFormat::Json {
        builder.format(json_line);
    }
    // Only a second logger in one process (tests) is refused, and the first one serves.
    let _ = builder.try_init();
    std::panic::set_hook(Box::new(log_panic));
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
