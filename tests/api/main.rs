//! The specification of the API. Each test has a real server on a free port and a database of its own, and runs on
//! SQLite and on PostgreSQL, in both status profiles.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "tests fail by panicking")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]
#![expect(clippy::allow_attributes, reason = "the modules that `specify!` makes differ in what they use")]

mod support;

#[path = "../../benches/targets/charts.rs"]
mod charts;

mod account;
mod audit;
mod benchmark_charts;
mod cli;
mod console;
mod db;
mod forward_auth;
mod guard;
mod identity;
mod key;
mod lifecycle;
mod limits;
mod mail;
mod openapi;
mod operations;
mod page;
mod registration;
mod security_page;
mod session;
mod stats;
mod token;
mod transfer;
mod transport;
mod wire;
