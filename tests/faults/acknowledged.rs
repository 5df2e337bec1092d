//! What clients were told that is done, and whether it is.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use crate::client::{Answer, Client};
use crate::support::database::Database;

/// What the program said that it had done, and how it said it.
#[derive(Default)]
pub struct Acknowledged {
    pub users: Vec<String>,
    pub pages: Vec<(i64, String)>,
    pub live_keys: Vec<String>,
    pub dead_keys: Vec<String>,
    pub dead_tokens: Vec<String>,
    pub answers: u32,
    pub told_to_come_back: u32,
    pub slowest: Duration,
}

impl Acknowledged {
    /// Checks that all of it is so.
    pub async fn holds(&self, client: &Client, database: &Database) {
        let users: HashSet<_> = database.rows("SELECT email AS row FROM users").await.into_iter().collect();
        let pages = database.rows("SELECT CAST(id AS TEXT) || ' ' || title AS row FROM pages").await;
        let pages: HashSet<_> = pages.into_iter().collect();
        for email in &self.users {
            assert!(users.contains(email), "{email} was acknowledged and is lost");
        }
        for (id, title) in &self.pages {
            assert!(pages.contains(&format!("{id} {title}")), "page {id} was acknowledged and is lost");
        }
        for (secrets, expected) in [(&self.live_keys, 200), (&self.dead_keys, 403), (&self.dead_tokens, 403)] {
            assert!(!secrets.is_empty(), "there was load");
            for secret in secrets {
                let answer = client.ask("GET", "/protected-route", secret, None).await.unwrap();
                assert_eq!(answer.status, expected, "a key is lost, or something dead has risen");
            }
        }
    }
}

impl std::fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} answers, of which {} were 503 or 504, the slowest after {:?}; {} users, {} pages and {} keys kept; {} keys and {} tokens stayed dead",
            self.answers,
            self.told_to_come_back,
            self.slowest,
            self.users.len(),
            self.pages.len(),
            self.live_keys.len(),
            self.dead_keys.len(),
            self.dead_tokens.len(),
        )
    }
}

/// Why a client did not get done what it asked for. Whether it was done nobody knows.
enum Trouble {
    ToldToComeBack,
    ProgramDied,
}

/// One client of many, who notes what they were told.
pub struct Worker<'w> {
    pub name: String,
    pub client: &'w Client,
    pub world: &'w Mutex<Acknowledged>,
}

impl Worker<'_> {
    /// Lives one user's life after the other, until the end or until the program has died.
    pub async fn work(&self, end: impl Fn() -> bool) {
        let mut number = 0;
        while !end() {
            number += 1;
            let email = format!("{}-{number}@example.org", self.name);
            if matches!(self.live(&email).await, Err(Trouble::ProgramDied)) {
                return;
            }
        }
    }

    /// Registers, signs in, reads, writes, makes keys, revokes one, signs in anew.
    async fn live(&self, email: &str) -> Result<(), Trouble> {
        let client = self.client;
        self.told(client.register(email).await)?;
        self.world.lock().unwrap().users.push(email.to_owned());
        let mut token = self.told(client.sign_in(email).await)?.text("access_token");
        for round in 0..3 {
            for path in ["/protected-route", "/page/", "/me"] {
                self.told(client.ask("GET", path, &token, None).await)?;
            }
            let title = format!("{email} {round}");
            let page = self.told(client.write_page(&token, &title).await)?;
            self.world.lock().unwrap().pages.push((page.body["id"].as_i64().unwrap(), title));
            let made = self.told(client.make_key(&token).await)?;
            if round == 0 {
                let path = format!("/me/keys/{}", made.body["id"]);
                self.told(client.ask("DELETE", &path, &token, None).await)?;
                self.world.lock().unwrap().dead_keys.push(made.text("key"));
            } else {
                self.world.lock().unwrap().live_keys.push(made.text("key"));
            }
            let fresh = self.told(client.sign_in(email).await)?.text("access_token");
            self.world.lock().unwrap().dead_tokens.push(std::mem::replace(&mut token, fresh));
        }
        Ok(())
    }

    /// Notes an answer, which must be one that clients may be given.
    fn told(&self, answer: Option<Answer>) -> Result<Answer, Trouble> {
        let answer = answer.ok_or(Trouble::ProgramDied)?;
        let good = answer.is_fair(&self.name);
        let mut world = self.world.lock().unwrap();
        world.answers += 1;
        world.told_to_come_back += u32::from(!good);
        world.slowest = world.slowest.max(answer.took);
        if good { Ok(answer) } else { Err(Trouble::ToldToComeBack) }
    }
}
