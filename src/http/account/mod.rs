//! The endpoints for user accounts: the caller's own account, registration and administration.

pub mod acceptance;
mod client_language;
pub mod email_change;
pub mod invitations;
pub mod me;
pub mod password_reset;
pub mod register;
pub mod users;
pub mod verification;
