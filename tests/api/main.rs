//! The specification of the API. Each test has a real server on a free port and a database of its own, and runs on
//! SQLite and on PostgreSQL, in both status profiles.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "tests fail by panicking")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]
#![expect(clippy::allow_attributes, reason = "the modules that `specify!` makes differ in what they use")]

mod support;

mod account;
mod audit;
mod authz;
mod browser;
mod cache;
mod canary;
mod cleanup;
mod cli;
mod clock;
mod connections;
mod database;
mod database_tls;
mod guard;
mod headers;
mod health;
mod history;
mod input;
mod introspect;
mod invalidation;
mod issue;
mod key;
mod least_role;
mod levels;
mod limits;
mod lists;
mod log;
mod lookup;
mod metadata;
mod metrics;
mod openapi;
mod outcome;
mod outgoing;
mod page;
mod password;
mod purge;
mod races;
mod register;
mod repeat;
mod revoke;
mod routes;
mod security_page;
mod settings;
mod stop;
mod text;
mod tls;
mod token;
mod user;
