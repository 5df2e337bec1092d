//! Statistics: how often users signed in, registered and were refused, by hour or by day.

pub mod period;
pub mod writer;

use self::period::{Period, Step};
use crate::clock::Timestamp;
use crate::db::hourly_counts;
use crate::domain::stats::Counts;
use crate::error::AppError;
use crate::service::Service;

/// The counts of each step of a period.
#[derive(Debug)]
pub struct Stats {
    /// The period.
    pub period: Period,
    /// The start of each step and its counts, oldest first.
    pub items: Vec<(Timestamp, Counts)>,
}

impl Service {
    /// Returns the counts of each step of a period. Without `to`, it ends now. Without `from`, it has 24 hours or 30 days.
    ///
    /// Errors: [`AppError::Invalid`] if the period is empty or too long.
    pub async fn stats(&self, step: Step, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Stats, AppError> {
        let period = Period::new(step, from, to, self.clock.now())?;
        let (first, end) = period.hours();
        let (from, to) = (Timestamp::start_of_hour(first), Timestamp::start_of_hour(end));
        let rows = self.db.read(move |conn| hourly_counts::list(conn, from, to)).await?;
        let mut rows = rows.into_iter().peekable();
        let mut items = Vec::new();
        let mut hour = first;
        while hour < end {
            let next = hour + step.hours();
            let mut counts = Counts::default();
            while let Some((_, counted)) = rows.next_if(|(start, _)| start.hour() < next) {
                counts.add(counted);
            }
            if step == Step::Day {
                // The sum of the hours would count a key several times.
                counts.keys_used = counts.keys_new_in_day;
            }
            items.push((Timestamp::start_of_hour(hour), counts));
            hour = next;
        }
        Ok(Stats { period, items })
    }
}
