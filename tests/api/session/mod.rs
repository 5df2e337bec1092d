//! Browser sessions.

mod cookie;
mod end;
mod expiry;
mod list;
mod sign_in;
