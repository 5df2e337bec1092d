//! Tests of shutdown, clock changes, and the purge of expired rows.

mod clock;
mod purge;
mod shutdown;
