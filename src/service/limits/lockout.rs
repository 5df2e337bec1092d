//! Lockout after failed sign-ins of an account. After several failures in a row each further attempt must wait, for
//! twice as long each time. After very many failures the account is stopped: every password is rejected until
//! the account is unlocked, or the purge removes the failures 30 days after the last one. Existing tokens and keys stay valid.
//!
//! Failures from a network from which the user has signed in before are counted separately from those of all other
//! networks, so other people cannot lock out the owner of an account.
//!
//! An attempt during a delay gets the same response as a wrong password, after the same time, even if the password is
//! right. So a locked account cannot be distinguished from one that does not exist. The attempt does not count as a
//! failure, so it does not lengthen the delay.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::config::LimitSettings;
use crate::db::sign_in_failures::{self, Failures};
use crate::db::{Conn, known_networks, users};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::network::Network;
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::service::limits::attempts::AttemptGuard;

/// Minimum number of seconds from the first failure to the one that stops an account, whatever the settings.
const MIN_STOP_SECONDS: i64 = 3_600;
/// Seconds after which a sign-in from a known network updates the time of that network.
const NETWORK_RENEWED_AFTER: i64 = 86_400;

/// The lockout settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockoutPolicy {
    /// Failures in a row after which attempts must wait.
    free_failures: i64,
    /// Longest delay, in seconds.
    max_delay: i64,
    /// Failures in a row that stop the account.
    stop_after: i64,
}

/// Why an attempt is rejected whatever its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockoutReason {
    /// The attempt came before the end of the delay.
    Throttled,
    /// The account is stopped after too many failures.
    Stopped,
}

impl LockoutReason {
    /// The name in the audit trail.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Stopped => "stopped",
        }
    }
}

impl LockoutPolicy {
    /// Applies the settings; `None` if limits are off.
    pub(crate) fn new(settings: &LimitSettings) -> Option<Self> {
        let LimitSettings { account_failures, account_delay_max, account_stop, .. } = *settings;
        settings.enabled.then_some(Self {
            free_failures: account_failures,
            max_delay: account_delay_max,
            stop_after: account_stop,
        })
    }

    /// Why an attempt at `now` is rejected, if it is.
    fn reason(self, failures: Failures, now: Timestamp) -> Option<LockoutReason> {
        let is_old =
            failures.first_at.is_none_or(|first_at| failures.last_at >= first_at.plus_seconds(MIN_STOP_SECONDS));
        if failures.count >= self.stop_after && is_old {
            return Some(LockoutReason::Stopped);
        }
        let doublings =
            u32::try_from(failures.count.checked_sub(self.free_failures).filter(|over| *over >= 0)?).ok()?;
        let delay = 1i64.checked_shl(doublings.min(62)).unwrap_or(i64::MAX).min(self.max_delay);
        (now < failures.last_at.plus_seconds(delay)).then_some(LockoutReason::Throttled)
    }

    /// How many attempts may run at the same time so that all of them can fail before the account must wait; at least
    /// 1.
    pub(crate) fn allowance(self, failures: i64) -> usize {
        usize::try_from(self.free_failures.saturating_sub(failures)).unwrap_or(1).max(1)
    }

    /// The failures to store after an attempt failed at `now`.
    fn after_failure(self, before: Failures, now: Timestamp) -> Failures {
        let first_at = if before.count == 0 { Some(now) } else { before.first_at };
        Failures { count: before.count.saturating_add(1), first_at, last_at: now }
    }
}

/// The account of a sign-in attempt, whether or not it exists, and the network of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptedAccount {
    pub(crate) account: Digest,
    network: Option<Digest>,
}

impl AttemptedAccount {
    /// The account with this user name, and the network of `client`.
    pub(crate) fn named(username: &str, user: Option<UserId>, client: Option<IpAddr>) -> Self {
        let account = match EmailAddress::parse(username) {
            Some(email) => Digest::of(email.key()),
            None => Digest::of(username),
        };
        Self::new(account, user, client)
    }

    /// The account of a user, and the network of `client`.
    pub(crate) fn of(user: &users::User, client: Option<IpAddr>) -> Self {
        Self::new(account_of(user), Some(user.id), client)
    }

    /// The account together with the network, as known networks are stored.
    pub(crate) fn network(self) -> Option<Digest> {
        self.network
    }

    fn new(account: Digest, user: Option<UserId>, client: Option<IpAddr>) -> Self {
        let owner = user.map_or_else(|| account.to_hex(), |user| user.to_string());
        let network = client.map(|client| Digest::of(&format!("{owner} {}", Network::of(client))));
        Self { account, network }
    }
}

/// The state of an account for an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockoutState {
    /// The counter for a failure: that of the account, or that of the account in a known network.
    pub(crate) counted_as: Digest,
    /// When the user last signed in from this network, if it is known.
    seen_at: Option<Timestamp>,
    /// The number of failures in a row.
    pub(crate) failures: i64,
    /// Why the attempt is rejected, if it is.
    pub(crate) reason: Option<LockoutReason>,
}

impl LockoutState {
    /// Whether the user has signed in from this network before.
    pub(crate) fn is_known_network(&self) -> bool {
        self.seen_at.is_some()
    }

    /// The state of any account if limits are off.
    pub(crate) fn without_limits(account: Digest) -> Self {
        Self { counted_as: account, seen_at: None, failures: 0, reason: None }
    }
}

/// An attempt on an account. Drop it after its outcome is stored: then the next attempt reads the failures.
pub(crate) struct Attempt {
    /// The account, whether or not it exists.
    pub(crate) account: Digest,
    /// The state of the account.
    pub(crate) state: LockoutState,
    _guard: Option<AttemptGuard>,
}

impl Attempt {
    pub(crate) fn new(account: Digest, state: LockoutState, guard: Option<AttemptGuard>) -> Self {
        Self { account, state, _guard: guard }
    }

    /// Why the attempt is rejected whatever its password, if it is.
    pub(crate) fn reason(&self) -> Option<LockoutReason> {
        self.state.reason
    }
}

/// The digest by which the failures of a user are counted.
pub(crate) fn account_of(user: &users::User) -> Digest {
    Digest::of(&user.email_key)
}

/// The outcome of a failed attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CountedFailure {
    /// The name of the reason for which the failure does not count.
    pub(crate) reason: Option<&'static str>,
    /// Whether this failure stops the account.
    pub(crate) stops: bool,
}

/// Counts a failure, unless the attempt is rejected by a delay or stop; other attempts may have failed since it began.
/// The work is the same in both cases, so its time reveals nothing.
pub(crate) fn count_failure(
    conn: &mut Conn,
    policy: LockoutPolicy,
    state: LockoutState,
    now: Timestamp,
) -> Result<CountedFailure, AppError> {
    let before = sign_in_failures::lock(conn, state.counted_as, now)?;
    let reason = state.reason.or_else(|| policy.reason(before, now));
    let after = if reason.is_some() { before } else { policy.after_failure(before, now) };
    sign_in_failures::store(conn, state.counted_as, after)?;
    let stops = reason.is_none() && policy.reason(after, now) == Some(LockoutReason::Stopped);
    Ok(CountedFailure { reason: reason.map(LockoutReason::name), stops })
}

/// Reads the state of the account for an attempt at `now`.
pub(crate) fn load_state(
    conn: &mut Conn,
    policy: Option<LockoutPolicy>,
    attempted: AttemptedAccount,
    now: Timestamp,
) -> Result<LockoutState, AppError> {
    let AttemptedAccount { account, network } = attempted;
    let Some(policy) = policy else {
        return Ok(LockoutState::without_limits(account));
    };
    let seen_at = network.map_or(Ok(None), |network| known_networks::seen_at(conn, network))?;
    let counted_as = network.filter(|_| seen_at.is_some()).unwrap_or(account);
    let found = sign_in_failures::find(conn, counted_as)?;
    let reason = found.and_then(|failures| policy.reason(failures, now));
    Ok(LockoutState { counted_as, seen_at, failures: found.map_or(0, |failures| failures.count), reason })
}

/// After a successful sign-in, resets the counter of the attempt and stores its network as known.
pub(crate) fn record_success(
    conn: &mut Conn,
    user: UserId,
    attempted: AttemptedAccount,
    state: LockoutState,
    now: Timestamp,
) -> Result<(), AppError> {
    if state.failures > 0 {
        sign_in_failures::delete(conn, state.counted_as)?;
    }
    let is_recent = state.seen_at.is_some_and(|seen_at| now < seen_at.plus_seconds(NETWORK_RENEWED_AFTER));
    match attempted.network {
        Some(network) if !is_recent => known_networks::record(conn, user, network, now, false),
        _ => Ok(()),
    }
}

/// Those of these users whose sign-ins are stopped at `now`, from unknown networks or from a known one.
pub(crate) fn stopped(
    conn: &mut Conn,
    policy: Option<LockoutPolicy>,
    users: &[users::User],
    now: Timestamp,
) -> Result<HashSet<UserId>, AppError> {
    let Some(policy) = policy.filter(|_| !users.is_empty()) else {
        return Ok(HashSet::new());
    };
    let accounts: Vec<Digest> = users.iter().map(account_of).collect();
    let owners: HashMap<String, UserId> =
        users.iter().zip(&accounts).map(|(user, account)| (account.to_hex(), user.id)).collect();
    let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
    let unknown = sign_in_failures::with_at_least(conn, &accounts, policy.stop_after)?;
    let unknown = unknown.into_iter().filter_map(|(account, failures)| Some((*owners.get(&account)?, failures)));
    let known = sign_in_failures::in_known_networks(conn, &ids, policy.stop_after)?;
    let is_stopped = |failures| policy.reason(failures, now) == Some(LockoutReason::Stopped);
    let stopped = unknown.chain(known).filter(|(_, failures)| is_stopped(*failures));
    Ok(stopped.map(|(user, _)| user).collect())
}

/// Returns the user, and whether their sign-ins are stopped at `now`.
pub(crate) fn with_stop(
    conn: &mut Conn,
    policy: Option<LockoutPolicy>,
    user: users::User,
    now: Timestamp,
) -> Result<(users::User, bool), AppError> {
    let is_stopped = !stopped(conn, policy, std::slice::from_ref(&user), now)?.is_empty();
    Ok((user, is_stopped))
}

/// Resets all counters of a user, for known networks and for all others. Returns whether there were failures.
pub(crate) fn forget_all(conn: &mut Conn, user: &users::User) -> Result<bool, AppError> {
    let mut accounts = known_networks::list(conn, user.id)?;
    accounts.push(account_of(user).to_hex());
    sign_in_failures::delete_all(conn, accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const POLICY: LockoutPolicy = LockoutPolicy { free_failures: 5, max_delay: 900, stop_after: 100 };

    #[test]
    fn delays_double_up_to_the_maximum_until_the_account_is_stopped() {
        let last_at = Clock::default().now();
        let reason = |count, after| {
            let failures = Failures { count, first_at: None, last_at };
            POLICY.reason(failures, last_at.plus_seconds(after)).map(LockoutReason::name)
        };
        for (count, delay) in [(5, 1), (6, 2), (7, 4), (14, 512), (15, 900), (99, 900)] {
            assert_eq!(reason(count, delay - 1), Some("throttled"), "{count}");
            assert_eq!(reason(count, delay), None, "{count}");
        }
        assert_eq!(reason(4, 0), None);
        assert_eq!(reason(100, 1_000_000), Some("stopped"));
    }

    #[test]
    fn no_account_is_stopped_within_an_hour_of_the_first_failure() {
        let short = LockoutPolicy { max_delay: 1, ..POLICY };
        for policy in [short, LockoutPolicy { stop_after: 5, ..short }] {
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
    fn as_many_attempts_run_at_once_as_may_fail_without_a_delay() {
        assert_eq!([0, 3, 4, 5, 50, i64::MAX].map(|failures| POLICY.allowance(failures)), [5, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn each_user_has_a_separate_counter_for_each_network() {
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
