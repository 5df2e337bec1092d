//! The time of a request for a mail does not reveal whether an address is known, whatever the SMTP server does.

use std::time::{Duration, Instant};

use serde_json::json;

use super::timing::{median, probability_above};
use crate::cycles;
use crate::support::smtp::{Behaviour, SmtpServer};
use crate::support::{App, Backend, Credential, Profile};

/// Requests for each address. The addresses alternate.
fn rounds() -> usize {
    if cycles() > 3 { 2_000 } else { 1_000 }
}

const ADDRESSES: [&str; 4] =
    ["known@example.org", "verified@example.org", "disabled@example.org", "unknown@example.org"];

async fn addresses_are_indistinguishable(backend: Backend) {
    let smtp = SmtpServer::start().await;
    let Some(app) = App::start_with(backend, Profile::Fastapi, |settings| smtp.configure(settings)).await else {
        return;
    };
    for address in &ADDRESSES[..3] {
        app.register(address).await;
    }
    app.database.execute("UPDATE users SET disabled_at = created_at WHERE email = 'disabled@example.org'").await;
    app.database.execute("UPDATE users SET email_verified_at = created_at WHERE email = 'verified@example.org'").await;
    for behaviour in [Behaviour::Accept, Behaviour::Reply("450 later"), Behaviour::Silent] {
        for path in ["/password-reset", "/email-verification"] {
            smtp.behave(behaviour.clone());
            let mut took = ADDRESSES.map(|_| Vec::<Duration>::with_capacity(rounds()));
            for round in 0..rounds() {
                for position in 0..ADDRESSES.len() {
                    // Varies the order, so that no address always follows the same other one.
                    let at = (position * (1 + round % 3) + round) % ADDRESSES.len();
                    let sent = Instant::now();
                    let answer = app.post(path, &Credential::None, &json!({ "email": ADDRESSES[at] })).await;
                    took[at].push(sent.elapsed());
                    assert_eq!(answer.status, 202, "{answer:?}");
                }
                // New mails leave now and then.
                app.clock.advance(61);
            }
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
