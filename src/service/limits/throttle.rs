//! Rate limits by client and by user: buckets in memory, each with a burst and a rate per hour.
//!
//! Each process has its own buckets. The failures of an account must be shared, so they are in the database
//! ([`crate::service::limits::lockout`]).

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::clock::Clock;
use crate::config::{Limit, LimitSettings};
use crate::domain::audit::RequestContext;
use crate::domain::id::{KeyId, UserId};
use crate::domain::network::Network;
use crate::domain::principal::Credential;
use crate::error::AppError;
use crate::metrics::Metrics;

/// Maximum number of clients in memory per limit. An evicted client starts with a full burst.
const MAX_CLIENTS: usize = 50_000;

/// A limited operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateLimit {
    /// A failed sign-in, or a failed confirmation by password.
    FailedSignIn,
    /// A registration.
    Registration,
    /// An attempt to claim a key.
    Claim,
    /// A request for a mail to any address. See also [`Throttle::count_mail_of_user`].
    Mail,
    /// A request with an invalid token, key or link.
    InvalidToken,
}

impl RateLimit {
    /// The name of its setting.
    const fn name(self) -> &'static str {
        match self {
            Self::FailedSignIn => "failed_sign_ins",
            Self::Registration => "registrations",
            Self::Claim => "claims",
            Self::Mail => "mails",
            Self::InvalidToken => "invalid_tokens",
        }
    }
}

/// All rate limits of this process.
pub(crate) struct Throttle {
    /// `None` if limits are off.
    buckets: Option<Buckets>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

struct Buckets {
    failed_sign_ins: Bucket<Network>,
    registrations: Bucket<Network>,
    claims: Bucket<Network>,
    mails: Bucket<Network>,
    mails_by_user: Bucket<UserId>,
    invalid_tokens: Bucket<Network>,
    new_keys: Bucket<UserId>,
    refusals_by_network: Bucket<Network>,
    refusals_by_caller: Bucket<RefusedCaller>,
}

/// The caller for whom refusals are counted: a user with a token or own keys, or the holder of an issued key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RefusedCaller {
    User(UserId),
    IssuedKey(KeyId),
}

impl Throttle {
    pub(crate) fn new(settings: &LimitSettings, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let buckets = settings.enabled.then(|| Buckets {
            failed_sign_ins: Bucket::new(settings.failed_sign_ins),
            registrations: Bucket::new(settings.registrations),
            claims: Bucket::new(settings.claims),
            mails: Bucket::new(settings.mails),
            mails_by_user: Bucket::new(settings.mails),
            invalid_tokens: Bucket::new(settings.invalid_tokens),
            new_keys: Bucket::new(settings.new_keys),
            refusals_by_network: Bucket::new(settings.refusals),
            refusals_by_caller: Bucket::new(settings.refusals),
        });
        Self { buckets, clock, metrics }
    }

    /// Counts an operation of a client. A client without an address (the command line) is not limited.
    ///
    /// Errors: [`AppError::TooMany`] if the limit is reached.
    pub(crate) fn count(&self, limit: RateLimit, client: Option<IpAddr>) -> Result<(), AppError> {
        let taken =
            self.bucket(limit, client).map_or(Ok(()), |(bucket, network)| bucket.take(network, self.clock.uptime()));
        self.report(limit.name(), taken)
    }

    /// Like [`count`](Self::count), without counting the operation.
    pub(crate) fn check(&self, limit: RateLimit, client: Option<IpAddr>) -> Result<(), AppError> {
        let checked =
            self.bucket(limit, client).map_or(Ok(()), |(bucket, network)| bucket.check(network, self.clock.uptime()));
        self.report(limit.name(), checked)
    }

    /// How many operations a client has left, at least one.
    ///
    /// Errors: [`AppError::TooMany`] if the limit is reached.
    pub(crate) fn remaining(&self, limit: RateLimit, client: Option<IpAddr>) -> Result<usize, AppError> {
        self.check(limit, client)?;
        let now = self.clock.uptime();
        Ok(self.bucket(limit, client).map_or(usize::MAX, |(bucket, network)| bucket.remaining(network, now)))
    }

    /// Counts a key that a user creates or issues.
    ///
    /// Errors: [`AppError::TooMany`] if the limit is reached.
    pub(crate) fn count_key(&self, owner: UserId) -> Result<(), AppError> {
        let taken = self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.new_keys.take(owner, self.clock.uptime()));
        self.report("new_keys", taken)
    }

    /// Counts a mail to any address that a user requests, for the user and for the client.
    ///
    /// Errors: [`AppError::TooMany`] if either limit is reached.
    pub(crate) fn count_mail_of_user(&self, user: UserId, client: Option<IpAddr>) -> Result<(), AppError> {
        let now = self.clock.uptime();
        let taken = self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.mails_by_user.take(user, now));
        self.report(RateLimit::Mail.name(), taken)?;
        self.count(RateLimit::Mail, client)
    }

    /// Counts a refused attempt, for the caller and for the client.
    ///
    /// Errors: [`AppError::TooMany`] if either limit is reached.
    pub(crate) fn count_refusal(&self, context: &RequestContext) -> Result<(), AppError> {
        let Some(buckets) = &self.buckets else {
            return Ok(());
        };
        let now = self.clock.uptime();
        let caller = context.identity().map(|identity| match identity.credential {
            Credential::IssuedKey(key) => RefusedCaller::IssuedKey(key),
            Credential::Token(_) | Credential::Session(_) | Credential::OwnKey(_) => {
                RefusedCaller::User(identity.user_id)
            }
        });
        let network = context.client_info.client.map(Network::of);
        let by_caller = caller.map_or(Ok(()), |caller| buckets.refusals_by_caller.take(caller, now));
        let taken =
            by_caller.and_then(|()| network.map_or(Ok(()), |network| buckets.refusals_by_network.take(network, now)));
        self.report("refusals", taken)
    }

    /// Counts a rejection in the metrics, under the name of the limit.
    fn report(&self, limit: &'static str, result: Result<(), AppError>) -> Result<(), AppError> {
        if result.is_err() {
            self.metrics.throttled(limit);
        }
        result
    }

    /// The bucket and the key of a client; `None` if limits are off or the client has no address.
    fn bucket(&self, limit: RateLimit, client: Option<IpAddr>) -> Option<(&Bucket<Network>, Network)> {
        let buckets = self.buckets.as_ref()?;
        let bucket = match limit {
            RateLimit::FailedSignIn => &buckets.failed_sign_ins,
            RateLimit::Registration => &buckets.registrations,
            RateLimit::Claim => &buckets.claims,
            RateLimit::Mail => &buckets.mails,
            RateLimit::InvalidToken => &buckets.invalid_tokens,
        };
        Some((bucket, Network::of(client?)))
    }
}

/// One limit for many clients, by the generic cell rate algorithm. For each client it stores the time at which the
/// bucket will be full again, in microseconds of uptime.
struct Bucket<C> {
    full_again: Cache<C, Arc<AtomicU64>>,
    limit: Limit,
}

impl<C: Copy + Eq + Hash> Bucket<C> {
    fn new(limit: Limit) -> Self {
        Self { full_again: Cache::new(MAX_CLIENTS), limit }
    }

    /// Takes one from the bucket of a client.
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

    /// Like [`take`](Self::take), without taking.
    fn check(&self, client: C, now: Duration) -> Result<(), AppError> {
        let now = micros(now);
        let full_again = self.full_again.get(&client).map_or(0, |cell| cell.load(Ordering::Relaxed));
        if full_again.max(now) + self.period() - now <= self.capacity() {
            return Ok(());
        }
        Err(self.too_many(full_again, now))
    }

    /// How many are left, at least one.
    fn remaining(&self, client: C, now: Duration) -> usize {
        let now = micros(now);
        let full_again = self.full_again.get(&client).map_or(0, |cell| cell.load(Ordering::Relaxed));
        let available = self.capacity().saturating_sub(full_again.saturating_sub(now)) / self.period();
        usize::try_from(available).unwrap_or(usize::MAX).max(1)
    }

    /// Microseconds in which the bucket gains one.
    fn period(&self) -> u64 {
        3_600_000_000 / u64::from(self.limit.per_hour)
    }

    /// Microseconds in which an empty bucket becomes full.
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

    fn wait(result: Result<(), AppError>) -> u64 {
        match result {
            Ok(()) => 0,
            Err(AppError::TooMany { limit: 3, retry_after }) => retry_after,
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn after_the_burst_one_is_allowed_per_period() {
        let (bucket, second) = (bucket(), Duration::from_secs);
        for _ in 0..3 {
            assert_eq!(wait(bucket.check(1, second(10))), 0);
            assert_eq!(wait(bucket.take(1, second(10))), 0);
        }
        assert_eq!((wait(bucket.take(1, second(10))), wait(bucket.check(1, second(10)))), (60, 60));
        assert_eq!(wait(bucket.take(1, second(69))), 1);
        assert_eq!(wait(bucket.take(2, second(69))), 0, "another client has a bucket of its own");
        assert_eq!(wait(bucket.take(1, second(70))), 0);
        assert_eq!(wait(bucket.take(1, second(70))), 60, "a rejection takes nothing from the bucket");
    }

    #[test]
    fn the_remaining_number_is_the_rest_of_the_burst_and_at_least_one() {
        let bucket = bucket();
        let remaining = |at| bucket.remaining(1, Duration::from_secs(at));
        let mut left = vec![remaining(10)];
        for _ in 0..3 {
            bucket.take(1, Duration::from_secs(10)).unwrap();
            left.push(remaining(10));
        }
        assert_eq!(left, [3, 2, 1, 1]);
        assert_eq!([remaining(129), remaining(130), remaining(190), remaining(1_000)], [1, 2, 3, 3]);
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
    fn limits_that_are_off_count_nothing_and_the_command_line_is_never_limited() {
        let mut settings = crate::config::Settings::defaults().unwrap().limits;
        settings.registrations = Limit { burst: 1, per_hour: 1 };
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let metrics = Arc::new(Metrics::new(&Durations::default(), &Durations::default(), Arc::default()));
        let enabled = Throttle::new(&settings, Clock::default(), Arc::clone(&metrics));
        assert!(
            enabled.count(RateLimit::Registration, client).is_ok()
                && enabled.count(RateLimit::Registration, client).is_err()
        );
        assert!((0..9).all(|_| enabled.count(RateLimit::Registration, None).is_ok()));
        settings.enabled = false;
        let disabled = Throttle::new(&settings, Clock::default(), Arc::clone(&metrics));
        assert!((0..9).all(|_| disabled.count(RateLimit::Registration, client).is_ok()));
    }
}
