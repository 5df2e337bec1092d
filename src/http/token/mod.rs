//! The endpoints for access tokens: sign-in and sign-out, revocation, introspection, and OAuth 2.0 metadata.

pub mod introspect;
pub mod metadata;
pub mod revoke;
pub mod sign_in;
