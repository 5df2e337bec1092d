//! Counts the tests that are skipped because a program is missing, and lists them when the test process ends.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A shell script that reads one reason per line until the test process ends, then prints each reason with its count.
const REPORTER: &str = r#"trap '' INT; sort | uniq -c | awk '
    { count += $1; lines = lines "\n" $0 }
    END { if (count) print "\nskipped, because a program or server is missing: " count lines }' >&2"#;

/// Records that a test, or a part of it, is skipped for `reason`.
pub fn skipped(reason: &str) {
    static REPORT: OnceLock<Mutex<Child>> = OnceLock::new();
    let report = REPORT.get_or_init(|| {
        let reporter = Command::new("/bin/sh").args(["-c", REPORTER]).stdin(Stdio::piped()).spawn();
        Mutex::new(reporter.expect("sh runs"))
    });
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(report.stdin.as_mut().expect("standard input is piped"), "{reason}").expect("the reporter reads");
}
