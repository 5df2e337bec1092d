//! Statistics: what the processes count for each hour.

/// The counts of an hour, or of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sign-ins that returned a credential.
    pub sign_ins_succeeded: i64,
    /// Sign-ins that were rejected: unknown e-mail, wrong password, disabled user, stopped account.
    pub sign_ins_failed: i64,
    /// Sign-ins that a limit refused.
    pub sign_ins_throttled: i64,
    /// Users who registered.
    pub registrations: i64,
    /// Guarded requests that the guard allowed.
    pub requests_authorized: i64,
    /// Guarded requests that the guard refused.
    pub requests_refused: i64,
    /// Distinct keys that were used in the hour.
    pub keys_used: i64,
    /// Those of them that were not used before on the same day in UTC. The sum over a day is the number of distinct
    /// keys of the day.
    pub keys_new_in_day: i64,
    /// The largest number of password hashes that waited for a thread at the same time.
    pub hash_queue_max: i64,
}

impl Counts {
    /// Adds other counts: those of another process, or of another hour of the same day.
    pub fn add(&mut self, other: Self) {
        self.sign_ins_succeeded += other.sign_ins_succeeded;
        self.sign_ins_failed += other.sign_ins_failed;
        self.sign_ins_throttled += other.sign_ins_throttled;
        self.registrations += other.registrations;
        self.requests_authorized += other.requests_authorized;
        self.requests_refused += other.requests_refused;
        self.keys_used += other.keys_used;
        self.keys_new_in_day += other.keys_new_in_day;
        self.hash_queue_max = self.hash_queue_max.max(other.hash_queue_max);
    }
}
