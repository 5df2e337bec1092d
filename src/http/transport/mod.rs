//! Connections, and the middleware around every request.

pub mod connection_count;
pub mod connections;
pub mod cors;
pub mod early;
pub mod edge;
pub mod listener;
pub mod stream;
