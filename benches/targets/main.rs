//! Measures the performance targets of Latchkey, most of them as ratios in one run on one machine: `benches/run`, or
//! `benches/run --short`.
//!
//! Each row starts its own servers, with the release build and the default settings, on its own database. wrk and this
//! process generate the load on the same machine. The results are written to `docs/benchmarks.md`, and drawn as charts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]
#![expect(clippy::as_conversions, reason = "counts are converted to ratios")]
#![expect(unreachable_pub, reason = "`pub` marks what other modules use")]

mod backup;
mod changes;
mod charts;
mod copy;
mod durable;
mod guard;
mod hashing;
mod load;
mod pocketbase;
mod population;
mod process;
mod report;
mod revocation;

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/api/support/database.rs"]
mod database;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/api/support/postgres.rs"]
mod postgres;
#[path = "../../tests/api/support/skipped.rs"]
mod skipped;

use std::time::Duration;

use self::database::Backend;
use self::report::Report;
use self::skipped::skipped;

/// Durations and sizes of the measurements.
pub struct Extent {
    /// Duration of each measurement.
    pub seconds: u64,
    /// Number of alternating measurements of the two sides of a ratio.
    pub pairs: usize,
    /// Duration of measurements of sign-ins, which are slow.
    pub hashing: Duration,
    /// Users in the small database and in the large one.
    pub users: [u64; 2],
    /// Tokens that are presented to the large database.
    pub live: u64,
    /// Requests before memory is measured.
    pub requests: u64,
    /// Number of revocations, and how many times the connection that reads the change log is killed.
    pub revocations: [u64; 2],
    /// Size of the database of which a backup is made.
    pub backup_bytes: u64,
}

const FULL: Extent = Extent {
    seconds: 4,
    pairs: 7,
    hashing: Duration::from_secs(20),
    users: [1_000, 1_000_000],
    live: 100_000,
    requests: 1_000_000,
    revocations: [1_000, 20],
    backup_bytes: 1_000_000_000,
};
const SHORT: Extent = Extent {
    seconds: 1,
    pairs: 1,
    hashing: Duration::from_secs(2),
    users: [1_000, 20_000],
    live: 20_000,
    requests: 100_000,
    revocations: [100, 2],
    backup_bytes: 50_000_000,
};

/// A function that measures a group of figures on a database.
type Measure = fn(Backend, &Extent, &mut Report);

/// The groups and their names on the command line.
const GROUPS: [(&str, Measure); 14] = [
    ("guard", guard::against_unguarded),
    ("bare", guard::against_bare_actix),
    ("sessions", guard::sessions),
    ("forward-auth", guard::forward_auth),
    ("uncached", guard::uncached),
    ("sign-ins", hashing::sign_ins),
    ("pocketbase", hashing::against_pocketbase),
    ("storm", hashing::guard_during_sign_ins),
    ("users", guard::many_users),
    ("start", guard::cold_start),
    ("revocation", revocation::on_another_replica),
    ("changes", changes::against_one_row_updates),
    ("backup", backup::under_changes),
    ("copy", copy::to_other_kind),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (flags, selected): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let short = flags.iter().any(|flag| *flag == "--short");
    let known = |name: &&String| GROUPS.iter().any(|(known, _)| known == name);
    if flags.iter().any(|flag| *flag != "--short") || !selected.iter().all(known) {
        let names = GROUPS.map(|(name, _)| name).join(" ");
        eprintln!("usage: benches/run [--short] [group…]; the groups are {names}");
        std::process::exit(2);
    }
    let extent = if short { &SHORT } else { &FULL };
    let mut report = Report::default();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        if backend == Backend::Postgres && postgres::url().is_none() {
            continue;
        }
        for (name, measure) in GROUPS {
            if selected.is_empty() || selected.iter().any(|selected| *selected == name) {
                measure(backend, extent, &mut report);
            }
        }
    }
    report.print();
    if short || !selected.is_empty() {
        println!("docs/benchmarks.md and its charts are unchanged: only a full run of all groups updates them.");
    } else {
        report.write();
    }
}
