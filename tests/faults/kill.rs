//! Killed under load: whatever was acknowledged is there afterwards, and what was ended stays dead.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cycles;
use crate::support::Backend;
use crate::support::app::{PASSWORD, registration};
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

/// How long the program works before it is killed.
const LOAD: Duration = Duration::from_secs(2);
const CLIENTS: usize = 6;

/// What the program said that it had done.
#[derive(Default)]
struct Acknowledged {
    users: Vec<String>,
    pages: Vec<(i64, String)>,
    live_keys: Vec<String>,
    dead_keys: Vec<String>,
    dead_tokens: Vec<String>,
}

struct Client<'w> {
    http: reqwest::Client,
    url: String,
    world: &'w Mutex<Acknowledged>,
}

impl Client<'_> {
    /// The answer's status and body; nothing if the program died over it.
    async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.header("Token", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    async fn sign_in(&self, email: &str) -> Option<String> {
        let form = [("grant_type", "password"), ("username", email), ("password", PASSWORD)];
        let response = self.http.post(format!("{}/token", self.url)).form(&form).send().await.ok()?;
        assert_eq!(response.status(), 200);
        let body: Value = response.json().await.ok()?;
        Some(body["access_token"].as_str().unwrap().to_owned())
    }

    /// Registers, signs in, writes, makes keys, revokes one, signs in anew; and so on until the program dies.
    async fn work(&self, name: &str) -> Option<()> {
        for number in 0.. {
            let email = format!("{name}-{number}@example.org");
            let (status, _) = self.ask("POST", "/register", "", Some(registration(&email))).await?;
            assert_eq!(status, 201);
            self.world.lock().unwrap().users.push(email.clone());
            let mut token = self.sign_in(&email).await?;
            for round in 0..3 {
                let title = format!("{email} {round}");
                let (status, page) =
                    self.ask("POST", "/page/", &token, Some(json!({ "title": title, "body": "text" }))).await?;
                assert_eq!(status, 201, "{page}");
                self.world.lock().unwrap().pages.push((page["id"].as_i64().unwrap(), title));
                let (_, key) =
                    self.ask("POST", "/me/keys", &token, Some(json!({ "name": "a key", "scopes": [] }))).await?;
                let secret = key["key"].as_str().unwrap().to_owned();
                if round == 0 {
                    let (status, _) = self.ask("DELETE", &format!("/me/keys/{}", key["id"]), &token, None).await?;
                    assert_eq!(status, 204);
                    self.world.lock().unwrap().dead_keys.push(secret);
                } else {
                    self.world.lock().unwrap().live_keys.push(secret);
                }
                let fresh = self.sign_in(&email).await?;
                self.world.lock().unwrap().dead_tokens.push(std::mem::replace(&mut token, fresh));
            }
        }
        None
    }
}

async fn survives(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let world = Mutex::new(Acknowledged::default());
    let start = || {
        let mut command = latchkey(home.path(), &[]);
        command.env("DATABASE_URL", &database.url).env("LATCHKEY__LIMITS__ENABLED", "false");
        Serving::start(&mut command)
    };
    let client = |serving: &Serving| {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Client { http, url: format!("http://{}", serving.address()), world: &world }
    };
    for cycle in 0..cycles() {
        let serving = start();
        let one = client(&serving);
        let work = join_all((0..CLIENTS).map(|number| {
            let name = format!("user-{cycle}-{number}");
            let one = &one;
            async move { one.work(&name).await }
        }));
        let kill = async {
            tokio::time::sleep(LOAD).await;
            serving.signal("-KILL");
        };
        tokio::join!(work, kill);
        drop(serving);

        let serving = start();
        let one = client(&serving);
        let emails = database.rows("SELECT email AS row FROM users").await;
        let pages = database.rows("SELECT CAST(id AS TEXT) || ' ' || title AS row FROM pages").await;
        let (users, written, live, dead) = {
            let world = world.lock().unwrap();
            let dead = [world.dead_keys.clone(), world.dead_tokens.clone()].concat();
            (world.users.clone(), world.pages.clone(), world.live_keys.clone(), dead)
        };
        assert!(!users.is_empty() && !written.is_empty() && !dead.is_empty(), "there was load");
        for email in &users {
            assert!(emails.contains(email), "{email} was acknowledged and is lost");
        }
        for (id, title) in &written {
            assert!(pages.contains(&format!("{id} {title}")), "page {id} was acknowledged and is lost");
        }
        for (secrets, expected) in [(live, 200), (dead, 403)] {
            for secret in secrets {
                let (status, _) = one.ask("GET", "/protected-route", &secret, None).await.unwrap();
                assert_eq!(status, expected, "a key is lost, or something dead has risen");
            }
        }
    }
    let world = world.lock().unwrap();
    let counts = [&world.dead_keys, &world.dead_tokens, &world.live_keys].map(Vec::len);
    println!(
        "{backend:?}: {} kills; {} users, {} pages, {} live keys kept; {} keys and {} tokens stayed dead",
        cycles(),
        world.users.len(),
        world.pages.len(),
        counts[2],
        counts[0],
        counts[1],
    );
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_nothing_acknowledged_is_lost_and_nothing_dead_rises() {
    survives(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_nothing_acknowledged_is_lost_and_nothing_dead_rises() {
    survives(Backend::Postgres).await;
}
