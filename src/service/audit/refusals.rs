//! Repeated refusals in the audit trail. The first refusals of a group within a minute have an entry each. This module
//! counts the others and writes one entry with their sum after the minute, so a caller cannot fill the trail.
//!
//! A process writes its sums when it stops. A process that is killed loses the sums that it has not written yet.

use std::sync::Arc;
use std::time::Duration;

use super::refusal_counts::{RecentRefusals, Refusal, Sum};
use crate::clock::Clock;
use crate::db::{Db, audit_entries};
use crate::domain::audit::ClientInfo;
use crate::error::AppError;
use crate::logging::repeated::RepeatedFailure;
use crate::metrics::Metrics;

/// Interval at which ended windows are written.
const TICK: Duration = Duration::from_secs(1);
/// Maximum number of entries per transaction.
const BATCH_SIZE: usize = 500;

/// Counts repeated refusals and writes their sums to the audit trail.
pub struct Refusals {
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
    recent: RecentRefusals,
    failure: RepeatedFailure,
}

/// Sums that are being written. Dropping this counts the unwritten ones again, also if the write is cancelled.
struct Unwritten<'s> {
    refusals: &'s Refusals,
    sums: Vec<Sum>,
}

impl Unwritten<'_> {
    /// The next batch, starting at index `from`; `None` if no sum is left.
    fn next(&self, from: usize) -> Option<Vec<Sum>> {
        self.sums.get(from..)?.chunks(BATCH_SIZE).next().map(<[Sum]>::to_vec)
    }
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.sums.drain(..).for_each(|sum| self.refusals.recent.put_back(sum, self.refusals.clock.uptime()));
    }
}

impl Refusals {
    pub(crate) fn new(db: Db, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let failure = RepeatedFailure::new("write the sums of refusals");
        Self { db, clock, metrics, recent: RecentRefusals::default(), failure }
    }

    /// Whether this refusal gets a separate entry.
    pub(crate) fn has_own_entry(&self, refusal: &Refusal) -> bool {
        self.recent.has_own_entry(refusal, self.clock.uptime())
    }

    /// Counts a refusal that has no separate entry.
    pub(crate) fn add(&self, refusal: &Refusal, client_info: &ClientInfo) {
        self.recent.add(refusal, client_info.client, self.clock.uptime());
    }

    /// Writes the sums of ended windows every second. Never returns.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.write_sums(self.recent.take_due(self.clock.uptime())).await;
        }
    }

    /// Writes all remaining sums. Call this when the process stops.
    pub async fn flush(&self) {
        self.write_sums(self.recent.take_all()).await;
    }

    async fn write_sums(&self, sums: Vec<Sum>) {
        let mut unwritten = Unwritten { refusals: self, sums };
        let mut from = 0;
        while let Some(batch) = unwritten.next(from) {
            let (entries, now) = (batch.clone(), self.clock.now());
            let written = self.db.write(move |conn| {
                entries.iter().try_for_each(|sum| {
                    let client_info = ClientInfo { client: sum.client, ..ClientInfo::default() };
                    audit_entries::insert(conn, now, &sum.by, &sum.to_event(), sum.outcome, &client_info).map(drop)
                })
            });
            if let Err(error) = written.await {
                self.failure.failed(&error);
                if let AppError::Busy(_) = error {
                    // The other batches would also wait for the whole time-out.
                    break;
                }
                from += batch.len();
                continue;
            }
            self.failure.succeeded();
            unwritten.sums.drain(from..from + batch.len());
            batch.iter().for_each(|sum| self.metrics.audit_entry(sum.outcome.name()));
        }
    }
}
