//! Histories of sign-ins, uses and revocations on two processes at once, which are checked afterwards: a valid token is
//! never refused, and a revoked one is refused at once by the process that revoked it and within a second by the other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::app::PASSWORD;
use crate::support::program::{Serving, latchkey};
use crate::support::{App, Backend, Profile};

/// The time within which other processes see a revocation. It holds on a busy machine too: a process that has not read
/// the change log up to 0.9 s ago queries the database.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// How long a token is used before it is revoked.
const USED_BEFORE_REVOCATION: Duration = Duration::from_millis(150);
/// Time-out for the uses of one token on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

const USERS: usize = 4;
const ROUNDS: usize = 4;

/// Where a token is used or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The server in this process.
    ThisProcess,
    /// The program, in another process.
    OtherProcess,
    /// Directly in the database, by SQL.
    Database,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    at: Place,
    began: Instant,
    ended: Instant,
    status: u16,
}

struct Setup {
    app: App,
    other_address: String,
    http: reqwest::Client,
}

impl Setup {
    fn url(&self, place: Place, path: &str) -> String {
        match place {
            Place::OtherProcess => format!("http://{}{path}", self.other_address),
            Place::ThisProcess | Place::Database => self.app.url(path),
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
            Place::Database => {
                let users = format!("SELECT id FROM users WHERE email = '{email}'");
                self.app.database.execute(format!("DELETE FROM access_tokens WHERE user_id IN ({users})")).await;
            }
            Place::ThisProcess | Place::OtherProcess => {
                let request = self.http.delete(self.url(at, "/token")).bearer_auth(token);
                assert_eq!(request.send().await.unwrap().status().as_u16(), 204);
            }
        }
    }
}

/// Signs in one user several times. Each token is used on both processes until after its revocation must be seen.
async fn use_tokens(setup: &Setup, number: usize) {
    let email = format!("user{number}@example.org");
    setup.app.register(&email).await;
    for round in 0..ROUNDS {
        let token = setup.app.new_token_of(&email).await;
        let issued = Instant::now();
        // Where the token was revoked, and when the revocation returned.
        let ended: OnceLock<(Place, Instant)> = OnceLock::new();
        let seen = |at: Place| {
            ended.get().map(|(place, returned)| if at == *place { *returned } else { *returned + SEEN_WITHIN })
        };
        let use_repeatedly = async |at| {
            let (mut uses, began) = (Vec::new(), Instant::now());
            // Until a use has begun after the revocation must be seen.
            while uses.last().is_none_or(|used: &Use| seen(at).is_none_or(|seen| used.began <= seen)) {
                assert!(began.elapsed() < TIMEOUT, "the history has no end");
                uses.push(setup.use_once(at, &token).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            uses
        };
        let revoke = async {
            tokio::time::sleep(USED_BEFORE_REVOCATION).await;
            let place =
                [Place::ThisProcess, Place::OtherProcess, Place::Database, Place::ThisProcess][(number + round) % 4];
            let revocation_began = Instant::now();
            // A new sign-in revokes the old token, too.
            if (number + round) % 4 == 3 {
                assert_eq!(setup.app.sign_in(&email, PASSWORD).await.status, 200);
            } else {
                setup.revoke(place, &email, &token).await;
            }
            ended.set((place, Instant::now())).unwrap();
            revocation_began
        };
        let places = [Place::ThisProcess, Place::OtherProcess, Place::ThisProcess, Place::OtherProcess];
        let (uses, revocation_began) = tokio::join!(join_all(places.map(use_repeatedly)), revoke);
        for used in uses.into_iter().flatten() {
            if used.began >= issued && used.ended <= revocation_began {
                assert_eq!(used.status, 200, "a valid token is refused: {used:?}");
            }
            if seen(used.at).is_some_and(|seen| used.began > seen) {
                assert_eq!(used.status, 401, "a revoked token ({ended:?}) still works: {used:?}");
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
    let setup = Setup { app, other_address: serving.address(), http };

    let done = AtomicBool::new(false);
    let uses = async {
        join_all((0..USERS).map(|number| use_tokens(&setup, number))).await;
        done.store(true, Ordering::Relaxed);
    };
    let disturb = async {
        let mut killed = 0;
        while backend == Backend::Postgres && !done.load(Ordering::Relaxed) {
            killed += setup.app.database.end_change_log_readers().await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert_eq!(killed > 0, backend == Backend::Postgres, "{killed} readers were killed");
    };
    tokio::join!(uses, disturb);
}

#[tokio::test]
async fn two_processes_on_one_file_agree_on_which_tokens_are_valid() {
    histories(Backend::Sqlite).await;
}

#[tokio::test]
async fn two_replicas_on_postgres_agree_on_which_tokens_are_valid_while_their_readers_are_killed() {
    histories(Backend::Postgres).await;
}
