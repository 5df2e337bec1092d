//! Limits of lists, and where the next part of a list begins.

use std::fmt;

/// Approximate maximum size of the items in one response, in bytes. A longer list ends early.
pub const ANSWER_BYTES: usize = 256 * 1024;
/// Maximum up to which the objects of a list are counted.
pub const TOTAL_MAX: i64 = 10_000;

/// The number of objects in a list, counted up to [`TOTAL_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The exact number, or a lower bound.
    pub count: i64,
    /// Whether `count` is exact.
    pub is_exact: bool,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_exact {
            true => write!(f, "{}", self.count),
            false => write!(f, "more than {}", self.count),
        }
    }
}

impl Total {
    /// The total for a counted number. `None` means more than [`TOTAL_MAX`].
    pub(crate) fn of(counted: Option<i64>) -> Self {
        Self { count: counted.unwrap_or(TOTAL_MAX), is_exact: counted.is_some() }
    }
}

/// Returns the first `limit` of `rows`, and the id of the last of these if there are more.
pub(crate) fn first_of<T, I>(mut rows: Vec<T>, limit: i64, id: impl Fn(&T) -> I) -> (Vec<T>, Option<I>) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(id);
    (rows, next)
}
