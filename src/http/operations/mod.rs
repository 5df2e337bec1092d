//! The endpoints for operators: index, health and metrics.

pub mod health;
pub mod index;
pub mod metrics;
