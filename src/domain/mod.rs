//! Domain types and their rules, without I/O.

// First, so that the modules below can use its macro.
#[macro_use]
pub mod id;

pub mod audit;
pub mod email;
pub mod forward;
pub mod key;
pub mod mail;
pub mod network;
pub mod page;
pub mod password;
pub mod principal;
pub mod role;
pub mod roles;
pub mod scope;
pub mod secret;
pub mod session;
pub mod stats;
pub mod text;
pub mod user;
