//! Tests of access tokens: sign-in, revocation, introspection and server metadata.

mod introspect;
mod metadata;
mod revoke;
mod sign_in;
