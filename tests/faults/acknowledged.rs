//! Records which changes were acknowledged to clients, and checks afterwards that they are stored.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client};
use crate::support::database::Database;

/// Maximum time until a change of each kind was acknowledged, on a busy machine.
const MAX_WARM_UP: Duration = Duration::from_secs(60);

/// The acknowledged changes of all workers, and counts of their responses.
#[derive(Default)]
pub struct Acknowledged {
    pub users: Vec<String>,
    /// Ids and titles.
    pub pages: Vec<(u64, String)>,
    pub valid_keys: Vec<String>,
    pub revoked_keys: Vec<String>,
    pub revoked_tokens: Vec<String>,
    pub responses: u32,
    /// Responses with the status 503 or 504.
    pub unavailable: u32,
    pub slowest: Duration,
}

impl Acknowledged {
    /// Whether a change of each kind was acknowledged.
    fn has_every_kind(&self) -> bool {
        !self.users.is_empty()
            && !self.pages.is_empty()
            && [&self.valid_keys, &self.revoked_keys, &self.revoked_tokens].iter().all(|secrets| !secrets.is_empty())
    }

    /// Checks that all acknowledged changes are stored, and that no revoked credential is valid.
    pub async fn assert_stored(&self, client: &Client, database: &Database) {
        assert!(self.has_every_kind(), "there was load: {self}");
        let users: HashSet<_> = database.rows("SELECT email AS row FROM users").await.into_iter().collect();
        let pages = database.rows("SELECT CAST(id AS TEXT) || ' ' || title AS row FROM pages").await;
        let pages: HashSet<_> = pages.into_iter().collect();
        for email in &self.users {
            assert!(users.contains(email), "{email} was acknowledged and is lost");
        }
        for (id, title) in &self.pages {
            assert!(pages.contains(&format!("{id} {title}")), "page {id} was acknowledged and is lost");
        }
        for (secrets, expected) in [(&self.valid_keys, 200), (&self.revoked_keys, 403), (&self.revoked_tokens, 403)] {
            for secret in secrets {
                let answer = client.available("GET", "/protected-route", secret).await;
                assert_eq!(
                    answer.status, expected,
                    "a key is lost, or a revoked credential is valid again: {answer:?}"
                );
            }
        }
    }
}

/// Returns after the workers have run for `duration`, and a change of each kind was acknowledged to them.
pub async fn load(acknowledged: &Mutex<Acknowledged>, duration: Duration) {
    tokio::time::sleep(duration).await;
    let waited = Instant::now();
    while !acknowledged.lock().unwrap().has_every_kind() {
        assert!(waited.elapsed() < MAX_WARM_UP, "the workers make no progress: {}", acknowledged.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl std::fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} responses, {} of them 503 or 504, the slowest after {:?}; {} users, {} pages and {} keys are stored; {} keys and {} tokens are still revoked",
            self.responses,
            self.unavailable,
            self.slowest,
            self.users.len(),
            self.pages.len(),
            self.valid_keys.len(),
            self.revoked_keys.len(),
            self.revoked_tokens.len(),
        )
    }
}

/// Why a request was not acknowledged. It may have been carried out nevertheless.
enum Unacknowledged {
    Unavailable,
    ServerDied,
}

/// One of several clients. It records what is acknowledged to it.
pub struct Worker<'w> {
    name: String,
    client: &'w Client,
    acknowledged: &'w Mutex<Acknowledged>,
}

impl<'w> Worker<'w> {
    /// This many workers, whose names begin with `prefix`.
    pub fn group(
        prefix: &str,
        count: usize,
        client: &'w Client,
        acknowledged: &'w Mutex<Acknowledged>,
    ) -> Vec<Worker<'w>> {
        (0..count).map(|number| Worker { name: format!("{prefix}-{number}"), client, acknowledged }).collect()
    }

    /// Acts as one new user after another until `is_over` returns true or the server has died.
    pub async fn run(&self, is_over: impl Fn() -> bool) {
        let mut number = 0;
        while !is_over() {
            number += 1;
            let email = format!("{}-{number}@example.org", self.name);
            if matches!(self.act_as(&email).await, Err(Unacknowledged::ServerDied)) {
                return;
            }
        }
    }

    /// Registers and signs in. Then reads, writes a page, creates a key and signs in again, three times. Revokes the
    /// first key.
    async fn act_as(&self, email: &str) -> Result<(), Unacknowledged> {
        let client = self.client;
        self.record(client.register(email).await)?;
        self.acknowledged.lock().unwrap().users.push(email.to_owned());
        let mut token = self.record(client.sign_in(email).await)?.text("access_token");
        for round in 0..3 {
            for path in ["/protected-route", "/page/", "/me"] {
                self.record(client.request("GET", path, &token, None).await)?;
            }
            let title = format!("{email} {round}");
            let page = self.record(client.write_page(&token, &title).await)?;
            self.acknowledged.lock().unwrap().pages.push((page.number("id"), title));
            let created = self.record(client.create_key(&token).await)?;
            if round == 0 {
                let path = format!("/me/keys/{}", created.body["id"]);
                self.record(client.request("DELETE", &path, &token, None).await)?;
                self.acknowledged.lock().unwrap().revoked_keys.push(created.text("key"));
            } else {
                self.acknowledged.lock().unwrap().valid_keys.push(created.text("key"));
            }
            let new_token = self.record(client.sign_in(email).await)?.text("access_token");
            self.acknowledged.lock().unwrap().revoked_tokens.push(std::mem::replace(&mut token, new_token));
        }
        Ok(())
    }

    /// Counts a response and checks that it is allowed during an outage.
    fn record(&self, answer: Option<Answer>) -> Result<Answer, Unacknowledged> {
        let answer = answer.ok_or(Unacknowledged::ServerDied)?;
        let is_success = answer.assert_graceful(&self.name);
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.responses += 1;
        acknowledged.unavailable += u32::from(!is_success);
        acknowledged.slowest = acknowledged.slowest.max(answer.took);
        if is_success { Ok(answer) } else { Err(Unacknowledged::Unavailable) }
    }
}
