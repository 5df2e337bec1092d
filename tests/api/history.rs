//! Whole histories of sign-ins, uses and revocations on two processes at once, checked afterwards: a live token is never
//! refused, and a dead one is refused at once where it was ended, and within a second elsewhere.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::app::PASSWORD;
use crate::support::program::{Serving, latchkey};
use crate::support::{App, Backend, Profile};

/// Within which other processes see a revocation. No delay of this machine can break it: a process that does not know
/// of everything up to 0.9 s ago asks the database.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// How long a token is used before its revocation.
const BEFORE: Duration = Duration::from_millis(150);
/// How long a busy machine may take over one more use.
const PATIENCE: Duration = Duration::from_secs(20);

const USERS: usize = 4;
const ROUNDS: usize = 4;

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The server in this process.
    Here,
    /// The program, in a process of its own.
    There,
    /// In the database, by SQL.
    Beside,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    at: Place,
    began: Instant,
    ended: Instant,
    status: u16,
}

struct World {
    app: App,
    there: String,
    http: reqwest::Client,
}

impl World {
    fn url(&self, place: Place, path: &str) -> String {
        match place {
            Place::There => format!("http://{}{path}", self.there),
            Place::Here | Place::Beside => self.app.url(path),
        }
    }

    async fn use_once(&self, at: Place, token: &str) -> Use {
        let began = Instant::now();
        let request = self.http.get(self.url(at, "/protected-route")).bearer_auth(token);
        let status = request.send().await.unwrap().status().as_u16();
        Use { at, began, ended: Instant::now(), status }
    }

    async fn revoke(&self, at: Place, email: &str, token: &str) {
        match at {
            Place::Beside => {
                let users = format!("SELECT id FROM users WHERE email = '{email}'");
                self.app.database.execute(format!("DELETE FROM access_tokens WHERE user_id IN ({users})")).await;
            }
            Place::Here | Place::There => {
                let request = self.http.delete(self.url(at, "/token")).bearer_auth(token);
                assert_eq!(request.send().await.unwrap().status().as_u16(), 204);
            }
        }
    }
}

/// One user's tokens, one after the other, each used on both processes until well after its end.
async fn live(world: &World, number: usize) {
    let email = format!("user{number}@example.org");
    world.app.register(&email).await;
    for round in 0..ROUNDS {
        let token = world.app.new_token_of(&email).await;
        let issued = Instant::now();
        // Where it was ended, and when that was answered.
        let ended: OnceLock<(Place, Instant)> = OnceLock::new();
        let seen = |at: Place| {
            ended.get().map(|(place, answered)| if at == *place { *answered } else { *answered + SEEN_WITHIN })
        };
        let hammer = async |at| {
            let (mut uses, began) = (Vec::new(), Instant::now());
            // Until one use has begun after it must be seen.
            while uses.last().is_none_or(|used: &Use| seen(at).is_none_or(|seen| used.began <= seen)) {
                assert!(began.elapsed() < PATIENCE, "the history has no end");
                uses.push(world.use_once(at, &token).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            uses
        };
        let revoke = async {
            tokio::time::sleep(BEFORE).await;
            let place = [Place::Here, Place::There, Place::Beside, Place::Here][(number + round) % 4];
            let asked = Instant::now();
            // A new sign-in ends the old token, too.
            if (number + round) % 4 == 3 {
                assert_eq!(world.app.sign_in(&email, PASSWORD).await.status, 200);
            } else {
                world.revoke(place, &email, &token).await;
            }
            ended.set((place, Instant::now())).unwrap();
            asked
        };
        let places = [Place::Here, Place::There, Place::Here, Place::There];
        let (uses, asked) = tokio::join!(join_all(places.map(hammer)), revoke);
        for used in uses.into_iter().flatten() {
            if used.began >= issued && used.ended <= asked {
                assert_eq!(used.status, 200, "a live token is refused: {used:?}");
            }
            if seen(used.at).is_some_and(|seen| used.began > seen) {
                assert_eq!(used.status, 401, "a token that was ended ({ended:?}) still works: {used:?}");
            }
            assert!([200, 401].contains(&used.status), "{used:?}");
        }
    }
}

async fn histories(backend: Backend) {
    let Some(app) = App::start(backend, Profile::Rfc).await else { return };
    let home = tempfile::TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &[]);
    command.env("DATABASE_URL", &app.database.url).env("LATCHKEY__HTTP__STATUS_CODES", "rfc");
    let serving = Serving::start(command.env("LATCHKEY__LIMITS__ENABLED", "false"));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let world = World { app, there: serving.address(), http };

    let done = AtomicBool::new(false);
    let lives = async {
        join_all((0..USERS).map(|number| live(&world, number))).await;
        done.store(true, Ordering::Relaxed);
    };
    let disturb = async {
        while backend == Backend::Postgres && !done.load(Ordering::Relaxed) {
            let readers =
                "pg_stat_activity WHERE application_name = 'latchkey-change-log' AND datname = current_database()";
            world.app.database.execute(format!("SELECT pg_terminate_backend(pid) FROM {readers}")).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    tokio::join!(lives, disturb);
}

#[tokio::test]
async fn two_processes_on_one_file_agree_on_which_tokens_live() {
    histories(Backend::Sqlite).await;
}

#[tokio::test]
async fn two_replicas_on_postgres_agree_on_which_tokens_live_while_their_readers_are_killed() {
    histories(Backend::Postgres).await;
}
