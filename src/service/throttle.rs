//! Limits by client: buckets in memory that fill by the hour and hold so much at once.
//!
//! Each process has its own. What must be shared, the failures of an account, is in the database ([`super::failures`]).

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::clock::Clock;
use crate::config::{Limit, LimitSettings};
use crate::domain::audit::Call;
use crate::domain::id::{KeyId, UserId};
use crate::domain::network::Network;
use crate::domain::principal::Credential;
use crate::error::AppError;
use crate::metrics::Metrics;

/// Clients that are remembered for each limit. One that is forgotten begins anew.
const CLIENTS: usize = 50_000;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A sign-in, or a confirmation by password, that failed.
    FailedSignIn,
    /// A registration.
    Registration,
    /// An attempt to claim a key.
    Claim,
    /// A token or key that is not good.
    InvalidToken,
}

impl Act {
    /// The name of its setting.
    const fn name(self) -> &'static str {
        match self {
            Self::FailedSignIn => "failed_sign_ins",
            Self::Registration => "registrations",
            Self::Claim => "claims",
            Self::InvalidToken => "invalid_tokens",
        }
    }
}

/// All limits by client.
pub(super) struct Throttle {
    /// `None` when limits are off.
    buckets: Option<Buckets>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

struct Buckets {
    failed_sign_ins: Bucket<Network>,
    registrations: Bucket<Network>,
    claims: Bucket<Network>,
    invalid_tokens: Bucket<Network>,
    new_keys: Bucket<UserId>,
    refusals_by_network: Bucket<Network>,
    refusals_by_caller: Bucket<RefusedCaller>,
}

/// Whose refusals are counted together: of a user by token or own key, or of the holder of an issued key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RefusedCaller {
    User(UserId),
    IssuedKey(KeyId),
}

impl Throttle {
    pub(super) fn new(settings: &LimitSettings, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let buckets = settings.enabled.then(|| Buckets {
            failed_sign_ins: Bucket::new(settings.failed_sign_ins),
            registrations: Bucket::new(settings.registrations),
            claims: Bucket::new(settings.claims),
            invalid_tokens: Bucket::new(settings.invalid_tokens),
            new_keys: Bucket::new(settings.new_keys),
            refusals_by_network: Bucket::new(settings.refusals),
            refusals_by_caller: Bucket::new(settings.refusals),
        });
        Self { buckets, clock, metrics }
    }

    /// Counts an act of a client. Errors: [`AppError::TooMany`] if there were too many.
    pub(super) fn count(&self, act: Act, client: Option<IpAddr>) -> Result<(), AppError> {
        let taken = self.of(act, client).map_or(Ok(()), |(bucket, network)| bucket.take(network, self.clock.uptime()));
        self.told(act.name(), taken)
    }

    /// The same without counting.
    pub(super) fn check(&self, act: Act, client: Option<IpAddr>) -> Result<(), AppError> {
        let room = self.of(act, client).map_or(Ok(()), |(bucket, network)| bucket.look(network, self.clock.uptime()));
        self.told(act.name(), room)
    }

    /// How many acts of a client are left, at least one. Errors: [`AppError::TooMany`] if none is.
    pub(super) fn room(&self, act: Act, client: Option<IpAddr>) -> Result<usize, AppError> {
        self.check(act, client)?;
        let now = self.clock.uptime();
        Ok(self.of(act, client).map_or(usize::MAX, |(bucket, network)| bucket.room(network, now)))
    }

    /// Counts a key that somebody makes or issues.
    pub(super) fn count_key(&self, owner: UserId) -> Result<(), AppError> {
        let taken = self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.new_keys.take(owner, self.clock.uptime()));
        self.told("new_keys", taken)
    }

    /// Counts an attempt that is refused, of the caller and of the client.
    pub(super) fn count_refusal(&self, call: &Call) -> Result<(), AppError> {
        let Some(buckets) = &self.buckets else {
            return Ok(());
        };
        let now = self.clock.uptime();
        let caller = call.identity().map(|identity| match identity.credential {
            Credential::IssuedKey(key) => RefusedCaller::IssuedKey(key),
            Credential::Token(_) | Credential::OwnKey(_) => RefusedCaller::User(identity.user_id),
        });
        let network = call.origin.client.map(Network::of);
        let by_caller = caller.map_or(Ok(()), |caller| buckets.refusals_by_caller.take(caller, now));
        let taken =
            by_caller.and_then(|()| network.map_or(Ok(()), |network| buckets.refusals_by_network.take(network, now)));
        self.told("refusals", taken)
    }

    fn told(&self, limit: &'static str, answer: Result<(), AppError>) -> Result<(), AppError> {
        if answer.is_err() {
            self.metrics.throttled(limit);
        }
        answer
    }

    /// The bucket that counts, if there is one. Whoever has no address is on this machine's command line.
    fn of(&self, act: Act, client: Option<IpAddr>) -> Option<(&Bucket<Network>, Network)> {
        let buckets = self.buckets.as_ref()?;
        let bucket = match act {
            Act::FailedSignIn => &buckets.failed_sign_ins,
            Act::Registration => &buckets.registrations,
            Act::Claim => &buckets.claims,
            Act::InvalidToken => &buckets.invalid_tokens,
        };
        Some((bucket, Network::of(client?)))
    }
}

/// One limit for many clients, by the generic cell rate algorithm: of each client it is known when their bucket will be
/// full again.
struct Bucket<C> {
    full_again: Cache<C, Arc<AtomicU64>>,
    limit: Limit,
}

impl<C: Copy + Eq + Hash> Bucket<C> {
    fn new(limit: Limit) -> Self {
        Self { full_again: Cache::new(CLIENTS), limit }
    }

    fn take(&self, client: C, now: Duration) -> Result<(), AppError> {
        let now = micros(now);
        let found = self.full_again.get_or_insert_with(&client, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(cell) = found;
        let taken = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_again| {
            let after = full_again.max(now) + self.period();
            (after - now <= self.capacity()).then_some(after)
        });
        taken.map(drop).map_err(|full_again| self.too_many(full_again, now))
    }

    fn look(&self, client: C, now: Duration) -> Result<(), AppError> {
        let now = micros(now);
        let full_again = self.full_again.get(&client).map_or(0, |cell| cell.load(Ordering::Relaxed));
        if full_again.max(now) + self.period() - now <= self.capacity() {
            return Ok(());
        }
        Err(self.too_many(full_again, now))
    }

    /// How many more fit, or one.
    fn room(&self, client: C, now: Duration) -> usize {
        let now = micros(now);
        let full_again = self.full_again.get(&client).map_or(0, |cell| cell.load(Ordering::Relaxed));
        let left = self.capacity().saturating_sub(full_again.saturating_sub(now)) / self.period();
        usize::try_from(left).unwrap_or(usize::MAX).max(1)
    }

    /// Microseconds until one more fits.
    fn period(&self) -> u64 {
        3_600_000_000 / u64::from(self.limit.per_hour)
    }

    /// Microseconds in which an empty bucket fills.
    fn capacity(&self) -> u64 {
        self.period() * u64::from(self.limit.burst)
    }

    fn too_many(&self, full_again: u64, now: u64) -> AppError {
        let wait = (full_again + self.period()).saturating_sub(now + self.capacity());
        AppError::TooMany { limit: self.limit.burst, retry_after: wait.div_ceil(1_000_000).max(1) }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Durations;

    const HOUR: i64 = 3_600;

    fn bucket() -> Bucket<u8> {
        Bucket::new(Limit { burst: 3, per_hour: 60 })
    }

    fn wait(answer: Result<(), AppError>) -> u64 {
        match answer {
            Ok(()) => 0,
            Err(AppError::TooMany { limit: 3, retry_after }) => retry_after,
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn so_many_at_once_and_then_one_by_one() {
        let (bucket, second) = (bucket(), Duration::from_secs);
        for _ in 0..3 {
            assert_eq!(wait(bucket.look(1, second(10))), 0);
            assert_eq!(wait(bucket.take(1, second(10))), 0);
        }
        assert_eq!((wait(bucket.take(1, second(10))), wait(bucket.look(1, second(10)))), (60, 60));
        assert_eq!(wait(bucket.take(1, second(69))), 1);
        assert_eq!(wait(bucket.take(2, second(69))), 0, "somebody else has their own");
        assert_eq!(wait(bucket.take(1, second(70))), 0);
        assert_eq!(wait(bucket.take(1, second(70))), 60, "a refusal costs nothing");
    }

    #[test]
    fn an_idle_client_has_the_whole_burst_again_and_no_more() {
        let bucket = bucket();
        for start in [0, HOUR] {
            let now = Duration::from_secs(u64::try_from(start).unwrap());
            assert_eq!([0; 4].map(|_: i32| wait(bucket.take(1, now))), [0, 0, 0, 60]);
        }
    }

    #[test]
    fn limits_that_are_off_count_nothing_and_the_command_line_is_nobody() {
        let mut settings = crate::config::Settings::defaults().unwrap().limits;
        settings.registrations = Limit { burst: 1, per_hour: 1 };
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let metrics = Arc::new(Metrics::new(&Durations::default(), &Durations::default()));
        let on = Throttle::new(&settings, Clock::default(), Arc::clone(&metrics));
        assert!(on.count(Act::Registration, client).is_ok() && on.count(Act::Registration, client).is_err());
        assert!((0..9).all(|_| on.count(Act::Registration, None).is_ok()));
        settings.enabled = false;
        let off = Throttle::new(&settings, Clock::default(), Arc::clone(&metrics));
        assert!((0..9).all(|_| off.count(Act::Registration, client).is_ok()));
    }
}
