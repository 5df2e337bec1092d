//! Failed sign-ins of an account: after a few in a row each further attempt has to wait, longer each time, and after
//! very many no password opens the account until somebody frees it. What lives already, tokens and keys, is untouched.
//!
//! An attempt that should have waited is answered like a wrong password, after the same time and without a look at the
//! result, so nothing tells an account that waits from one that is not there. It does not count, so it lengthens nothing.

use super::Service;
use super::throttle::Act;
use crate::clock::Timestamp;
use crate::config::LimitSettings;
use crate::db::sign_in_failures::{self, Failures};
use crate::db::{Conn, users};
use crate::domain::audit::{Call, Event};
use crate::domain::email::EmailAddress;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// When an account has to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    free: i64,
    longest: i64,
    stop: i64,
}

impl Patience {
    /// As the settings say; `None` when limits are off.
    pub(super) fn new(settings: &LimitSettings) -> Option<Self> {
        let LimitSettings { account_failures, account_delay_max, account_stop, .. } = *settings;
        settings.enabled.then_some(Self { free: account_failures, longest: account_delay_max, stop: account_stop })
    }

    /// Why an attempt at `now` is not looked at, if it is not.
    fn reason(self, failures: Failures, now: Timestamp) -> Option<&'static str> {
        if failures.count >= self.stop {
            return Some("stopped");
        }
        let doublings = u32::try_from(failures.count.checked_sub(self.free).filter(|over| *over >= 0)?).ok()?;
        let delay = 1i64.checked_shl(doublings.min(62)).unwrap_or(i64::MAX).min(self.longest);
        (now < failures.last_at.plus_seconds(delay)).then_some("throttled")
    }

    /// Failures after which only somebody's hand frees an account.
    pub(super) fn stop(self) -> i64 {
        self.stop
    }
}

/// Why an attempt is not looked at, and when the last one failed that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// `throttled` or `stopped`.
    pub(super) reason: &'static str,
    last_at: Timestamp,
}

/// The account that a user name means, whether or not there is one.
pub(super) fn account(username: &str) -> Digest {
    match EmailAddress::parse(username) {
        Some(email) => Digest::of(email.key()),
        None => Digest::of(username),
    }
}

/// The account of a user.
pub(super) fn account_of(user: &users::User) -> Digest {
    Digest::of(&user.email_key)
}

impl Service {
    /// Records a failed sign-in and counts it, unless it should have waited.
    pub(super) async fn failed_sign_in(
        &self,
        call: &Call,
        account: Digest,
        attempt: Event,
        held: Option<Held>,
        error: AppError,
    ) -> AppError {
        // Of this client too, whose next attempt tells them so; this one is answered like any other.
        let _ = self.throttle.count(Act::FailedSignIn, call.origin.client);
        let attempt = match held {
            Some(held) => attempt.detail(held.reason),
            None => attempt,
        };
        let on = self.patience.is_some();
        let count = move |conn: &mut Conn, now| match held {
            _ if !on => Ok(()),
            None => sign_in_failures::count(conn, account, 1, now),
            // The same work for nothing, or the time would tell.
            Some(held) => sign_in_failures::count(conn, account, 0, held.last_at),
        };
        self.turned_down_and(call, attempt, error, count).await
    }
}

/// How often this account has failed, and why an attempt at `now` is not looked at, if it is not.
pub(super) fn look(
    conn: &mut Conn,
    patience: Option<Patience>,
    account: Digest,
    now: Timestamp,
) -> Result<(i64, Option<Held>), AppError> {
    let Some(patience) = patience else {
        return Ok((0, None));
    };
    let found = sign_in_failures::find(conn, account)?;
    Ok(found.map_or((0, None), |failures| {
        let held = patience.reason(failures, now).map(|reason| Held { reason, last_at: failures.last_at });
        (failures.count, held)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn delays_double_up_to_the_longest_and_then_there_is_an_end() {
        let patience = Patience { free: 5, longest: 900, stop: 100 };
        let last_at = Clock::default().now();
        let held = |count, after| patience.reason(Failures { count, last_at }, last_at.plus_seconds(after));
        for (count, delay) in [(5, 1), (6, 2), (7, 4), (14, 512), (15, 900), (99, 900)] {
            assert_eq!(held(count, delay - 1), Some("throttled"), "{count}");
            assert_eq!(held(count, delay), None, "{count}");
        }
        assert_eq!(held(4, 0), None);
        assert_eq!(held(100, 1_000_000), Some("stopped"));
    }
}
