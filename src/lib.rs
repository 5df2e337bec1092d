//! Latchkey: a self-hosted authentication API in one process.
//!
//! The crate has the following layers. A layer uses only the layers below it, and modules with the same name in
//! different layers belong to the same feature.
//!
//! | Layer | Contents | May import |
//! |---|---|---|
//! | [`cli`] | commands of the binary | everything |
//! | [`server`] | settings → state → a running server | everything |
//! | [`http`] | routes, guard, bodies, OpenAPI | `service`, `domain`; no other layer imports actix and paperclip |
//! | [`service`] | use cases, transactions, password hashing | `db`, `domain` |
//! | [`db`] | connections, schema, migrations, queries | `domain`; no other layer imports diesel and r2d2 |
//! | [`domain`] | domain types without I/O | no other layer |
//!
//! The core of bcrypt is a separate package, `crates/bcrypt-lanes`, so that it is optimized in debug builds too.
//!
//! Every layer may import [`config`], [`clock`], [`error`], [`logging`], [`metrics`], [`part_file`], [`signals`]
//! and [`tls`].
//! `tests/arch.rs` checks these rules.

pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod domain;
pub mod error;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod part_file;
pub mod server;
pub mod service;
pub mod signals;
pub mod tls;
