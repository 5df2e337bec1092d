//! Tests of API keys.

mod issued;
mod own;
mod repetition;
