//! Tests of the identity cache and its invalidation.

mod cache;
mod invalidation;
mod lookup;
