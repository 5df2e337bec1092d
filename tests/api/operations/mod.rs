//! Tests of the index, health checks, metrics, the log, and outgoing connections.

mod health;
mod index;
mod log;
mod metrics;
mod outgoing;
