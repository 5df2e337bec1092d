//! Counts of repeated refusals, in memory.

use std::collections::HashMap;
use std::mem::Discriminant;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::audit::{Actor, Event, Outcome, Target};
use crate::domain::secret::Digest;

/// Maximum number of separate entries of one group in a window.
const MAX_ENTRIES: u32 = 20;
/// Maximum number of separate entries about anonymous callers in a window, over all groups.
const MAX_ANONYMOUS_ENTRIES: u32 = 600;
/// The time in which refusals of a group are counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of groups that are counted separately. Refusals of further groups share one group.
const MAX_GROUPS: usize = 10_000;
/// Maximum number of separate sums in a group.
const MAX_SUMS: usize = 32;

/// A refused attempt.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) by: Actor,
    pub(crate) event: Event,
    pub(crate) outcome: Outcome,
    /// The account that the caller tried to sign in to, whether or not it exists.
    pub(crate) account: Option<Digest>,
}

/// Refusals that are counted together: those of one caller and one action, or those of attempts on one account.
/// Attempts on an account are grouped whatever the reason of the refusal, so the work does not reveal whether the
/// account exists.
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

/// The refusals of one group within a minute.
#[derive(Debug)]
struct Window {
    ends: Duration,
    entries: u32,
    sums: Vec<Sum>,
}

/// Counted refusals without a separate entry.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) by: Actor,
    event: Event,
    pub(super) outcome: Outcome,
    pub(super) client: Option<IpAddr>,
    /// The kind of the targets. The targets may differ.
    target_kind: Option<Discriminant<Target>>,
    count: u64,
}

impl Sum {
    fn of(refusal: &Refusal, client: Option<IpAddr>) -> Self {
        let Refusal { by, event, outcome, .. } = refusal.clone();
        let target_kind = event.target.as_ref().map(std::mem::discriminant);
        Self { by, event, outcome, client, target_kind, count: 1 }
    }

    fn has_same_key(&self, other: &Self) -> bool {
        let same_caller = self.by.actor == other.by.actor
            && self.by.credential == other.by.credential
            && self.by.level == other.by.level;
        same_caller
            && (self.outcome, self.event.action) == (other.outcome, other.event.action)
            && (self.target_kind, &self.event.detail) == (other.target_kind, &other.event.detail)
    }

    /// Adds the count of another sum. Fields that differ are cleared, or set to `various`.
    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        if self.by.actor != other.by.actor || self.by.credential != other.by.credential {
            self.by = Actor::various();
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

    /// The event of the entry, with the reason and the count as its detail.
    pub(super) fn to_event(&self) -> Event {
        let reason = self.event.detail.as_deref().unwrap_or_default();
        let times = if self.count == 1 { "once".to_owned() } else { format!("{} times", self.count) };
        self.event.clone().detail(format!("{reason}, repeated {times}"))
    }
}

/// The refusals since the sums of their groups were written last.
#[derive(Default)]
pub(super) struct RecentRefusals(Mutex<State>);

#[derive(Default)]
struct State {
    windows: HashMap<Group, Window>,
    /// When the window of all anonymous refusals ends, and the number of separate entries in it.
    anonymous: (Duration, u32),
}

impl RecentRefusals {
    /// Whether this refusal gets a separate entry. Otherwise the caller must [add](Self::add) it.
    pub(super) fn has_own_entry(&self, refusal: &Refusal, now: Duration) -> bool {
        let mut state = self.state();
        let (group, full) = (Group::of(refusal), state.windows.len() >= MAX_GROUPS);
        if full && !state.windows.contains_key(&group) {
            return false;
        }
        if refusal.by.user.is_none() {
            if state.anonymous.0 <= now {
                state.anonymous = (now + WINDOW, 0);
            }
            if state.anonymous.1 >= MAX_ANONYMOUS_ENTRIES {
                return false;
            }
        }
        let window = state.windows.entry(group).or_insert_with(|| Window::starting(now));
        // The sums of an ended window are written before the group gets a new window.
        let has_entry = now < window.ends && window.entries < MAX_ENTRIES;
        window.entries += u32::from(has_entry);
        state.anonymous.1 += u32::from(has_entry && refusal.by.user.is_none());
        has_entry
    }

    /// Counts a refusal that has no separate entry.
    pub(super) fn add(&self, refusal: &Refusal, client: Option<IpAddr>, now: Duration) {
        self.add_sum(Group::of(refusal), Sum::of(refusal, client), now);
    }

    /// Counts a sum again that could not be written.
    pub(super) fn put_back(&self, sum: Sum, now: Duration) {
        let Sum { by, event, outcome, .. } = sum.clone();
        let group = Group::of(&Refusal { by, event, outcome, account: None });
        self.add_sum(group, sum, now);
    }

    fn add_sum(&self, group: Group, sum: Sum, now: Duration) {
        let mut state = self.state();
        let is_counted_separately = state.windows.len() < MAX_GROUPS || state.windows.contains_key(&group);
        let group = if is_counted_separately { group } else { Group::overflow() };
        state.windows.entry(group).or_insert_with(|| Window::starting(now)).add(sum);
    }

    /// Removes and returns the sums of ended windows.
    pub(super) fn take_due(&self, now: Duration) -> Vec<Sum> {
        let mut state = self.state();
        let ended = state.windows.extract_if(|_, window| window.ends <= now);
        merge_anonymous(ended.flat_map(|(_, window)| window.sums).collect())
    }

    /// Removes and returns all sums.
    pub(super) fn take_all(&self) -> Vec<Sum> {
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
        let is_full = self.sums.len() >= MAX_SUMS;
        match self.sums.iter_mut().find(|other| other.has_same_key(&sum)) {
            Some(other) => other.merge(&sum),
            None if is_full => self.sums.iter_mut().last().into_iter().for_each(|last| last.merge(&sum)),
            None => self.sums.push(sum),
        }
    }
}

/// Merges the sums of anonymous attempts on unknown accounts, however many accounts there were.
fn merge_anonymous(sums: Vec<Sum>) -> Vec<Sum> {
    let mut shared = Window::starting(Duration::ZERO);
    let mut merged = Vec::new();
    for sum in sums {
        if sum.by.user.is_none() && sum.target_kind.is_none() { shared.add(sum) } else { merged.push(sum) }
    }
    merged.append(&mut shared.sums);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Action;
    use crate::domain::id::{KeyId, PageId, UserId};
    use crate::domain::principal::Level;
    use crate::domain::roles::Roles;

    const MINUTE: Duration = Duration::from_secs(60);

    fn refusal(user: i64, page: i64, reason: &str) -> Refusal {
        let by = Actor { actor: format!("user:{user}"), user: Some(UserId(user)), ..Actor::anonymous() };
        let event = Event::of(Action::EditPage).on(Target::Page(PageId(page))).detail(reason);
        Refusal { by, event, outcome: Outcome::Denied, account: None }
    }

    fn failed_sign_in(account: &str, user: Option<i64>) -> Refusal {
        let event = Event::of(Action::SignIn).detail("wrong_password");
        let event = user.map_or(event.clone(), |user| event.on(Target::User(UserId(user))));
        Refusal { by: Actor::anonymous(), event, outcome: Outcome::Failure, account: Some(Digest::of(account)) }
    }

    /// Records a refusal. Returns whether it has a separate entry.
    fn note(refusals: &RecentRefusals, refusal: &Refusal, now: Duration) -> bool {
        let has_entry = refusals.has_own_entry(refusal, now);
        if !has_entry {
            refusals.add(refusal, None, now);
        }
        has_entry
    }

    fn details(sums: &[Sum]) -> Vec<String> {
        let mut details: Vec<String> = sums.iter().map(|sum| sum.to_event().detail.unwrap()).collect();
        details.sort();
        details
    }

    #[test]
    fn the_first_refusals_have_entries_and_the_others_are_summed_by_reason_after_a_minute() {
        let (refusals, start) = (RecentRefusals::default(), Duration::from_secs(100));
        let noted = (0..1_326).filter(|_| note(&refusals, &refusal(1, 7, "not_owner"), start)).count();
        assert_eq!(noted, 20);
        assert!(!note(&refusals, &refusal(1, 7, "stale"), start));
        assert!(note(&refusals, &refusal(2, 7, "not_owner"), start), "another user has separate entries");
        assert_eq!(details(&refusals.take_due(start + Duration::from_secs(59))), [""; 0]);
        let sums = refusals.take_due(start + MINUTE);
        assert_eq!(details(&sums), ["not_owner, repeated 1306 times", "stale, repeated once"]);
        assert_eq!(sums[0].event.target, Some(Target::Page(PageId(7))));
        assert!(note(&refusals, &refusal(1, 7, "not_owner"), start + MINUTE), "the next minute starts from zero");
    }

    #[test]
    fn a_sum_omits_the_target_if_its_refusals_have_different_ones() {
        let (refusals, now) = (RecentRefusals::default(), Duration::ZERO);
        for page in 0..100 {
            note(&refusals, &refusal(1, page, "not_owner"), now);
        }
        let sums = refusals.take_all();
        assert_eq!(details(&sums), ["not_owner, repeated 80 times"]);
        assert_eq!((&sums[0].event.target, sums[0].by.actor.as_str()), (&None, "user:1"));
    }

    #[test]
    fn refusals_of_another_caller_outcome_action_or_kind_of_target_have_a_separate_sum() {
        let same = refusal(1, 7, "not_owner");
        let changes: [fn(&mut Refusal); 6] = [
            |other| other.by.actor = "user:2".to_owned(),
            |other| other.by.credential = "key:1".to_owned(),
            |other| other.by.level = Some(Level::of(&Roles::default().get("admin"))),
            |other| other.outcome = Outcome::Failure,
            |other| other.event = Event::of(Action::DeletePage).on(Target::Page(PageId(7))).detail("not_owner"),
            |other| other.event = Event::of(Action::EditPage).on(Target::Key(KeyId(7))).detail("not_owner"),
        ];
        for (number, change) in changes.into_iter().enumerate() {
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
    fn anonymous_callers_share_600_entries_per_minute() {
        let refusals = RecentRefusals::default();
        for minute in 0..3 {
            let now = MINUTE * minute;
            refusals.take_due(now);
            let own = (0..700).filter(|account| note(&refusals, &failed_sign_in(&account.to_string(), None), now));
            assert_eq!(own.count(), 600, "{minute}");
        }
    }

    #[test]
    fn a_sum_keeps_the_address_and_the_subject_only_if_all_refusals_share_them() {
        let address = |last| Some(IpAddr::from([192, 0, 2, last]));
        for (addresses, kept) in [([1, 1], address(1)), ([1, 2], None)] {
            let [first, second] = addresses.map(|last| Sum::of(&refusal(1, 7, "not_owner"), address(last)));
            let mut sum = first;
            sum.event.subject = Some(UserId(3));
            sum.merge(&Sum { event: Event { subject: kept.map(|_| UserId(3)), ..second.event.clone() }, ..second });
            assert_eq!((sum.client, sum.event.subject), (kept, kept.map(|_| UserId(3))));
        }
    }

    #[test]
    fn beyond_32_reasons_the_last_sum_counts_all_further_ones() {
        let mut window = Window::starting(Duration::ZERO);
        for number in 0..40 {
            window.add(Sum::of(&refusal(1, 7, &format!("reason {number}")), None));
        }
        assert_eq!(window.sums.len(), 32);
        assert_eq!(window.sums[0].to_event().detail.as_deref(), Some("reason 0, repeated once"));
        assert_eq!(window.sums[31].to_event().detail.as_deref(), Some("various, repeated 9 times"));
    }

    #[test]
    fn beyond_ten_thousand_groups_further_refusals_share_a_group_and_known_groups_are_unaffected() {
        let (refusals, now) = (RecentRefusals::default(), Duration::ZERO);
        for user in 0..10_000 {
            assert!(note(&refusals, &refusal(user, 7, "not_owner"), now), "{user}");
        }
        for user in 10_000..10_040 {
            assert!(!note(&refusals, &refusal(user, 7, "not_owner"), now), "{user}");
        }
        assert!(note(&refusals, &refusal(1, 7, "not_owner"), now), "a known group still has separate entries");
        refusals.add(&refusal(1, 7, "stale"), None, now);
        // One sum of user 1, and 32 shared sums of all others.
        let sums = refusals.take_due(now + MINUTE);
        assert_eq!((sums.len(), sums.iter().map(|sum| sum.count).sum::<u64>()), (33, 41));
        assert!(sums.iter().any(|sum| sum.by.actor == "user:1" && sum.count == 1));
        assert!(sums.iter().any(|sum| sum.by.actor == "various" && sum.count == 9));
        // Writing the sums freed their groups.
        refusals.add(&refusal(5, 7, "not_owner"), None, now + MINUTE);
        assert_eq!(refusals.take_all()[0].by.actor, "user:5");
    }

    #[test]
    fn existing_and_unknown_accounts_get_the_same_entries_and_unknown_accounts_share_a_sum() {
        let (refusals, now) = (RecentRefusals::default(), Duration::ZERO);
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
        let expected = ["49540 times", "80 times", "80 times"].map(|times| format!("wrong_password, repeated {times}"));
        assert_eq!(details(&sums), expected);
    }
}
