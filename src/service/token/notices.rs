//! Notices to users about sign-ins that may not be theirs.

use std::net::IpAddr;

use crate::db::{known_networks, users};
use crate::domain::mail::MailKind;
use crate::domain::network::Place;
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::service::audit::change::Change;
use crate::service::lifecycle::purge::NETWORK_RETENTION;
use crate::service::limits::lockout::LockoutState;
use crate::service::mail::Mail;

/// Failed sign-ins in a row after which the user gets a notice of a successful one.
const FAILURES: i64 = 5;
/// Seconds after which a sign-in from a known place updates its time.
const PLACE_RENEWED_AFTER: i64 = 86_400;

/// Requests the notices about a successful sign-in. Call this before the networks of the sign-in are stored. `state` is
/// the state of the account before it.
pub(super) fn request(
    change: &mut Change<'_>,
    mail: &Mail,
    user: &users::User,
    state: &LockoutState,
) -> Result<(), AppError> {
    if state.failures >= FAILURES {
        mail.notify(change, MailKind::SignInAfterFailures, user)?;
    }
    // Also without an SMTP server, so that places are known when one is set.
    let is_new = note_place(change, user, change.client())?;
    if is_new && !state.is_known_network() {
        mail.notify(change, MailKind::SignInFromNewNetwork, user)?;
    }
    Ok(())
}

/// Stores the place of a sign-in. Returns whether it is new, although others are known, or were before they expired.
fn note_place(change: &mut Change<'_>, user: &users::User, client: Option<IpAddr>) -> Result<bool, AppError> {
    let Some(client) = client else {
        return Ok(false);
    };
    let place = Digest::of(&format!("{} place {}", user.id, Place::of(client)));
    let seen_at = known_networks::seen_at(change.conn, place)?;
    let is_dormant = change.now >= user.created_at.plus_seconds(NETWORK_RETENTION);
    let is_new = seen_at.is_none() && (is_dormant || known_networks::is_any_known(change.conn, user.id)?);
    if seen_at.is_none_or(|seen_at| change.now >= seen_at.plus_seconds(PLACE_RENEWED_AFTER)) {
        known_networks::record(change.conn, user.id, place, change.now, true)?;
    }
    Ok(is_new)
}
