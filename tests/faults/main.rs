//! What the program does when it is killed or told to stop, when the database is away, when the disk is full, and when
//! clients are slow on purpose, very many, or look at the clock. Real processes and real databases, one test at a time:
//! `cargo test --test faults -- --ignored --nocapture --test-threads=1`, with `FAULT_CYCLES=20` at length.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]

#[expect(dead_code, unused_imports, unused_macros, reason = "the specification uses more of it")]
#[path = "../api/support/mod.rs"]
mod support;

mod acknowledged;
mod change_log;
mod client;
mod deep_lists;
mod flood;
mod full_disk;
mod guesses;
mod hang;
mod held;
mod kill;
mod large_accounts;
mod network;
mod outage;
mod outgoing;
mod pooler;
mod restart;
mod search;
mod server;
mod slow;
mod soak;
mod start;
mod stop;
mod timing;

/// How often something is repeated.
fn cycles() -> usize {
    std::env::var("FAULT_CYCLES").map_or(3, |cycles| cycles.parse().expect("FAULT_CYCLES is a number"))
}
