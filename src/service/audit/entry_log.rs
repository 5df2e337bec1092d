//! The log lines of audit entries.

use crate::domain::audit::{Actor, ClientInfo, Event, Outcome};

/// Logs an audit entry, for installations that collect logs. Entries without a request id, such as those of the command
/// line, are not logged.
pub(crate) fn log_entry(by: &Actor, event: &Event, outcome: Outcome, client_info: &ClientInfo) {
    let Some(request_id) = &client_info.request_id else {
        return;
    };
    let target = event.target.as_ref().map(ToString::to_string).unwrap_or_default();
    log::info!(
        target: "latchkey::audit",
        request_id = request_id.as_ref(), action = event.action.name(), outcome = outcome.name(),
        actor = by.actor.as_str(), credential = by.credential.as_str(), on = target.as_str(),
        detail = event.detail.as_deref().unwrap_or_default();
        "audit"
    );
}
