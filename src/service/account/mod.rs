//! Accounts: the caller's own account, and the management of all users.

mod acceptance;
pub mod creation;
pub mod email_change;
pub mod invitations;
mod links;
pub mod me;
pub mod owned;
pub mod password_reset;
pub mod registration;
pub mod roles;
pub mod user_search;
pub mod users;
pub mod verification;
