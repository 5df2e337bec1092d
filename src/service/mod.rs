//! Use cases. They own transactions and time, and know neither HTTP nor SQL.

pub mod account;
mod attempts;
pub mod audit;
pub mod auth;
pub mod authz;
pub mod cleanup;
mod failures;
pub mod follow;
pub mod grant;
pub mod hasher;
pub mod identity_cache;
pub mod introspect;
pub mod issue;
pub mod key;
pub mod key_usage;
mod lookup;
mod outage;
pub mod page;
pub mod purge;
mod readiness;
mod refusals;
mod repeat;
pub mod revoke;
mod rules;
mod stage;
mod throttle;
pub mod token;
mod trail;
pub mod user;
mod user_locks;
mod user_search;

use std::sync::Arc;

use self::attempts::{Attempts, QUEUE_PER_ACCOUNT, QUEUE_PER_CLIENT};
use self::authz::ForwardPolicy;
use self::cleanup::Cleanups;
use self::failures::LockoutPolicy;
use self::hasher::Hasher;
use self::identity_cache::{CacheCounts, IdentityCache};
use self::key_usage::KeyUsage;
use self::lookup::Lookups;
use self::outage::Outage;
use self::purge::PurgeHorizon;
use self::readiness::Readiness;
use self::refusals::Refusals;
use self::stage::Stages;
use self::throttle::Throttle;
use self::user_locks::UserLocks;
use crate::clock::Clock;
use crate::config::{AuthSettings, Settings};
use crate::db::Db;
pub use crate::db::{Caller, caller, for_one_request, set_caller};
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::metrics::{Levels, Metrics, TextFormat};

/// About how many bytes the items of a list take in one answer. A list that would take more ends early.
pub const ANSWER_BYTES: usize = 256 * 1024;
/// The highest number to which the objects of a list are counted.
pub const TOTAL_MAX: i64 = 10_000;

/// How many objects there are in a list, counted up to [`TOTAL_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// So many, or at least so many.
    pub count: i64,
    /// Whether these are all.
    pub is_exact: bool,
}

impl Total {
    /// What was counted; `None` if there are more than [`TOTAL_MAX`].
    fn of(counted: Option<i64>) -> Self {
        Self { count: counted.unwrap_or(TOTAL_MAX), is_exact: counted.is_some() }
    }
}

/// Everything a use case needs. One per process, shared by all threads.
pub struct Service {
    db: Db,
    clock: Clock,
    hasher: Hasher,
    settings: AuthSettings,
    constant_key: Option<Digest>,
    key_usage: KeyUsage,
    cleanups: Cleanups,
    cache: Arc<IdentityCache>,
    lookups: Arc<Lookups>,
    outage: Arc<Outage>,
    purge_horizon: PurgeHorizon,
    user_locks: UserLocks,
    throttle: Throttle,
    lockout: Option<LockoutPolicy>,
    attempts: Arc<Attempts>,
    client_attempts: Arc<Attempts>,
    forwarding: ForwardPolicy,
    metrics: Arc<Metrics>,
    refusals: Refusals,
    stages: Stages,
    readiness: Readiness,
}

impl Service {
    /// The use cases on `db`, at the time of `clock`.
    pub fn new(db: Db, clock: Clock, settings: &Settings) -> Result<Self, AppError> {
        let Settings { auth, authz, limits, .. } = settings;
        let cache = Arc::new(IdentityCache::new(auth.cache_size));
        let hasher = Hasher::start(auth.hash_threads, auth.hash_queue, auth.bcrypt_cost)?;
        let constant_key = auth.api_key_token.get().map(Digest::of);
        let metrics = Arc::new(Metrics::new(hasher.waits(), db.waits()));
        Ok(Self {
            lookups: Lookups::new(db.clone()),
            db,
            throttle: Throttle::new(limits, clock.clone(), Arc::clone(&metrics)),
            metrics,
            lockout: LockoutPolicy::new(limits),
            attempts: Attempts::new(QUEUE_PER_ACCOUNT),
            client_attempts: Attempts::new(QUEUE_PER_CLIENT),
            refusals: Refusals::default(),
            forwarding: ForwardPolicy::new(authz),
            clock,
            hasher,
            settings: auth.clone(),
            constant_key,
            key_usage: KeyUsage::default(),
            cleanups: Cleanups::default(),
            cache,
            outage: Arc::new(Outage::new()),
            purge_horizon: PurgeHorizon::default(),
            user_locks: UserLocks::default(),
            stages: Stages::default(),
            readiness: Readiness::default(),
        })
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// All that is counted, as text for Prometheus.
    pub fn metrics_text(&self, format: TextFormat) -> Result<String, AppError> {
        let CacheCounts { hits, misses, uncertain, stale, invalidations } = self.cache.counts();
        let (cache, hash_queue) = ([hits, misses, uncertain, stale, invalidations], self.hasher.waiting());
        let text = self.metrics.text(Levels { cache, hash_queue, connections: self.db.connections() }, format);
        text.map_err(|error| AppError::Internal(error.into()))
    }

    /// Whether requests can be served: the process stays, the database answers, takes changes, and its schema is ours.
    pub async fn ready(&self) -> Result<(), AppError> {
        if self.is_leaving() {
            return Err(AppError::NotReady(readiness::STOPPING));
        }
        self.readiness.check(&self.db).await
    }
}

/// The first `limit` of `rows`, and the id of the last of them if there are more.
fn first_of<T, I>(mut rows: Vec<T>, limit: i64, id: impl Fn(&T) -> I) -> (Vec<T>, Option<I>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let goes_on = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| goes_on).map(id);
    (rows, next)
}
