//! Plain types without I/O.

pub mod audit;
pub mod email;
pub mod forward;
pub mod id;
pub mod key;
pub mod network;
pub mod page;
pub mod password;
pub mod principal;
pub mod role;
pub mod scope;
pub mod secret;
pub mod text;
pub mod user;
