//! Plain types without I/O: what they hold has been checked, or they could not exist.

pub mod email;
pub mod id;
pub mod password;
pub mod principal;
pub mod scope;
pub mod secret;
