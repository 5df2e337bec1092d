//! Why a sign-in failed cannot be told by the time that it took.

use std::time::{Duration, Instant};

use crate::support::app::PASSWORD;
use crate::support::{App, Backend, Profile};

/// Sign-ins of each kind, in turns.
const ROUNDS: usize = 2_000;

/// How often a value of `one` is above one of `other`; a half if nothing tells them apart (Mann and Whitney).
fn above(one: &[Duration], other: &[Duration]) -> f64 {
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

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Why a sign-in fails: who signs in, and the password. The first is what the others are compared with.
const KINDS: [(&str, &str); 5] = [
    ("wrong@example.org", "a wrong password"),
    ("other@example.org", "a wrong password"),
    ("unknown@example.org", PASSWORD),
    ("disabled@example.org", PASSWORD),
    ("stopped@example.org", PASSWORD),
];

/// Those whose times tell them apart.
async fn told_apart(app: &App) -> Vec<&'static str> {
    let mut took = KINDS.map(|_| Vec::with_capacity(ROUNDS));
    for round in 0..ROUNDS {
        for turn in 0..KINDS.len() {
            // Each kind follows each other one, so that none is always the one after the same.
            let kind = (turn * (1 + round % (KINDS.len() - 1)) + round) % KINDS.len();
            let (email, password) = KINDS[kind];
            let asked = Instant::now();
            let answer = app.sign_in(email, password).await;
            took[kind].push(asked.elapsed());
            assert_eq!(answer.status, 401, "{answer:?}");
        }
    }
    let mut told = Vec::new();
    for ((email, _), times) in KINDS.iter().zip(&took).skip(1) {
        let above = above(times, &took[0]);
        let [median, of_wrong] = [times, &took[0]].map(|times| median(times));
        println!("{email} against a wrong password: {above:.3}, median {median:?} against {of_wrong:?}");
        if !(0.45..=0.55).contains(&above) {
            told.push(*email);
        }
    }
    told
}

async fn cannot_be_told_apart(backend: Backend) {
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
    println!("{backend:?}");
    let told = told_apart(&app).await;
    assert!(told.is_empty(), "{told:?} can be told by their times");
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_unknown_disabled_and_stopped_accounts_take_as_long_as_a_wrong_password() {
    cannot_be_told_apart(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_unknown_disabled_and_stopped_accounts_take_as_long_as_a_wrong_password() {
    cannot_be_told_apart(Backend::Postgres).await;
}
