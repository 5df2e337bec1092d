//! Collects the warnings and errors that the servers of this process log about selected requests.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The warnings and errors about each watched request, by its request id.
static LINES: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

struct Watcher;

impl Log for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        let Some(id) = record.key_values().get("request_id".into()) else { return };
        if let Some(lines) = LINES.lock().unwrap().get_mut(&id.to_string()) {
            lines.push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Starts to collect the warnings and errors about the request with this id. No other test may use the id.
pub fn watch(id: &str) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::set_logger(&Watcher).unwrap();
        log::set_max_level(LevelFilter::Warn);
    });
    LINES.lock().unwrap().insert(id.to_owned(), Vec::new());
}

/// The collected warnings and errors about a watched request; panics if it is not watched.
pub fn warnings_of(id: &str) -> Vec<String> {
    LINES.lock().unwrap()[id].clone()
}
