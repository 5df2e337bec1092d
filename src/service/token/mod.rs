//! Access tokens: sign-in, sign-out, revocation and introspection.

pub(crate) mod confirmation;
pub mod end;
pub mod introspect;
mod notices;
pub mod revoke;
pub mod sign_in;
