//! Tests of the audit trail.

mod history;
mod trail;
