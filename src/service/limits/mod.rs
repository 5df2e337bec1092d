//! Limits: rates by client, lockout after failed sign-ins, and locks per user.

pub(crate) mod attempts;
pub(crate) mod lockout;
pub(crate) mod throttle;
pub(crate) mod user_locks;

use std::net::IpAddr;
use std::sync::Arc;

use self::attempts::{AttemptGuard, Attempts, QUEUE_PER_ACCOUNT, QUEUE_PER_CLIENT};
use self::lockout::{Attempt, AttemptedAccount, LockoutPolicy, LockoutState, load_state};
use self::throttle::{RateLimit, Throttle};
use self::user_locks::UserLocks;
use crate::clock::Clock;
use crate::config::LimitSettings;
use crate::db::Db;
use crate::domain::network::Network;
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::metrics::Metrics;

/// All limits of this process.
pub(crate) struct Limits {
    db: Db,
    clock: Clock,
    throttle: Throttle,
    lockout: Option<LockoutPolicy>,
    attempts: Arc<Attempts>,
    client_attempts: Arc<Attempts>,
    user_locks: UserLocks,
}

impl Limits {
    /// Applies the settings. No failure is counted yet.
    pub(crate) fn new(db: Db, clock: Clock, settings: &LimitSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            db,
            throttle: Throttle::new(settings, clock.clone(), metrics),
            clock,
            lockout: LockoutPolicy::new(settings),
            attempts: Attempts::new(QUEUE_PER_ACCOUNT),
            client_attempts: Attempts::new(QUEUE_PER_CLIENT),
            user_locks: UserLocks::default(),
        }
    }

    /// The rate limits by client and by user.
    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// The delays after failed sign-ins; `None` if limits are off.
    pub(crate) fn lockout(&self) -> Option<LockoutPolicy> {
        self.lockout
    }

    /// The locks that run the changes of one user one after the other.
    pub(crate) fn user_locks(&self) -> &UserLocks {
        &self.user_locks
    }

    /// Waits until all running attempts on the account could fail without a delay, and begins an attempt. The result
    /// may have a lockout reason; then the caller must reject the attempt whatever the password.
    ///
    /// Errors: [`AppError::Busy`] if too many attempts on the account are waiting.
    pub(crate) async fn begin_attempt(&self, attempted: AttemptedAccount) -> Result<Attempt, AppError> {
        let account = attempted.account;
        let Some(policy) = self.lockout else {
            return Ok(Attempt::new(account, LockoutState::without_limits(account), None));
        };
        let load = async || {
            let now = self.clock.now();
            self.db.read(move |conn| load_state(conn, Some(policy), attempted, now)).await
        };
        let mut state = load().await?;
        let guard = self.attempts.begin(state.counted_as)?;
        let mut allowance = policy.allowance(0);
        loop {
            guard.wait_for_fewer_ahead(allowance).await;
            // Earlier failures are stored by now. Those that may still come are counted by `ahead`.
            state = load().await?;
            if state.reason.is_some() {
                return Ok(Attempt::new(account, state, None));
            }
            allowance = policy.allowance(state.failures);
            if guard.ahead() < allowance {
                return Ok(Attempt::new(account, state, Some(guard)));
            }
        }
    }

    /// Waits until all running attempts of this client could fail without exceeding its limit. Drop the guard after the
    /// outcome is counted. Returns `None` if limits are off or the client has no address.
    ///
    /// Errors: [`AppError::TooMany`] if the limit is reached; [`AppError::Busy`] if too many attempts of the client are
    /// waiting.
    pub(crate) async fn begin_client_attempt(&self, client: Option<IpAddr>) -> Result<Option<AttemptGuard>, AppError> {
        let Some(network) = client.filter(|_| self.lockout.is_some()).map(Network::of) else {
            return Ok(None);
        };
        let guard = self.client_attempts.begin(Digest::of(&network.to_string()))?;
        loop {
            guard.wait_for_fewer_ahead(self.throttle.remaining(RateLimit::FailedSignIn, client)?).await;
            if guard.ahead() < self.throttle.remaining(RateLimit::FailedSignIn, client)? {
                return Ok(Some(guard));
            }
        }
    }
}
