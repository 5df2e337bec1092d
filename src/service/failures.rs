//! Failed sign-ins of an account: after a few in a row each further attempt has to wait, longer each time, and after
//! very many no password opens the account until somebody frees it. What lives already, tokens and keys, is untouched.
//!
//! Failures from a network where the user signed in before are counted apart from those of all other networks, so
//! strangers cannot lock an account's owner out.
//!
//! An attempt that should have waited is answered like a wrong password, after the same time and without a look at the
//! result, so nothing tells an account that waits from one that is not there. It does not count, so it lengthens nothing.

use std::net::IpAddr;

use super::Service;
use super::attempts::AttemptGuard;
use super::throttle::Act;
use crate::clock::Timestamp;
use crate::config::LimitSettings;
use crate::db::sign_in_failures::{self, Failures};
use crate::db::{Conn, known_networks, users};
use crate::domain::audit::{Call, Event};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::network::Network;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// Seconds from the first failure to the one that stops an account, at least, whatever the settings say.
const STOP_AFTER: i64 = 3_600;
/// Networks that are known of each user at most.
pub(super) const NETWORKS_MAX: i64 = 20;
/// Seconds after which a known network is noted again.
const NETWORK_RENEWED_AFTER: i64 = 86_400;

/// When an account has to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockoutPolicy {
    free: i64,
    longest: i64,
    stop: i64,
}

/// Why an attempt is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockoutReason {
    /// It came too soon after the last failure.
    Throttled,
    /// The account failed too often.
    Stopped,
}

impl LockoutReason {
    /// The name in the audit trail.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Stopped => "stopped",
        }
    }
}

impl LockoutPolicy {
    /// As the settings say; `None` when limits are off.
    pub(super) fn new(settings: &LimitSettings) -> Option<Self> {
        let LimitSettings { account_failures, account_delay_max, account_stop, .. } = *settings;
        settings.enabled.then_some(Self { free: account_failures, longest: account_delay_max, stop: account_stop })
    }

    /// Why an attempt at `now` is not looked at, if it is not.
    fn reason(self, failures: Failures, now: Timestamp) -> Option<LockoutReason> {
        let lasted = failures.first_at.is_none_or(|first_at| failures.last_at >= first_at.plus_seconds(STOP_AFTER));
        if failures.count >= self.stop && lasted {
            return Some(LockoutReason::Stopped);
        }
        let doublings = u32::try_from(failures.count.checked_sub(self.free).filter(|over| *over >= 0)?).ok()?;
        let delay = 1i64.checked_shl(doublings.min(62)).unwrap_or(i64::MAX).min(self.longest);
        (now < failures.last_at.plus_seconds(delay)).then_some(LockoutReason::Throttled)
    }

    /// How many attempts may run at once: if all of them fail, the account has to wait, and not before.
    fn allowance(self, failures: i64) -> usize {
        usize::try_from(self.free.saturating_sub(failures)).unwrap_or(1).max(1)
    }

    /// What is stored when an attempt fails at `now`.
    fn after_failure(self, before: Failures, now: Timestamp) -> Failures {
        let first_at = if before.count == 0 { Some(now) } else { before.first_at };
        Failures { count: before.count.saturating_add(1), first_at, last_at: now }
    }

    /// Failures after which only somebody's hand frees an account.
    pub(super) fn stop(self) -> i64 {
        self.stop
    }
}

/// An account that somebody tries to open, whether or not it exists, and from which network.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptedAccount {
    account: Digest,
    network: Option<Digest>,
}

impl AttemptedAccount {
    /// The account that a user name means, from the network of `client`.
    pub(super) fn named(username: &str, user: Option<UserId>, client: Option<IpAddr>) -> Self {
        let account = match EmailAddress::parse(username) {
            Some(email) => Digest::of(email.key()),
            None => Digest::of(username),
        };
        Self::new(account, user, client)
    }

    /// The account of a user, from the network of `client`.
    pub(super) fn of(user: &users::User, client: Option<IpAddr>) -> Self {
        Self::new(account_of(user), Some(user.id), client)
    }

    fn new(account: Digest, user: Option<UserId>, client: Option<IpAddr>) -> Self {
        let owner = user.map_or_else(|| account.to_hex(), |user| user.to_string());
        let network = client.map(|client| Digest::of(&format!("{owner} {}", Network::of(client))));
        Self { account, network }
    }
}

/// What the failures of an account mean for an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Under what its failure counts: the account, or the account from a known network.
    counted_as: Digest,
    /// When the network was last seen, if it is known.
    seen_at: Option<Timestamp>,
    /// How many attempts have failed so far.
    pub(super) failures: i64,
    /// Why the attempt is not looked at.
    pub(super) reason: Option<LockoutReason>,
}

/// An attempt on an account. Drop it when its outcome is stored: then the next one looks at the failures.
pub(super) struct Attempt {
    account: Digest,
    standing: Standing,
    _guard: Option<AttemptGuard>,
}

impl Attempt {
    /// Why its password is not looked at.
    pub(super) fn reason(&self) -> Option<LockoutReason> {
        self.standing.reason
    }
}

/// The account of a user.
pub(super) fn account_of(user: &users::User) -> Digest {
    Digest::of(&user.email_key)
}

impl Service {
    /// Begins an attempt on an account when few enough others are under way.
    ///
    /// Errors: [`AppError::Busy`] if too many wait already.
    pub(super) async fn begin_attempt(&self, attempted: AttemptedAccount) -> Result<Attempt, AppError> {
        let (policy, account) = (self.lockout, attempted.account);
        let look = async || {
            let now = self.clock.now();
            self.db.read(move |conn| standing(conn, policy, attempted, now)).await
        };
        let mut standing = look().await?;
        let Some(policy) = policy else {
            return Ok(Attempt { account, standing, _guard: None });
        };
        let guard = self.attempts.begin(standing.counted_as)?;
        let mut most = policy.allowance(0);
        loop {
            guard.fewer_ahead_than(most).await;
            // Only now: what failed before has been stored, and what may fail still is ahead.
            standing = look().await?;
            if standing.reason.is_some() {
                return Ok(Attempt { account, standing, _guard: None });
            }
            most = policy.allowance(standing.failures);
            if guard.ahead() < most {
                return Ok(Attempt { account, standing, _guard: Some(guard) });
            }
        }
    }

    /// Waits until so few attempts of this client are under way that all could fail without its limit being reached. Drop
    /// what this returns when the outcome is counted.
    ///
    /// Errors: [`AppError::TooMany`] if the limit is reached; [`AppError::Busy`] if too many wait already.
    pub(super) async fn begin_of_client(&self, client: Option<IpAddr>) -> Result<Option<AttemptGuard>, AppError> {
        let Some(network) = client.filter(|_| self.lockout.is_some()).map(Network::of) else {
            return Ok(None);
        };
        let guard = self.client_attempts.begin(Digest::of(&network.to_string()))?;
        loop {
            guard.fewer_ahead_than(self.throttle.room(Act::FailedSignIn, client)?).await;
            if guard.ahead() < self.throttle.room(Act::FailedSignIn, client)? {
                return Ok(Some(guard));
            }
        }
    }

    /// Records a failed sign-in and counts it, unless it should have waited.
    pub(super) async fn failed_sign_in(
        &self,
        call: &Call,
        attempt: Attempt,
        event: Event,
        error: AppError,
    ) -> AppError {
        // Of this client too, whose next attempt tells them so; this one is answered like any other.
        let _ = self.throttle.count(Act::FailedSignIn, call.origin.client);
        let (policy, standing) = (self.lockout, attempt.standing);
        let count = move |conn: &mut Conn, now| match policy {
            None => Ok(None),
            Some(policy) => count_failure(conn, policy, standing, now),
        };
        self.turned_down_at(call, attempt.account, event, error, count).await
    }
}

/// Counts a failure, unless the account has to wait: others may have failed since the attempt began. Why it does not
/// count. The work is the same in either case, or the time would tell.
fn count_failure(
    conn: &mut Conn,
    policy: LockoutPolicy,
    standing: Standing,
    now: Timestamp,
) -> Result<Option<&'static str>, AppError> {
    let before = sign_in_failures::lock(conn, standing.counted_as, now)?;
    let reason = standing.reason.or_else(|| policy.reason(before, now));
    let after = if reason.is_some() { before } else { policy.after_failure(before, now) };
    sign_in_failures::store(conn, standing.counted_as, after)?;
    Ok(reason.map(LockoutReason::name))
}

/// How an attempt at `now` stands.
pub(super) fn standing(
    conn: &mut Conn,
    policy: Option<LockoutPolicy>,
    attempted: AttemptedAccount,
    now: Timestamp,
) -> Result<Standing, AppError> {
    let AttemptedAccount { account, network } = attempted;
    let Some(policy) = policy else {
        return Ok(Standing { counted_as: account, seen_at: None, failures: 0, reason: None });
    };
    let seen_at = network.map_or(Ok(None), |network| known_networks::seen_at(conn, network))?;
    let counted_as = network.filter(|_| seen_at.is_some()).unwrap_or(account);
    let found = sign_in_failures::find(conn, counted_as)?;
    let reason = found.and_then(|failures| policy.reason(failures, now));
    Ok(Standing { counted_as, seen_at, failures: found.map_or(0, |failures| failures.count), reason })
}

/// Forgets the failures with which a sign-in counted that has succeeded, and remembers its network.
pub(super) fn succeeded(
    conn: &mut Conn,
    user: UserId,
    attempted: AttemptedAccount,
    standing: Standing,
    now: Timestamp,
) -> Result<(), AppError> {
    if standing.failures > 0 {
        sign_in_failures::forget(conn, standing.counted_as)?;
    }
    let is_noted = standing.seen_at.is_some_and(|seen_at| now < seen_at.plus_seconds(NETWORK_RENEWED_AFTER));
    match attempted.network {
        Some(network) if !is_noted => known_networks::remember(conn, user, network, now, NETWORKS_MAX),
        _ => Ok(()),
    }
}

/// Forgets all failures of a user, from known networks and from all others; whether there were some.
pub(super) fn forget_all(conn: &mut Conn, user: &users::User) -> Result<bool, AppError> {
    let mut accounts = known_networks::list(conn, user.id)?;
    accounts.push(account_of(user).to_hex());
    sign_in_failures::forget_all(conn, accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const POLICY: LockoutPolicy = LockoutPolicy { free: 5, longest: 900, stop: 100 };

    #[test]
    fn delays_double_up_to_the_longest_and_then_there_is_an_end() {
        let last_at = Clock::default().now();
        let held = |count, after| {
            let failures = Failures { count, first_at: None, last_at };
            POLICY.reason(failures, last_at.plus_seconds(after)).map(LockoutReason::name)
        };
        for (count, delay) in [(5, 1), (6, 2), (7, 4), (14, 512), (15, 900), (99, 900)] {
            assert_eq!(held(count, delay - 1), Some("throttled"), "{count}");
            assert_eq!(held(count, delay), None, "{count}");
        }
        assert_eq!(held(4, 0), None);
        assert_eq!(held(100, 1_000_000), Some("stopped"));
    }

    #[test]
    fn nothing_stops_an_account_within_an_hour_of_the_first_failure() {
        for policy in [LockoutPolicy { longest: 1, ..POLICY }, LockoutPolicy { free: 5, longest: 1, stop: 5 }] {
            let start = Clock::default().now();
            let mut failures = Failures { count: 0, first_at: None, last_at: start };
            for second in 0..=3_600 {
                let now = start.plus_seconds(second);
                assert_ne!(policy.reason(failures, now), Some(LockoutReason::Stopped), "after {second} s");
                if policy.reason(failures, now).is_none() {
                    failures = policy.after_failure(failures, now);
                }
            }
            let later = start.plus_seconds(1_000_000);
            assert_eq!(policy.reason(failures, later), Some(LockoutReason::Stopped), "the failure after an hour does");
        }
    }

    #[test]
    fn as_many_attempts_run_at_once_as_may_fail() {
        assert_eq!([0, 3, 4, 5, 50, i64::MAX].map(|failures| POLICY.allowance(failures)), [5, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn a_user_has_another_counter_in_each_network_whatever_their_address() {
        let from = |user, last| {
            let client = Some(IpAddr::from([192, 0, 2, last]));
            AttemptedAccount::named("ada@example.org", user, client).network.unwrap()
        };
        let ada = Some(UserId(1));
        assert_eq!(
            from(ada, 1),
            AttemptedAccount::new(Digest::of("x"), ada, Some([192, 0, 2, 1].into())).network.unwrap()
        );
        assert!(
            from(ada, 1) != from(ada, 2) && from(ada, 1) != from(Some(UserId(2)), 1) && from(ada, 1) != from(None, 1)
        );
    }
}
