//! Forward-auth: a reverse proxy asks whether a request to another service is allowed.

pub mod authz;
pub mod original;
