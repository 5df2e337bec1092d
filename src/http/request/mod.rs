//! The data of a request that are known before it is interpreted: id, client, connection and log line.

pub mod access_log;
pub mod activity;
pub mod client;
pub mod log_sampling;
pub mod request_id;
