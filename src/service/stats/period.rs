//! The period of statistics, and its steps.

use crate::clock::Timestamp;
use crate::error::{AppError, FieldError};

/// The length of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Maximum length of a period with this step, in days.
    pub const fn max_days(self) -> i64 {
        match self {
            Self::Hour => 31,
            Self::Day => 400,
        }
    }

    /// Maximum number of steps in a period. The first and the last one can belong to it in part.
    pub const fn max_items(self) -> i64 {
        self.max_days() * 24 / self.hours() + 1
    }

    /// Number of steps in a period without a start.
    const fn default_steps(self) -> i64 {
        match self {
            Self::Hour => 24,
            Self::Day => 30,
        }
    }

    pub(super) const fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
        }
    }

    /// The first hour of the step that contains this time.
    fn first_hour(self, at: Timestamp) -> i64 {
        at.hour().div_euclid(self.hours()) * self.hours()
    }

    /// The first hour of the first step that begins at this time or later.
    fn hour_after(self, at: Timestamp) -> i64 {
        let first = self.first_hour(at);
        if Timestamp::start_of_hour(first) < at { first + self.hours() } else { first }
    }
}

/// A period: all steps that it contains in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The length of the steps.
    pub step: Step,
    /// The start of the first step.
    pub from: Timestamp,
    /// The end, which does not belong to the period.
    pub to: Timestamp,
}

impl Period {
    /// The period from `from` to `to`. Without `to`, it ends at `now`. Without `from`, it has 24 hours or 30 days.
    ///
    /// Errors: [`AppError::Invalid`] if the period is empty or too long, or a time is outside the years 1970 to 9999.
    pub fn new(step: Step, from: Option<Timestamp>, to: Option<Timestamp>, now: Timestamp) -> Result<Self, AppError> {
        let end = to.unwrap_or(now);
        check_year("to", end)?;
        let default_start = || Timestamp::start_of_hour(step.hour_after(end) - step.default_steps() * step.hours());
        let start = from.unwrap_or_else(default_start);
        check_year(if from.is_some() { "from" } else { "to" }, start)?;
        if start >= end {
            let message = if to.is_some() { "Use a time before `to`." } else { "Use a time in the past, or set `to`." };
            return Err(FieldError::new("from", "range", message).into());
        }
        if start.plus_seconds(step.max_days() * 86_400) < end {
            let advice = if step == Step::Hour { ", or `step=day`" } else { "" };
            let message = format!("Use a time at most {} days before `to`{advice}.", step.max_days());
            return Err(FieldError::new("from", "range", message).into());
        }
        Ok(Self { step, from: Timestamp::start_of_hour(step.first_hour(start)), to: end })
    }

    /// The first hour of the period, and that after its last step.
    pub(super) fn hours(self) -> (i64, i64) {
        (self.from.hour(), self.step.hour_after(self.to))
    }
}

/// Errors: a time whose year does not have four digits, or that is before 1970.
fn check_year(field: &str, at: Timestamp) -> Result<(), FieldError> {
    const YEAR_10_000: i64 = 253_402_300_800;
    if (0..YEAR_10_000).contains(&at.seconds()) {
        return Ok(());
    }
    Err(FieldError::new(field, "range", "Use a time in the years 1970 to 9999."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-03-01T10:20:30Z";

    fn period(step: Step, from: &str, to: &str) -> Result<Period, AppError> {
        let time = |text: &str| (!text.is_empty()).then(|| Timestamp::parse(text).unwrap());
        Period::new(step, time(from), time(to), time(NOW).unwrap())
    }

    /// The start of the first step, and the number of steps.
    fn steps(step: Step, from: &str, to: &str) -> (String, i64) {
        let period = period(step, from, to).unwrap();
        let (first, end) = period.hours();
        assert_eq!(first, period.from.hour());
        (period.from.to_string().chars().take(16).collect(), (end - first) / step.hours())
    }

    #[test]
    fn a_period_contains_every_step_that_it_touches() {
        for (step, from, to, start, number) in [
            (Step::Hour, "", "", "2026-02-28T11:00", 24),
            (Step::Hour, "", "2026-03-01T10:00:00Z", "2026-02-28T10:00", 24),
            (Step::Hour, "", "2026-03-01T10:00:00.000001Z", "2026-02-28T11:00", 24),
            (Step::Hour, "2026-03-01T09:59:59.999999Z", "", "2026-03-01T09:00", 2),
            (Step::Hour, "2026-03-01T09:00:00Z", "2026-03-01T10:00:00Z", "2026-03-01T09:00", 1),
            (Step::Hour, "2026-02-28T23:30:00Z", "2026-03-01T00:30:00Z", "2026-02-28T23:00", 2),
            (Step::Hour, "2026-03-01T05:15:00+05:30", "2026-03-01T00:00:00Z", "2026-02-28T23:00", 1),
            (Step::Hour, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-01-01T00:00", 744),
            (Step::Hour, "2026-01-01T00:30:00Z", "2026-02-01T00:30:00Z", "2026-01-01T00:00", 745),
            (Step::Day, "", "", "2026-01-31T00:00", 30),
            (Step::Day, "", "2026-03-01T00:00:00Z", "2026-01-30T00:00", 30),
            (Step::Day, "2026-02-28T23:59:59Z", "2026-03-01T00:00:01Z", "2026-02-28T00:00", 2),
            (Step::Day, "2024-02-28T00:00:00Z", "2024-03-02T00:00:00Z", "2024-02-28T00:00", 3),
            (Step::Day, "2025-01-25T01:00:00Z", "2026-03-01T01:00:00Z", "2025-01-25T00:00", 401),
            (Step::Day, "1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "1970-01-01T00:00", 1),
            (Step::Hour, "9999-12-31T23:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:00", 1),
        ] {
            assert_eq!(steps(step, from, to), (start.to_owned(), number), "{step:?} {from} {to}");
        }
    }

    #[test]
    fn a_period_that_is_empty_too_long_or_out_of_range_is_rejected() {
        for (step, from, to, field, message) in [
            (Step::Hour, "2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z", "from", "Use a time before `to`."),
            (Step::Day, "2026-03-02T10:00:00Z", "2026-03-01T10:00:00Z", "from", "Use a time before `to`."),
            (Step::Hour, "2026-03-01T10:20:30Z", "", "from", "Use a time in the past, or set `to`."),
            (
                Step::Hour,
                "2026-01-01T00:00:00Z",
                "2026-02-01T00:00:00.000001Z",
                "from",
                "Use a time at most 31 days before `to`, or `step=day`.",
            ),
            (
                Step::Day,
                "2025-01-25T00:00:00Z",
                "2026-03-01T00:00:00.1Z",
                "from",
                "Use a time at most 400 days before `to`.",
            ),
            (
                Step::Day,
                "1969-12-31T23:59:59Z",
                "1970-01-02T00:00:00Z",
                "from",
                "Use a time in the years 1970 to 9999.",
            ),
            (Step::Hour, "", "1970-01-01T12:00:00Z", "to", "Use a time in the years 1970 to 9999."),
            (Step::Hour, "", "9999-12-31T23:59:59-14:00", "to", "Use a time in the years 1970 to 9999."),
        ] {
            let Err(AppError::Invalid(errors)) = period(step, from, to) else { panic!("{from} {to} is rejected") };
            let [error] = &errors[..] else { panic!("{errors:?}") };
            assert_eq!((error.field.as_ref(), error.message.as_ref()), (field, message), "{from} {to}");
        }
    }
}
