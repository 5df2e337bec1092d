//! Parallel requests on the same rows.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel::{Connection, PgConnection, RunQueryDsl};
use serde_json::json;

use crate::support::app::PASSWORD;
use crate::support::client::Request;
use crate::support::{Answer, App, Backend, Credential, Profile, specify};

/// The number of parallel requests.
const PARALLEL: usize = 32;
/// The longest time until requests wait for a locked row. The requests themselves have a shorter time-out.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends all requests in parallel; returns the responses in the same order.
async fn at_once<F: Future<Output = Answer> + Send + 'static>(requests: impl IntoIterator<Item = F>) -> Vec<Answer> {
    let running: Vec<_> = requests.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::new();
    for request in running {
        answers.push(request.await.unwrap());
    }
    answers
}

/// The number of responses with this status.
fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

specify! {
    async fn one_of_parallel_registrations_succeeds(app: App) {
        for round in 0..3 {
            let bodies = (0..PARALLEL).map(|number| {
                // The same address in 32 spellings of its case.
                let local: String = "races".chars().enumerate().map(|(bit, letter)| {
                    if number >> bit & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
                }).collect();
                crate::support::app::registration(&format!("{local}{round}@example.org"))
            });
            let answers = at_once(bodies.map(|body| app.request("POST", "/register").json(&body).send())).await;
            assert_eq!(count(&answers, 201), 1, "{answers:?}");
            assert_eq!(count(&answers, 409), PARALLEL - 1, "{answers:?}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 3);
    }

    async fn one_token_of_parallel_sign_ins_stays_valid(app: App) {
        app.register("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let answers = at_once((0..PARALLEL).map(|_| app.request("POST", "/token").form(&form).send())).await;
        assert_eq!(count(&answers, 200), PARALLEL, "{answers:?}");

        let tokens = answers.iter().map(|answer| answer.body["access_token"].as_str().unwrap().to_owned());
        let uses = at_once(tokens.map(|token| app.request("GET", "/me").credential(&Credential::Bearer(token)).send())).await;
        assert_eq!(count(&uses, 200), 1, "{uses:?}");
        assert_eq!(count(&uses, 401), PARALLEL - 1, "{uses:?}");
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 1);
    }

    async fn parallel_writes_never_find_the_database_locked(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = serde_json::json!({ "title": "t", "body": "b" });
        let writes = (0..4 * PARALLEL).map(|_| app.request("POST", "/page/").credential(&ada).json(&body).send());
        let answers = at_once(writes).await;
        assert_eq!(count(&answers, 201), 4 * PARALLEL, "{answers:?}");
        assert_eq!(app.get("/page/", &ada).await.body["total"], 4 * PARALLEL);
    }

    async fn one_of_parallel_changes_to_the_same_version_succeeds(app: App) {
        let ada = app.user("ada@example.org").await;
        let body = serde_json::json!({ "title": "t", "body": "b" });
        app.post("/page/", &ada, &body).await;
        let changes = (0..PARALLEL).map(|_| {
            app.request("PUT", "/page/1").credential(&ada).header("If-Match", "\"1\"").json(&body).send()
        });
        let answers = at_once(changes).await;
        assert_eq!(count(&answers, 200), 1, "{answers:?}");
        assert_eq!(count(&answers, 412), PARALLEL - 1, "{answers:?}");
    }

    async fn a_signed_out_token_is_rejected_by_every_later_request(app: App) {
        for _ in 0..10 {
            let email = format!("user{}@example.org", rand::random::<u64>());
            let ada = app.user(&email).await;
            let signed_out = app.request("DELETE", "/token").credential(&ada).send().await;
            assert_eq!(signed_out.status, 204);
            let uses = at_once((0..16).map(|_| app.request("GET", "/me").credential(&ada).send())).await;
            assert_eq!(count(&uses, app.expected.bad_token_header), 16, "{uses:?}");
        }
    }

    async fn a_user_deleted_during_sign_in_leaves_no_token(app: App) {
        app.register("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let running: Vec<_> = (0..8).map(|_| tokio::spawn(app.request("POST", "/token").form(&form).send())).collect();
        app.database.execute("DELETE FROM users").await;
        for request in running {
            let answer = request.await.unwrap();
            assert!([200, app.expected.bad_password].contains(&answer.status), "{answer:?}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 0);
    }

    async fn one_of_parallel_keys_at_the_limit_is_created(app: App) {
        let ada = app.user("ada@example.org").await;
        for _ in 0..99 {
            app.key_of(&ada, &[]).await;
        }
        let body = json!({ "name": "k", "scopes": [] });
        let answers = at_once((0..PARALLEL).map(|_| app.request("POST", "/me/keys").credential(&ada).json(&body).send())).await;
        assert_eq!(count(&answers, 201), 1, "{answers:?}");
        assert_eq!(count(&answers, 409), PARALLEL - 1, "{answers:?}");
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys").await, 100);
    }

    async fn one_key_is_issued_for_parallel_requests_with_the_same_order(app: App) {
        let root = app.admin("shop@example.org").await;
        let body = json!({ "name": "k", "scopes": ["translate:use"], "order": "1001" });
        for idempotency_key in [None, Some("request 7")] {
            let body = if idempotency_key.is_some() { json!({ "name": "k", "scopes": [] }) } else { body.clone() };
            let requests = (0..PARALLEL).map(|_| {
                let request = app.request("POST", "/keys").credential(&root).json(&body);
                match idempotency_key {
                    Some(value) => request.header("Idempotency-Key", value).send(),
                    None => request.send(),
                }
            });
            let answers = at_once(requests.collect::<Vec<_>>()).await;
            assert_eq!(count(&answers, 201), 1, "{answers:?}");
            assert_eq!(count(&answers, 200), PARALLEL - 1, "{answers:?}");
            assert!(answers.iter().all(|answer| answer.body["id"] == answers[0].body["id"]), "{answers:?}");
            let secrets: Vec<&str> = answers.iter().filter_map(|answer| answer.body["key"].as_str()).collect();
            assert_eq!(secrets.len(), if idempotency_key.is_some() { PARALLEL } else { 1 }, "each repetition returns a new secret");
            let mut valid = 0;
            for secret in secrets {
                valid += u8::from(app.get("/protected-route", &Credential::Token(secret.to_owned())).await.status == 200);
            }
            assert_eq!(valid, 1, "one secret is valid");
        }
        let entries = app.trail(&root, "action=key.issue").await;
        assert_eq!(entries.iter().filter(|entry| entry["detail"] != "repeated").count(), 2);
    }

    async fn parallel_repetitions_of_a_rotation_leave_one_new_secret_and_the_overlap(app: App) {
        let ada = app.user("ada@example.org").await;
        let (old, id) = app.key_of(&ada, &[]).await;
        let body = json!({ "overlap_seconds": 600 });
        let rotations = (0..PARALLEL).map(|_| {
            let request = app.request("POST", &format!("/me/keys/{id}/rotate")).credential(&ada);
            request.header("Idempotency-Key", "rotation 1").json(&body).send()
        });
        let answers = at_once(rotations.collect::<Vec<_>>()).await;
        assert_eq!(count(&answers, 200), PARALLEL, "{answers:?}");
        let ends = &answers[0].body["previous_expires_at"];
        assert!(answers.iter().all(|answer| answer.body["previous_expires_at"] == *ends), "{answers:?}");
        let mut valid = 0;
        for answer in &answers {
            let secret = Credential::Token(answer.text_of("key"));
            valid += u8::from(app.get("/protected-route", &secret).await.status == 200);
        }
        assert_eq!(valid, 1);
        assert_eq!(app.get("/protected-route", &old).await.status, 200);
    }

    async fn one_of_parallel_claims_gets_the_secret(app: App) {
        let root = app.admin("shop@example.org").await;
        let body = json!({ "name": "k", "scopes": [], "delivery": "claim" });
        let claim = json!({ "claim": app.post("/keys", &root, &body).await.text_of("claim") });
        let answers = at_once((0..PARALLEL).map(|_| app.request("POST", "/keys/claim").json(&claim).send())).await;
        assert_eq!(count(&answers, 200), 1, "{answers:?}");
        assert_eq!(count(&answers, 410), PARALLEL - 1, "{answers:?}");
    }

    async fn a_key_revoked_during_rotation_is_rejected(app: App) {
        let ada = app.user("ada@example.org").await;
        for _ in 0..5 {
            let (old, id) = app.key_of(&ada, &[]).await;
            let rotate = |_| app.request("POST", &format!("/me/keys/{id}/rotate")).credential(&ada).json(&json!({ "overlap_seconds": 60 }));
            let mut requests: Vec<_> = (0..7).map(rotate).collect();
            requests.insert(3, app.request("DELETE", &format!("/me/keys/{id}")).credential(&ada));
            let answers = at_once(requests.into_iter().map(Request::send)).await;
            assert_eq!(count(&answers, 204), 1, "{answers:?}");
            assert!(answers.iter().all(|answer| [200, 204, 404].contains(&answer.status)), "{answers:?}");
            let secrets = answers.iter().filter_map(|answer| answer.body["key"].as_str());
            let secrets = secrets.map(|secret| Credential::Token(secret.to_owned())).chain([old]);
            for secret in secrets {
                assert_eq!(app.get("/protected-route", &secret).await.status, app.expected.bad_token_header);
            }
        }
    }

    async fn two_admins_who_remove_each_other_leave_one(app: App) {
        for round in 0..5 {
            let emails = [0, 1].map(|number| format!("admin{number}-{round}@example.org"));
            let admins = [app.admin(&emails[0]).await, app.admin(&emails[1]).await];
            let mut ids = Vec::new();
            for admin in &admins {
                ids.push(app.get("/me", admin).await.body["id"].clone());
            }
            let answers = match round % 3 {
                0 => at_once([(0, 1), (1, 0)].map(|(actor, target)| {
                    app.request("PATCH", &format!("/users/{}", ids[target])).credential(&admins[actor]).json(&json!({ "role": "member" })).send()
                })).await,
                1 => at_once([0, 1].map(|actor| app.request("DELETE", "/me").credential(&admins[actor]).send())).await,
                _ => at_once([(0, 1), (1, 0)].map(|(actor, target)| {
                    app.request("PATCH", &format!("/users/{}", ids[target])).credential(&admins[actor]).json(&json!({ "disabled": true })).send()
                })).await,
            };
            assert!(answers.iter().all(|answer| answer.status < 500), "{answers:?}");
            let remaining = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL";
            assert_eq!(app.database.number(remaining).await, 1, "round {round}: {answers:?}");
            app.database.execute("UPDATE users SET role = 'member'").await;
        }
    }

    async fn parallel_requests_of_all_kinds_on_one_account_never_deadlock(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let (key, _) = app.key_of(&ada, &["pages:write", "keys:write", "keys:issue"]).await;
        let page = json!({ "title": "t", "body": "b" });
        let request = |number: usize| match number % 8 {
            0 => app.request("POST", "/token").form(&form),
            1 => app.request("POST", "/page/").credential(&key).json(&page),
            2 => app.request("PATCH", "/users/2").credential(&root).json(&json!({ "role": "admin" })),
            3 => app.request("POST", "/me/keys").credential(&key).json(&json!({ "name": "k", "scopes": [] })),
            4 => app.request("PUT", "/page/1").credential(&key).json(&page),
            5 => app.request("DELETE", "/users/2/token").credential(&root),
            6 => app.request("POST", "/keys").credential(&key).json(&json!({ "name": "k", "scopes": [], "order": "1" })),
            _ => app.request("PATCH", "/users/1").credential(&ada).json(&json!({ "role": "admin" })),
        };
        let answers = at_once((0..3 * PARALLEL).map(|number| request(number).send())).await;
        let failed: Vec<_> = answers.iter().filter(|answer| answer.status >= 500).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    async fn many_changes_of_one_user_do_not_block_other_users(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let page = json!({ "title": "t", "body": "b" });
        let mut requests: Vec<_> = (0..4 * PARALLEL).map(|_| app.request("POST", "/page/").credential(&ada).json(&page)).collect();
        requests.extend((0..PARALLEL).map(|_| app.request("GET", "/page/1").credential(&eve)));
        let answers = at_once(requests.into_iter().map(Request::send)).await;
        assert!(answers.iter().all(|answer| answer.status < 500), "{answers:?}");
    }

    async fn a_user_deleted_by_an_admin_during_sign_in_leaves_no_credentials(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD)];
        let mut requests: Vec<_> = (0..12).map(|_| app.request("POST", "/token").form(&form)).collect();
        requests.insert(6, app.request("DELETE", "/users/2").credential(&root));
        requests.push(app.request("POST", "/me/keys").credential(&ada).json(&json!({ "name": "k", "scopes": [] })));
        let answers = at_once(requests.into_iter().map(Request::send)).await;
        assert_eq!(count(&answers, 204), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.status < 500), "{answers:?}");
        for table in ["access_tokens WHERE user_id = 2", "api_keys WHERE owner_id = 2"] {
            assert_eq!(app.database.number(format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
        }
    }

    async fn a_request_pending_when_its_user_loses_the_role_changes_nothing(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.token_of("ada@example.org").await;
        let pending = send_head(&app, &ada).await;
        assert_eq!(app.patch("/users/2", &root, &json!({ "role": "auditor" })).await.status, 200);
        let answer = pending.finish().await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("pages:write"), "{answer}");
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
        assert_eq!(app.trail(&root, "action=page.create&outcome=denied").await.len(), 1);
    }

    async fn a_request_pending_when_its_token_expires_changes_nothing(app: App) {
        let ada = app.token_of("ada@example.org").await;
        let pending = send_head(&app, &ada).await;
        app.clock.advance(24 * 3600);
        let answer = pending.finish().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", app.expected.bad_token_header)), "{answer}");
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
    }

    async fn a_request_pending_when_its_token_is_revoked_changes_nothing(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let (Credential::Token(ada_token), Credential::Token(eve_token)) = (&ada, &eve) else { panic!("tokens") };
        let (ada_pending, eve_pending) = (send_head(&app, ada_token).await, send_head(&app, eve_token).await);
        assert_eq!(app.request("DELETE", "/token").credential(&ada).send().await.status, 204);
        app.database.execute("DELETE FROM users WHERE email = 'eve@example.org'").await;
        for pending in [ada_pending, eve_pending] {
            let answer = pending.finish().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", app.expected.bad_token_header)), "{answer}");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
    }
}

/// Runs `statement` in a new transaction on a new connection; returns the connection and the id of its server process.
#[expect(clippy::disallowed_methods, reason = "tests connect to the server directly")]
fn hold(app: &App, statement: &str) -> (PgConnection, i32) {
    let mut holder = PgConnection::establish(&app.database.url).unwrap();
    holder.batch_execute(&format!("BEGIN; {statement}")).unwrap();
    let process = diesel::select(sql::<Integer>("pg_backend_pid()")).get_result(&mut holder).unwrap();
    (holder, process)
}

/// A query for the number of transactions that wait for this process, directly or indirectly.
fn blocked_by(process: i32) -> String {
    format!(
        "WITH RECURSIVE blocked AS (SELECT {process} AS pid UNION SELECT waiting.pid \
         FROM pg_stat_activity waiting, blocked WHERE blocked.pid = ANY(pg_blocking_pids(waiting.pid))) \
         SELECT count(*) - 1 FROM blocked"
    )
}

/// Runs `work` while another transaction has run `statement`. That transaction ends with `end` as soon as `count`
/// transactions wait for it.
async fn while_held<T>(app: &App, statement: &str, count: i64, end: &str, work: impl Future<Output = T>) -> T {
    let (mut holder, process) = hold(app, statement);
    let started = Instant::now();
    let release = async {
        while app.database.number(blocked_by(process)).await < count {
            assert!(started.elapsed() < BLOCK_TIMEOUT, "fewer than {count} wait for: {statement}");
            tokio::task::yield_now().await;
        }
        holder.batch_execute(end).unwrap();
    };
    let (answer, ()) = tokio::join!(work, release);
    answer
}

/// The responses to two parallel requests that both wait for the row of their user before either changes anything.
async fn both_blocked_on_user(app: &App, owner: i64, send: impl AsyncFn() -> Answer) -> [Answer; 2] {
    let owners_row = format!("SELECT FROM users WHERE id = {owner} FOR UPDATE");
    let both = Box::pin(async { tokio::join!(send(), send()) });
    let (one, other) = while_held(app, &owners_row, 2, "ROLLBACK", both).await;
    [one, other]
}

/// The response to a request that has read the row of its user and is blocked on a write while `change` is committed.
async fn after_concurrent_change(change: &str, app: &App, request: impl Future<Output = Answer>) -> Answer {
    while_held(app, change, 1, "COMMIT", Box::pin(request)).await
}

#[tokio::test]
async fn a_password_check_fails_if_the_hash_changes_or_the_user_is_disabled_meanwhile() {
    // The hash that the bcrypt package of Python makes of "password".
    const REPLACED: &str =
        "UPDATE users SET hashed_password = '$2b$04$NffPZaD64qB7IaQWoSmKd.RU6ufQfwLC/Uc3LbWxrADycjB8lb8Am'";
    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    let ada = app.user("ada@example.org").await;
    let stored = async || {
        let row = "SELECT email || ' ' || hashed_password || ' ' || access_token AS row FROM users, access_tokens";
        app.database.rows(row).await
    };
    let (before, hash) =
        (stored().await, app.database.rows("SELECT hashed_password AS row FROM users").await.remove(0));
    let restore = format!("UPDATE users SET hashed_password = '{hash}'");

    let password = json!({ "current_password": PASSWORD, "new_password": "another password" });
    after_concurrent_change(REPLACED, &app, app.put("/me/password", &ada, &password))
        .await
        .assert_error(403, "wrong_password");
    app.database.execute(restore.as_str()).await;
    let email = json!({ "current_password": PASSWORD, "email": "new@example.org" });
    after_concurrent_change(REPLACED, &app, app.patch("/me", &ada, &email)).await.assert_error(403, "wrong_password");
    app.database.execute(restore.as_str()).await;
    let disabled = "UPDATE users SET disabled_at = '2026-01-01 00:00:00'";
    for change in [REPLACED, disabled] {
        let answer = after_concurrent_change(change, &app, app.sign_in("ada@example.org", PASSWORD)).await;
        answer.assert_error(app.expected.bad_password, "invalid_grant");
        app.database.execute(restore.as_str()).await;
    }
    assert_eq!(stored().await, before, "neither the account nor its token has changed");
}

#[tokio::test]
async fn one_of_two_claims_that_wait_for_the_same_row_gets_the_secret() {
    let Some(app) = App::start(Backend::Postgres, Profile::Fastapi).await else { return };
    let root = app.admin("shop@example.org").await;
    let body = json!({ "name": "k", "scopes": [], "delivery": "claim" });
    let claim = json!({ "claim": app.post("/keys", &root, &body).await.text_of("claim") });
    let answers =
        both_blocked_on_user(&app, 1, async || app.post("/keys/claim", &Credential::None, &claim).await).await;
    assert_eq!((count(&answers, 200), count(&answers, 410)), (1, 1), "{answers:?}");
}

#[tokio::test]
async fn a_claim_code_that_is_replaced_meanwhile_is_unknown() {
    let Some(app) = App::start(Backend::Postgres, Profile::Fastapi).await else { return };
    let root = app.admin("shop@example.org").await;
    let body = json!({ "name": "k", "scopes": [], "delivery": "claim" });
    let claim = json!({ "claim": app.post("/keys", &root, &body).await.text_of("claim") });
    // An issue request that replaces the code locks the row of the owner first.
    let replaced = "SELECT FROM users WHERE id = 1 FOR UPDATE;
         UPDATE api_keys SET claim_digest = 'the digest of another code'";
    let answer = after_concurrent_change(replaced, &app, app.post("/keys/claim", &Credential::None, &claim)).await;
    answer.assert_error(404, "not_found");
    let claimed = app.database.number("SELECT count(*) FROM api_keys WHERE claimed_at IS NOT NULL").await;
    assert_eq!(claimed, 0);
}

const PENDING_BODY: &str = r#"{"title":"pending","body":""}"#;

/// A request whose head has passed the guard and whose body is not sent yet.
struct PendingRequest(tokio::net::TcpStream);

/// Sends the head of a request that creates a page.
async fn send_head(app: &App, token: &str) -> PendingRequest {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST /page/ HTTP/1.1\r\nHost: x\r\nToken: {token}\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        PENDING_BODY.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server sends 100 Continue immediately. The later requests make sure that the guard has looked up the token.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    for _ in 0..20 {
        app.get("/me", &Credential::Token(token.to_owned())).await;
    }
    PendingRequest(stream)
}

impl PendingRequest {
    /// Sends the body; returns the response.
    async fn finish(mut self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.0.write_all(PENDING_BODY.as_bytes()).await.unwrap();
        let mut answer = vec![0; 2048];
        let length = self.0.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}
