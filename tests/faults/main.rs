//! Fault tests with real processes and databases: kills, stops, database outages, full disks, slow or numerous clients,
//! and timing attacks. `tests/faults/run` runs those in `alone` one at a time, and the others side by side.
//! Set `FAULT_CYCLES=20` for a full run.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]

#[expect(dead_code, unused_imports, unused_macros, reason = "the api tests use more of it")]
#[path = "../api/support/mod.rs"]
mod support;

mod acknowledged;
mod alone;
mod client;
mod command;
mod erasure;
mod fill;
mod hang;
mod hosts;
mod mail;
mod network;
mod outage;
mod outgoing;
mod pooler;
mod prune;
mod resources;
mod server;
mod slow;
mod soak;
mod start;
mod stop;
mod transfer;

/// Number of repetitions.
fn cycles() -> usize {
    std::env::var("FAULT_CYCLES").map_or(3, |cycles| cycles.parse().expect("FAULT_CYCLES is a number"))
}
