//! Latchkey: a self-hosted authentication API in one process.
//!
//! The house, layer by layer. A request enters at the top, goes straight down and comes straight back; the same file
//! name means the same thing in each layer.
//!
//! | layer | what it does | what it may name |
//! |---|---|---|
//! | [`cli`] | commands of the binary | everything |
//! | [`server`] | settings → state → a running server | everything |
//! | [`http`] | URL table, guard, request and response bodies, OpenAPI | `service`, `domain`; alone: actix and paperclip |
//! | [`service`] | use cases, transactions, password hashing | `db`, `domain` |
//! | [`db`] | connections, schema, migrations, queries | `domain`; alone: diesel and r2d2 |
//! | [`domain`] | plain types without I/O | nothing above |
//!
//! [`config`], [`clock`], [`error`], [`logging`], [`metrics`], [`signals`] and [`tls`] are for all. `tests/arch.rs` checks these rules.

pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod domain;
pub mod error;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod service;
pub mod signals;
pub mod tls;
