//! The figures that Latchkey promises, as ratios in one run on one machine: `benches/run`, or `benches/run --short`.
//!
//! Each row starts its own servers, the program as it ships, on its own database. The load comes from wrk and from this
//! process, beside the servers. The results go to `docs/benchmarks.md`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]
#![expect(clippy::as_conversions, reason = "counts become ratios")]
#![expect(unreachable_pub, reason = "a module says what the others may use")]

mod changes;
mod durable;
mod guard;
mod hashing;
mod load;
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

use std::time::Duration;

use self::database::Backend;
use self::report::Report;

/// How long and how much.
pub struct Extent {
    /// Of each measurement.
    pub seconds: u64,
    /// Measurements of a figure and of what it is compared with, in turns.
    pub pairs: usize,
    /// Of sign-ins, which are slow.
    pub hashing: Duration,
    /// Users in a small database and in a large one.
    pub users: [u64; 2],
    /// Tokens that are presented to a large one.
    pub live: u64,
    /// Requests before memory is measured.
    pub requests: u64,
    /// Revocations, and how many of them lose the connection that tells of them.
    pub revocations: [u64; 2],
}

const FULL: Extent = Extent {
    seconds: 4,
    pairs: 7,
    hashing: Duration::from_secs(20),
    users: [1_000, 1_000_000],
    live: 100_000,
    requests: 1_000_000,
    revocations: [1_000, 20],
};
const SHORT: Extent = Extent {
    seconds: 1,
    pairs: 1,
    hashing: Duration::from_secs(2),
    users: [1_000, 20_000],
    live: 20_000,
    requests: 100_000,
    revocations: [100, 2],
};

/// What the tests' databases say when they have to.
fn announce(line: &str) {
    eprintln!("{line}");
}

/// What measures a group of figures on a database.
type Measure = fn(Backend, &Extent, &mut Report);

/// Each under the name by which it can be asked for.
const GROUPS: [(&str, Measure); 10] = [
    ("guard", guard::against_the_same_without),
    ("bare", guard::against_bare_actix),
    ("forward-auth", guard::forwarded),
    ("uncached", guard::uncached),
    ("sign-ins", hashing::sign_ins),
    ("storm", hashing::storm),
    ("users", guard::many_users),
    ("start", guard::cold_start),
    ("revocation", revocation::on_another_replica),
    ("changes", changes::against_one_row_updates),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (flags, asked): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let short = flags.iter().any(|flag| *flag == "--short");
    let known = |name: &&String| GROUPS.iter().any(|(known, _)| known == name);
    if flags.iter().any(|flag| *flag != "--short") || !asked.iter().all(known) {
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
            if asked.is_empty() || asked.iter().any(|asked| *asked == name) {
                measure(backend, extent, &mut report);
            }
        }
    }
    report.print();
    if short || !asked.is_empty() {
        println!("Not all of it at full length, so docs/benchmarks.md stays as it is.");
    } else {
        report.write();
    }
}
