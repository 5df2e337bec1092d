//! The time of a request for a mail does not reveal whether an address is known, whatever the SMTP server does.

use std::time::{Duration, Instant};

use latchkey::config::{RegistrationMode, Settings};
use serde_json::json;

use super::timing::{median, probability_above};
use crate::cycles;
use crate::support::app::{PASSWORD, registration};
use crate::support::smtp::{Behaviour, SmtpServer};
use crate::support::{App, Backend, Credential, Profile};

/// Requests for each address. The addresses alternate.
const ROUNDS: usize = 1_000;

/// The number is prime, so that each address can follow each other one equally often.
const ADDRESSES: [&str; 5] =
    ["known@example.org", "verified@example.org", "disabled@example.org", "unknown@example.org", "other@example.org"];

/// The user who changes to these addresses.
const CALLER: &str = "caller@example.org";

/// The requests for mails whose response must not show whether an address is known, with the mode of registration.
const REQUESTS: [(&str, RegistrationMode); 4] = [
    ("/password-reset", RegistrationMode::Open),
    ("/email-verification", RegistrationMode::Open),
    ("/register", RegistrationMode::Verified),
    ("/me", RegistrationMode::Open),
];

/// What the SMTP server does; `None` if it refuses connections.
fn states() -> [Option<Behaviour>; 4] {
    [Some(Behaviour::Accept), Some(Behaviour::Reply("450 later")), Some(Behaviour::Silent), None]
}

async fn addresses_are_indistinguishable(backend: Backend) {
    for (number, (path, mode)) in REQUESTS.into_iter().enumerate() {
        // A short run sends half of the requests to each database, with one state of the SMTP server for each path.
        let is_short = cycles() <= 3;
        if is_short && (number % 2 == 0) != matches!(backend, Backend::Sqlite) {
            continue;
        }
        let mut smtp = SmtpServer::start().await;
        let settings = |settings: &mut Settings| {
            smtp.configure(settings);
            settings.mail.connect_timeout = 1;
            settings.mail.send_timeout = 1;
            settings.mail.answer_timeout = 1;
            settings.registration.mode = mode;
        };
        let Some(app) = App::start_with(backend, Profile::Fastapi, settings).await else { return };
        app.create_user(CALLER, "member").await;
        for address in &ADDRESSES[..3] {
            app.create_user(address, "member").await;
        }
        let set = |column: &str, name: &str| {
            format!("UPDATE users SET {column} = created_at WHERE email = '{name}@example.org'")
        };
        app.database.execute(set("disabled_at", "disabled")).await;
        app.database.execute(set("email_verified_at", "verified")).await;
        let (first, taken) = if is_short { (number, 1) } else { (0, states().len()) };
        for behaviour in states().into_iter().skip(first).take(taken) {
            match &behaviour {
                Some(behaviour) => smtp.behave(behaviour.clone()),
                // Connections are refused.
                None => smtp.go_down().await,
            }
            let took = requests(&app, path).await;
            for (address, times) in ADDRESSES.iter().zip(&took) {
                let above = probability_above(times, &took[3]);
                let [median, unknown] = [times, &took[3]].map(|times| median(times));
                println!(
                    "{backend:?}, {behaviour:?}, {path}, {address}: {above:.3}, median {median:?} against {unknown:?}"
                );
                assert!((0.45..=0.55).contains(&above), "{address} can be distinguished by time");
            }
        }
    }
}

/// Sends [`ROUNDS`] requests for each address. Returns the times.
async fn requests(app: &App, path: &str) -> [Vec<Duration>; ADDRESSES.len()] {
    let mut took = ADDRESSES.map(|_| Vec::with_capacity(ROUNDS));
    let mut caller = Credential::None;
    for round in 0..ROUNDS {
        if round % 500 == 0 {
            // A sign-in is valid for a day, and a minute passes in each round.
            caller = Credential::Token(app.new_token_of(CALLER).await);
        }
        for position in 0..ADDRESSES.len() {
            let at = (position * (1 + round % (ADDRESSES.len() - 1)) + round) % ADDRESSES.len();
            let body = match path {
                "/register" => registration(ADDRESSES[at]),
                "/me" => json!({ "email": ADDRESSES[at], "current_password": PASSWORD }),
                _ => json!({ "email": ADDRESSES[at] }),
            };
            let sent = Instant::now();
            let answer = match path {
                "/me" => app.patch(path, &caller, &body).await,
                _ => app.post(path, &Credential::None, &body).await,
            };
            took[at].push(sent.elapsed());
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        // New mails leave now and then.
        app.clock.advance(61);
    }
    took
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_requests_for_mails_take_as_long_for_every_address() {
    addresses_are_indistinguishable(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_requests_for_mails_take_as_long_for_every_address() {
    addresses_are_indistinguishable(Backend::Postgres).await;
}
