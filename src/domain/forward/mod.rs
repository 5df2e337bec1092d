//! Forward authentication: requests to other services, which a proxy holds back until `/authz` allows them, and the
//! rules that decide.
//!
//! Ambiguous input is rejected, because the service behind the proxy could interpret it differently.

mod request;
mod rules;

pub use self::request::{Host, Method, OriginalRequest, PlainPath, TargetPath};
pub use self::rules::{Access, Rule, Rules, scope_list};
