//! The endpoints for API keys: own keys, which users create for themselves, and keys issued to others.

pub mod issued;
pub mod own;
