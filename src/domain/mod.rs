//! Plain types without I/O.

pub mod email;
pub mod id;
pub mod page;
pub mod password;
pub mod principal;
pub mod scope;
pub mod secret;
pub mod user;
