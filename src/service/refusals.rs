//! Refusals in the audit trail: the first ones of a kind within a minute have an entry each, those that follow are
//! counted here and summed in one entry when the minute is over. So nobody fills the trail by being refused.
//!
//! A process that is killed loses what it has counted since the last entries; one that stops writes it.

use std::collections::HashMap;
use std::mem::Discriminant;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Service;
use crate::db::audit_entries;
use crate::domain::audit::{By, Event, Origin, Outcome, Target};
use crate::domain::secret::Digest;

/// Entries of one group of refusals in a window.
const ENTRIES: u32 = 20;
/// Entries about callers whom nobody knows, of all groups together, in a window.
const ENTRIES_ANONYMOUS: u32 = 600;
const WINDOW: Duration = Duration::from_secs(60);
/// How often somebody looks for windows that are over.
const TICK: Duration = Duration::from_secs(1);
/// Groups that are told apart at once. What is beyond them is summed together.
const GROUPS: usize = 10_000;
/// Sums that are told apart within a group.
const SUMS: usize = 32;
/// Entries of one transaction.
const BATCH: usize = 500;

/// A refused attempt.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) by: By,
    pub(super) event: Event,
    pub(super) outcome: Outcome,
    /// The account that somebody tried to open, whether or not it exists.
    pub(super) account: Option<Digest>,
}

/// Refusals that are counted together: of one caller by one action, or of attempts on one account. For an account it does
/// not matter why they were refused, so that the work tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    credential: String,
    action: &'static str,
    account: Option<Digest>,
}

impl Group {
    fn of(refusal: &Refusal) -> Self {
        let Refusal { by, event, account, .. } = refusal;
        Self { credential: format!("{} {}", by.actor, by.credential), action: event.action.name(), account: *account }
    }

    fn overflow() -> Self {
        Self { credential: String::new(), action: "", account: None }
    }
}

#[derive(Debug)]
struct Window {
    ends: Duration,
    entries: u32,
    sums: Vec<Sum>,
}

/// Refusals that had no entry of their own.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    by: By,
    event: Event,
    outcome: Outcome,
    client: Option<IpAddr>,
    /// Of what kind the targets are; they may differ.
    kind: Option<Discriminant<Target>>,
    count: u64,
}

impl Sum {
    fn of(refusal: &Refusal, client: Option<IpAddr>) -> Self {
        let Refusal { by, event, outcome, .. } = refusal.clone();
        let kind = event.target.as_ref().map(std::mem::discriminant);
        Self { by, event, outcome, client, kind, count: 1 }
    }

    fn is_like(&self, other: &Self) -> bool {
        let same_caller = self.by.actor == other.by.actor
            && self.by.credential == other.by.credential
            && self.by.level == other.by.level;
        same_caller
            && (self.outcome, self.event.action, self.kind) == (other.outcome, other.event.action, other.kind)
            && self.event.detail == other.event.detail
    }

    /// Adds another one. What they do not have in common is left out.
    fn absorb(&mut self, other: &Self) {
        self.count += other.count;
        if self.by.actor != other.by.actor || self.by.credential != other.by.credential {
            self.by = By::various();
        }
        if self.event.target != other.event.target {
            self.event.target = None;
        }
        if self.event.subject != other.event.subject {
            self.event.subject = None;
        }
        if self.event.detail != other.event.detail {
            self.event.detail = Some("various".to_owned());
        }
        if self.client != other.client {
            self.client = None;
        }
    }

    /// What the entry tells.
    fn told(&self) -> Event {
        let reason = self.event.detail.as_deref().unwrap_or_default();
        let times = if self.count == 1 { "once".to_owned() } else { format!("{} times", self.count) };
        self.event.clone().detail(format!("{reason}, repeated {times}"))
    }
}

/// What was refused lately.
#[derive(Default)]
pub(super) struct Refusals(Mutex<State>);

#[derive(Default)]
struct State {
    windows: HashMap<Group, Window>,
    /// When the window of all anonymous refusals ends, and the entries in it.
    anonymous: (Duration, u32),
}

impl Refusals {
    /// Whether this refusal gets an entry of its own. Otherwise it is to be [added](Self::add).
    fn has_own_entry(&self, refusal: &Refusal, now: Duration) -> bool {
        let mut state = self.state();
        let (group, full) = (Group::of(refusal), state.windows.len() >= GROUPS);
        if full && !state.windows.contains_key(&group) {
            return false;
        }
        if refusal.by.user.is_none() {
            if state.anonymous.0 <= now {
                state.anonymous = (now + WINDOW, 0);
            }
            if state.anonymous.1 >= ENTRIES_ANONYMOUS {
                return false;
            }
        }
        let window = state.windows.entry(group).or_insert_with(|| Window::starting(now));
        // When a window is over, the sums are written first.
        let has_own = now < window.ends && window.entries < ENTRIES;
        window.entries += u32::from(has_own);
        state.anonymous.1 += u32::from(has_own && refusal.by.user.is_none());
        has_own
    }

    /// Counts a refusal without an entry.
    fn add(&self, refusal: &Refusal, client: Option<IpAddr>, now: Duration) {
        self.add_sum(Group::of(refusal), Sum::of(refusal, client), now);
    }

    fn add_sum(&self, group: Group, sum: Sum, now: Duration) {
        let mut state = self.state();
        let has_room = state.windows.len() < GROUPS || state.windows.contains_key(&group);
        let group = if has_room { group } else { Group::overflow() };
        state.windows.entry(group).or_insert_with(|| Window::starting(now)).add(sum);
    }

    /// The sums of windows that are over.
    fn take_due(&self, now: Duration) -> Vec<Sum> {
        let mut state = self.state();
        let over = state.windows.extract_if(|_, window| window.ends <= now);
        merged(over.flat_map(|(_, window)| window.sums).collect())
    }

    /// All sums.
    fn take_all(&self) -> Vec<Sum> {
        self.take_due(Duration::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn starting(now: Duration) -> Self {
        Self { ends: now + WINDOW, entries: 0, sums: Vec::new() }
    }

    fn add(&mut self, sum: Sum) {
        let is_full = self.sums.len() >= SUMS;
        match self.sums.iter_mut().find(|other| other.is_like(&sum)) {
            Some(other) => other.absorb(&sum),
            None if is_full => self.sums.iter_mut().last().into_iter().for_each(|last| last.absorb(&sum)),
            None => self.sums.push(sum),
        }
    }
}

/// One sum for all attempts of strangers on accounts that do not exist, however many those were.
fn merged(sums: Vec<Sum>) -> Vec<Sum> {
    let mut shared = Window::starting(Duration::ZERO);
    let mut merged = Vec::new();
    for sum in sums {
        if sum.by.user.is_none() && sum.kind.is_none() { shared.add(sum) } else { merged.push(sum) }
    }
    merged.append(&mut shared.sums);
    merged
}

/// Sums that are being written. Unwritten ones are counted again, also when the process stops during the write.
struct Unwritten<'s> {
    service: &'s Service,
    sums: Vec<Sum>,
}

impl Unwritten<'_> {
    /// Some of them, from this one on; `None` if there are no more.
    fn next(&self, from: usize) -> Option<Vec<Sum>> {
        self.sums.get(from..)?.chunks(BATCH).next().map(<[Sum]>::to_vec)
    }
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.sums.drain(..).for_each(|sum| self.service.put_back(sum));
    }
}

impl Service {
    /// Whether this refusal gets an entry of its own.
    pub(super) fn has_own_entry(&self, refusal: &Refusal) -> bool {
        self.refusals.has_own_entry(refusal, self.clock.uptime())
    }

    /// Counts a refusal without an entry of its own.
    pub(super) fn sum_refusal(&self, refusal: &Refusal, origin: &Origin) {
        self.refusals.add(refusal, origin.client, self.clock.uptime());
    }

    /// Writes the sums of refusals when they are due, for ever.
    pub async fn keep_refusals_summed(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.write_sums(self.refusals.take_due(self.clock.uptime())).await;
        }
    }

    /// Writes all that is left, at the end.
    pub async fn flush_refusals(&self) {
        self.write_sums(self.refusals.take_all()).await;
    }

    async fn write_sums(&self, sums: Vec<Sum>) {
        let mut unwritten = Unwritten { service: self, sums };
        let mut from = 0;
        while let Some(batch) = unwritten.next(from) {
            let (entries, now) = (batch.clone(), self.clock.now());
            let written = self.db.write(move |conn| {
                entries.iter().try_for_each(|sum| {
                    let origin = Origin { client: sum.client, request_id: None };
                    audit_entries::insert(conn, now, &sum.by, &sum.told(), sum.outcome, &origin).map(drop)
                })
            });
            if let Err(error) = written.await {
                log::warn!("cannot write sums of {} kinds of refusals, trying again: {error}", batch.len());
                from += batch.len();
                continue;
            }
            unwritten.sums.drain(from..from + batch.len());
            batch.iter().for_each(|sum| self.metrics.audit_entry(sum.outcome.name()));
        }
    }

    fn put_back(&self, sum: Sum) {
        let Sum { by, event, outcome, .. } = sum.clone();
        let group = Group::of(&Refusal { by, event, outcome, account: None });
        self.refusals.add_sum(group, sum, self.clock.uptime());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Action;
    use crate::domain::id::{KeyId, PageId, UserId};
    use crate::domain::principal::Level;
    use crate::domain::role::Role;

    const MINUTE: Duration = Duration::from_secs(60);

    fn refusal(user: i64, page: i64, reason: &str) -> Refusal {
        let by = By { actor: format!("user:{user}"), user: Some(UserId(user)), ..By::anonymous() };
        let event = Event::of(Action::EditPage).on(Target::Page(PageId(page))).detail(reason);
        Refusal { by, event, outcome: Outcome::Denied, account: None }
    }

    fn failed_sign_in(account: &str, user: Option<i64>) -> Refusal {
        let event = Event::of(Action::SignIn).detail("wrong_password");
        let event = user.map_or(event.clone(), |user| event.on(Target::User(UserId(user))));
        Refusal { by: By::anonymous(), event, outcome: Outcome::Failure, account: Some(Digest::of(account)) }
    }

    /// Notes a refusal; whether it has its own entry.
    fn note(refusals: &Refusals, refusal: &Refusal, now: Duration) -> bool {
        let own = refusals.has_own_entry(refusal, now);
        if !own {
            refusals.add(refusal, None, now);
        }
        own
    }

    fn details(sums: &[Sum]) -> Vec<String> {
        let mut details: Vec<String> = sums.iter().map(|sum| sum.told().detail.unwrap()).collect();
        details.sort();
        details
    }

    #[test]
    fn the_first_have_entries_and_the_others_are_summed_by_reason_when_the_minute_is_over() {
        let (refusals, start) = (Refusals::default(), Duration::from_secs(100));
        let noted = (0..1_326).filter(|_| note(&refusals, &refusal(1, 7, "not_owner"), start)).count();
        assert_eq!(noted, 20);
        assert!(!note(&refusals, &refusal(1, 7, "stale"), start));
        assert!(note(&refusals, &refusal(2, 7, "not_owner"), start), "somebody else has their own");
        assert_eq!(details(&refusals.take_due(start + Duration::from_secs(59))), [""; 0]);
        let sums = refusals.take_due(start + MINUTE);
        assert_eq!(details(&sums), ["not_owner, repeated 1306 times", "stale, repeated once"]);
        assert_eq!(sums[0].event.target, Some(Target::Page(PageId(7))));
        assert!(note(&refusals, &refusal(1, 7, "not_owner"), start + MINUTE), "the next minute begins anew");
    }

    #[test]
    fn what_refusals_do_not_have_in_common_is_left_out() {
        let (refusals, now) = (Refusals::default(), Duration::ZERO);
        for page in 0..100 {
            note(&refusals, &refusal(1, page, "not_owner"), now);
        }
        let sums = refusals.take_all();
        assert_eq!(details(&sums), ["not_owner, repeated 80 times"]);
        assert_eq!((&sums[0].event.target, sums[0].by.actor.as_str()), (&None, "user:1"));
    }

    #[test]
    fn refusals_that_differ_in_what_a_sum_tells_have_sums_of_their_own() {
        let same = refusal(1, 7, "not_owner");
        let unlike: [fn(&mut Refusal); 6] = [
            |other| other.by.actor = "user:2".to_owned(),
            |other| other.by.credential = "key:1".to_owned(),
            |other| other.by.level = Some(Level::new(Role::Admin, Role::Admin.scopes())),
            |other| other.outcome = Outcome::Failure,
            |other| other.event = Event::of(Action::DeletePage).on(Target::Page(PageId(7))).detail("not_owner"),
            |other| other.event = Event::of(Action::EditPage).on(Target::Key(KeyId(7))).detail("not_owner"),
        ];
        for (number, change) in unlike.into_iter().enumerate() {
            let mut other = same.clone();
            change(&mut other);
            let mut window = Window::starting(Duration::ZERO);
            for refusal in [&same, &other, &same] {
                window.add(Sum::of(refusal, None));
            }
            assert_eq!(window.sums.iter().map(|sum| sum.count).collect::<Vec<_>>(), [2, 1], "{number}");
        }
    }

    #[test]
    fn a_sum_has_the_address_and_the_subject_that_all_have() {
        let address = |last| Some(IpAddr::from([192, 0, 2, last]));
        for (addresses, kept) in [([1, 1], address(1)), ([1, 2], None)] {
            let [first, second] = addresses.map(|last| Sum::of(&refusal(1, 7, "not_owner"), address(last)));
            let mut sum = first;
            sum.event.subject = Some(UserId(3));
            sum.absorb(&Sum { event: Event { subject: kept.map(|_| UserId(3)), ..second.event.clone() }, ..second });
            assert_eq!((sum.client, sum.event.subject), (kept, kept.map(|_| UserId(3))));
        }
    }

    #[test]
    fn beyond_so_many_reasons_the_last_sum_takes_them_all() {
        let mut window = Window::starting(Duration::ZERO);
        for number in 0..40 {
            window.add(Sum::of(&refusal(1, 7, &format!("reason {number}")), None));
        }
        assert_eq!(window.sums.len(), 32);
        assert_eq!(window.sums[0].told().detail.as_deref(), Some("reason 0, repeated once"));
        assert_eq!(window.sums[31].told().detail.as_deref(), Some("various, repeated 9 times"));
    }

    #[test]
    fn beyond_ten_thousand_groups_refusals_are_summed_together_and_known_groups_go_on() {
        let (refusals, now) = (Refusals::default(), Duration::ZERO);
        for user in 0..10_000 {
            assert!(note(&refusals, &refusal(user, 7, "not_owner"), now), "{user}");
        }
        for user in 10_000..10_040 {
            assert!(!note(&refusals, &refusal(user, 7, "not_owner"), now), "{user}");
        }
        assert!(note(&refusals, &refusal(1, 7, "not_owner"), now), "a known group has entries of its own");
        refusals.add(&refusal(1, 7, "stale"), None, now);
        // That of user 1, and 32 of all others together.
        let sums = refusals.take_due(now + MINUTE);
        assert_eq!((sums.len(), sums.iter().map(|sum| sum.count).sum::<u64>()), (33, 41));
        assert!(sums.iter().any(|sum| sum.by.actor == "user:1" && sum.count == 1));
        assert!(sums.iter().any(|sum| sum.by.actor == "various" && sum.count == 9));
        // What was written has made room.
        refusals.add(&refusal(5, 7, "not_owner"), None, now + MINUTE);
        assert_eq!(refusals.take_all()[0].by.actor, "user:5");
    }

    #[test]
    fn accounts_are_written_alike_whether_or_not_they_exist_and_unknown_ones_are_summed_together() {
        let (refusals, now) = (Refusals::default(), Duration::ZERO);
        for round in 0..100 {
            let known = note(&refusals, &failed_sign_in("ada", Some(1)), now);
            let unknown = note(&refusals, &failed_sign_in("eve", None), now);
            let other = note(&refusals, &failed_sign_in("bob", Some(2)), now);
            assert_eq!([known, other], [unknown; 2], "{round}");
        }
        for account in 0..50_000 {
            note(&refusals, &failed_sign_in(&account.to_string(), None), now);
        }
        assert!(refusals.state().windows.len() <= 10_001);
        let sums = refusals.take_all();
        let told = ["49540 times", "80 times", "80 times"].map(|times| format!("wrong_password, repeated {times}"));
        assert_eq!(details(&sums), told);
    }
}
