//! Tests of client connections and TLS.

mod connections;
mod tls;
