//! Writes the counts of this process to the database, where those of all processes add up.
//!
//! A process writes its counts when it stops. A process that is killed loses the counts of the last seconds.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::db::{Conn, Db, hourly_counts};
use crate::error::AppError;
use crate::logging::repeated::RepeatedFailure;
use crate::metrics::hourly::{CountsByHour, HourlyCounters};

/// Interval at which counts are written.
const TICK: Duration = Duration::from_secs(10);
/// Maximum number of hours per transaction. More than two are written only after the database was not available.
const BATCH_SIZE: usize = 100;

/// Writes the counts of this process.
pub struct StatsWriter {
    db: Db,
    clock: Clock,
    counters: Arc<HourlyCounters>,
    /// The seconds for which counts are kept, also in memory while they cannot be written.
    retention: i64,
    /// Held during a write.
    writing: tokio::sync::Mutex<()>,
    failure: RepeatedFailure,
}

/// Counts that are being written. Dropping this makes them unwritten again, also if the write is cancelled.
struct Unwritten {
    counters: Arc<HourlyCounters>,
    counts: CountsByHour,
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.counters.put_back(std::mem::take(&mut self.counts));
    }
}

impl StatsWriter {
    pub(crate) fn new(db: Db, clock: Clock, counters: Arc<HourlyCounters>, retention_days: i64) -> Self {
        let failure = RepeatedFailure::new("write the counts of statistics");
        Self {
            db,
            clock,
            counters,
            retention: retention_days * 86_400,
            writing: tokio::sync::Mutex::default(),
            failure,
        }
    }

    /// Writes the counts every ten seconds. Never returns.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.flush().await;
        }
    }

    /// Writes all counts, and waits for those that another call is writing. If this fails, the next call writes them.
    pub async fn flush(&self) {
        let _writing = self.writing.lock().await;
        let mut counts = self.counters.take();
        // The purge would remove these at once.
        let end = self.clock.now().plus_seconds(-self.retention).hour();
        counts.retain(|hour, _| *hour >= end);
        while !counts.is_empty() {
            let rest = counts.keys().nth(BATCH_SIZE).copied().map(|hour| counts.split_off(&hour));
            if let Err(error) = self.write(counts).await {
                self.counters.put_back(rest.unwrap_or_default());
                self.failure.failed(&error);
                return;
            }
            self.failure.succeeded();
            counts = rest.unwrap_or_default();
        }
    }

    async fn write(&self, batch: CountsByHour) -> Result<(), AppError> {
        let mut unwritten = Unwritten { counters: Arc::clone(&self.counters), counts: batch.clone() };
        // In ascending order, so that two processes cannot block each other.
        let rows = move |conn: &mut Conn| {
            let mut hours = batch.into_iter().map(|(hour, counts)| (Timestamp::start_of_hour(hour), counts));
            hours.try_for_each(|(hour, counts)| hourly_counts::add(conn, hour, counts))
        };
        // If it is unknown whether they are stored, they are not written again, so that no event is counted twice.
        let on_stored = move |_: Option<&()>| unwritten.counts.clear();
        self.db.write_then(std::future::ready(()), rows, on_stored).await
    }
}
