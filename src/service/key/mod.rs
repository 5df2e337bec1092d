//! API keys: one's own, and those that are issued to others.

pub mod grant;
pub mod issued;
pub mod own;
mod repetition;
