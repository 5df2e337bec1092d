//! Tests of authentication and authorization on every route.

mod canary;
mod credentials;
mod levels;
mod routes;
