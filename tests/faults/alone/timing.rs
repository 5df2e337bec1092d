//! The time of a failed sign-in does not reveal why it failed.

use std::array;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::cycles;
use crate::support::app::PASSWORD;
use crate::support::{App, Backend, Profile};

/// Sign-ins of each kind. The kinds alternate. By chance, a kind differs by 0.05 in one of 20,000 runs with 1,000.
fn rounds() -> usize {
    if cycles() > 3 { 2_000 } else { 1_000 }
}

/// The probability that a value of `one` is greater than one of `other`: 0.5 if they do not differ (Mann–Whitney).
pub fn probability_above(one: &[Duration], other: &[Duration]) -> f64 {
    let mut sorted = other.to_vec();
    sorted.sort_unstable();
    let below = |value: &Duration| {
        let less = sorted.partition_point(|other| other < value);
        let equal = sorted.partition_point(|other| other <= value) - less;
        f64::from(u32::try_from(2 * less + equal).unwrap()) / 2.0
    };
    let all = f64::from(u32::try_from(one.len() * other.len()).unwrap());
    one.iter().map(below).sum::<f64>() / all
}

pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// User name and password of each kind of failure. The others are compared with the first one.
const KINDS: [(&str, &str); 5] = [
    ("wrong@example.org", "a wrong password"),
    ("other@example.org", "a wrong password"),
    ("unknown@example.org", PASSWORD),
    ("disabled@example.org", PASSWORD),
    ("stopped@example.org", PASSWORD),
];

/// What the sign-ins ask for.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Token,
    Session,
}

/// Signs in `rounds` times with each kind. Returns the times.
async fn sign_ins(app: &App, wanted: Wanted, first: usize, rounds: usize) -> [Vec<Duration>; KINDS.len()] {
    let mut took = KINDS.map(|_| Vec::with_capacity(rounds));
    for round in first..first + rounds {
        for position in 0..KINDS.len() {
            // Varies the order, so that no kind always follows the same other one.
            let kind = (position * (1 + round % (KINDS.len() - 1)) + round) % KINDS.len();
            let (email, password) = KINDS[kind];
            let sent = Instant::now();
            let answer = match wanted {
                Wanted::Token => app.sign_in(email, password).await,
                Wanted::Session => app.begin_session(email, password).await,
            };
            took[kind].push(sent.elapsed());
            assert_eq!(answer.status, 401, "{answer:?}");
        }
    }
    took
}

/// The user names whose times differ from a wrong password's, with this number of concurrent clients.
async fn distinguishable(app: &App, wanted: Wanted, clients: usize) -> Vec<&'static str> {
    let by_client = join_all((0..clients).map(|client| sign_ins(app, wanted, client, rounds() / clients))).await;
    let took = array::from_fn::<Vec<Duration>, { KINDS.len() }, _>(|kind| {
        by_client.iter().flat_map(|took| took[kind].iter().copied()).collect()
    });
    let mut distinguishable = Vec::new();
    for ((email, _), times) in KINDS.iter().zip(&took).skip(1) {
        let above = probability_above(times, &took[0]);
        let [median, median_of_wrong] = [times, &took[0]].map(|times| median(times));
        println!("{email} against a wrong password: {above:.3}, median {median:?} against {median_of_wrong:?}");
        if !(0.45..=0.55).contains(&above) {
            distinguishable.push(*email);
        }
    }
    distinguishable
}

async fn failures_are_indistinguishable(backend: Backend) {
    let limits = |settings: &mut latchkey::config::Settings| {
        let limits = &mut settings.limits;
        limits.enabled = true;
        (limits.account_failures, limits.account_stop) = (1_000_000, 1_000_000);
        limits.failed_sign_ins = latchkey::config::Limit { burst: 1_000_000, per_hour: 1 };
    };
    let Some(app) = App::start_with(backend, Profile::Fastapi, limits).await else { return };
    for name in ["wrong", "other", "disabled", "stopped"] {
        app.register(&format!("{name}@example.org")).await;
    }
    app.sign_in("stopped@example.org", "a wrong password").await;
    app.database.execute("UPDATE sign_in_failures SET failures = 2000000").await;
    app.database.execute("UPDATE users SET disabled_at = '2026-01-01 00:00:00' WHERE id = 3").await;
    for (wanted, clients) in [(Wanted::Token, 1), (Wanted::Token, 64), (Wanted::Session, 64)] {
        println!("{backend:?}, {clients} clients, {wanted:?}");
        let found = distinguishable(&app, wanted, clients).await;
        assert!(found.is_empty(), "{found:?} can be distinguished by time with {clients} clients");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_unknown_disabled_and_stopped_accounts_take_as_long_as_a_wrong_password() {
    failures_are_indistinguishable(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_unknown_disabled_and_stopped_accounts_take_as_long_as_a_wrong_password() {
    failures_are_indistinguishable(Backend::Postgres).await;
}
