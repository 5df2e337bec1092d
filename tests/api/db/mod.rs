//! Tests of the database: connections, transactions, migrations and roles.

mod engine;
mod least_role;
mod outcome;
mod races;
mod tls;
