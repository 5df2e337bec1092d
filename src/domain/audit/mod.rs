//! Types of the audit trail: who did what to which object, with which credential, at what level, and with which
//! outcome. `docs/audit.md` describes the entries.

mod action;
mod caller;
mod entry;

pub use self::action::{Action, Outcome, Target, TrailPart};
pub use self::caller::{Caller, ClientInfo, RequestContext};
pub use self::entry::{Actor, Entry, Event, Filter};
