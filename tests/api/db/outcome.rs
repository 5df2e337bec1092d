//! Responses to changes on a slow database: 503 means that the change did not happen, 504 that its outcome is unknown.
//! The tests use PostgreSQL, because SQLite runs in the same process and cannot be slowed down.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, registration};
use crate::support::client::Request;
use crate::support::warnings::{warnings_of, watch};
use crate::support::{Answer, App, Backend, Credential, Profile};

/// A route that returns a secret or creates something.
struct Route {
    name: &'static str,
    request: Box<dyn Fn(&App) -> Request>,
    /// The status of success.
    success: u16,
}

/// All such routes, each with a user of its own.
async fn routes(app: &App) -> Vec<Route> {
    let shop = app.admin("shop@example.org").await;
    let (ada, eve, bob) =
        (app.user("ada@example.org").await, app.user("eve@example.org").await, app.user("bob@example.org").await);
    app.register("grace@example.org").await;
    let rotated = app.key_of(&ada, &[]).await.1;
    let order = json!({ "name": "a key", "scopes": [], "delivery": "claim" });
    let code = app.post("/keys", &shop, &order).await.text_of("claim");
    let post = |path: String, caller: &Credential, body: Value| -> Box<dyn Fn(&App) -> Request> {
        let caller = caller.clone();
        Box::new(move |app| app.request("POST", &path).credential(&caller).json(&body))
    };
    let key = json!({ "name": "a key", "scopes": [] });
    let sign_in: Box<dyn Fn(&App) -> Request> = Box::new(|app| {
        let form = [("grant_type", "password"), ("username", "grace@example.org"), ("password", PASSWORD)];
        app.request("POST", "/token").form(&form)
    });
    let none = &Credential::None;
    vec![
        Route { name: "rotate", request: post(format!("/me/keys/{rotated}/rotate"), &ada, json!({})), success: 200 },
        Route { name: "claim", request: post("/keys/claim".into(), none, json!({ "claim": code })), success: 200 },
        Route { name: "create key", request: post("/me/keys".into(), &eve, key.clone()), success: 201 },
        Route { name: "issue key", request: post("/keys".into(), &shop, key), success: 201 },
        Route { name: "sign in", request: sign_in, success: 200 },
        Route {
            name: "register",
            request: post("/register".into(), none, registration("new@example.org")),
            success: 201,
        },
        Route {
            name: "create page",
            request: post("/page/".into(), &bob, json!({ "title": "t", "body": "b" })),
            success: 201,
        },
    ]
}

/// A server on PostgreSQL.
async fn start() -> Option<App> {
    App::start_with(Backend::Postgres, Profile::Fastapi, |settings| settings.database.pool_size = 16).await
}

/// Asserts the 503 of a change that did not happen.
fn assert_not_done(name: &str, answer: &Answer) {
    let code = if answer.header("content-type") == "application/json" { "temporarily_unavailable" } else { "busy" };
    assert_eq!(answer.status, 503, "{name}: {answer:?}");
    answer.assert_error(503, code);
    assert_eq!(answer.header("retry-after"), "1", "{name}");
}

/// Delays each write by 1 s: less than the time-out of a statement, but the sum exceeds the time-out of a request.
const SLOW: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(1); RETURN COALESCE(NEW, OLD); END $$;
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON audit_entries FOR EACH ROW EXECUTE FUNCTION slow();
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION slow();
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON pages FOR EACH ROW EXECUTE FUNCTION slow();
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION slow();
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON access_tokens FOR EACH ROW EXECUTE FUNCTION slow();";

/// Removes the delays. `DROP TRIGGER` waits for all transactions that have written to the table.
const NOT_SLOW: &str = "DROP TRIGGER slow ON api_keys; DROP TRIGGER slow ON pages; DROP TRIGGER slow ON users;
    DROP TRIGGER slow ON access_tokens; DROP TRIGGER slow ON audit_entries";

#[tokio::test]
async fn a_change_rejected_with_503_did_not_happen_and_can_be_repeated() {
    let Some(app) = start().await else { return };
    let routes = routes(&app).await;
    let before = app.database.dump_all().await;
    app.database.execute(SLOW).await;
    let answers = join_all(routes.iter().map(|route| (route.request)(&app).send())).await;
    for (route, answer) in routes.iter().zip(&answers) {
        assert_not_done(route.name, answer);
    }
    for trigger in NOT_SLOW.split(';') {
        app.database.execute(trigger.trim()).await;
    }
    assert_eq!(app.database.dump_all().await, before);
    for route in &routes {
        let answer = (route.request)(&app).send().await;
        assert_eq!(answer.status, route.success, "{}: {answer:?}", route.name);
    }
}

/// Locks the owner's row for 0.9 s and the key's row for 1.95 s, on connections beside those of the server.
#[expect(clippy::disallowed_methods, reason = "tests connect to the server directly")]
fn hold_rows(url: &str, owner: i64, key: i64) -> std::thread::JoinHandle<()> {
    let [mut holds_key, mut holds_owner] = [(); 2].map(|()| PgConnection::establish(url).unwrap());
    holds_key.batch_execute(&format!("BEGIN; SELECT FROM api_keys WHERE id = {key} FOR UPDATE")).unwrap();
    holds_owner.batch_execute(&format!("BEGIN; SELECT FROM users WHERE id = {owner} FOR UPDATE")).unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(900));
        holds_owner.batch_execute("ROLLBACK").unwrap();
        std::thread::sleep(Duration::from_millis(1_050));
        holds_key.batch_execute("ROLLBACK").unwrap();
    })
}

#[tokio::test]
async fn a_key_that_is_not_rotated_in_time_keeps_its_secret() {
    let Some(app) = start().await else { return };
    let ada = app.user("ada@example.org").await;
    let (old, id) = app.key_of(&ada, &["pages:read"]).await;
    let owner = app.database.number("SELECT owner_id FROM api_keys").await;
    let locks = hold_rows(&app.database.url, owner, id);
    let rotate = format!("/me/keys/{id}/rotate");
    assert_not_done("rotate", &app.post(&rotate, &ada, &json!({})).await);
    locks.join().unwrap();
    assert_eq!(app.get("/page/", &old).await.status, 200);
    let rotated = app.post(&rotate, &ada, &json!({})).await;
    let new = Credential::Token(rotated.text_of("key"));
    assert_eq!((app.get("/page/", &new).await.status, app.get("/page/", &old).await.status), (200, 403));
}

#[tokio::test]
async fn a_key_that_is_not_claimed_in_time_can_be_claimed_again() {
    let Some(app) = start().await else { return };
    let shop = app.admin("shop@example.org").await;
    let order = json!({ "name": "a key", "scopes": ["pages:read"], "delivery": "claim" });
    let issued = app.post("/keys", &shop, &order).await;
    let owner = app.database.number("SELECT owner_id FROM api_keys").await;
    let locks = hold_rows(&app.database.url, owner, issued.body["id"].as_i64().unwrap());
    let claim = json!({ "claim": issued.text_of("claim") });
    let first = app.post("/keys/claim", &Credential::None, &claim).await;
    // The claim may wait for both rows or not; in either case its status must be correct.
    locks.join().unwrap();
    if first.status != 200 {
        assert_not_done("claim", &first);
        assert_eq!(app.post("/keys/claim", &Credential::None, &claim).await.status, 200);
    }
}

/// Delays each commit with an audit entry until `released` contains the actor; ends the connection of user 4.
const SLOW_COMMIT: &str = "CREATE TABLE released (actor TEXT);
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.actor = 'user:4' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        WHILE NOT EXISTS (SELECT FROM released WHERE actor = NEW.actor) LOOP PERFORM pg_sleep(0.01); END LOOP;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON audit_entries DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        EXECUTE FUNCTION wait();";

#[tokio::test]
async fn a_commit_in_progress_is_awaited_and_an_unknown_outcome_is_reported() {
    let Some(app) = start().await else { return };
    let mut users = Vec::new();
    for name in ["one", "two", "three", "four"] {
        users.push(app.user(&format!("{name}@example.org")).await);
    }
    app.database.execute(SLOW_COMMIT).await;
    for title in ["lost", "ended"] {
        watch(title);
    }
    let write = |user: &Credential, title: &str| {
        let request = app.request("POST", "/page/").credential(user).header("X-Request-Id", title);
        request.json(&json!({ "title": title, "body": "b" })).send()
    };
    let sign_in = app.sign_in("three@example.org", PASSWORD);
    let late = async {
        // Longer than the time-out of a request.
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        app.database.execute("INSERT INTO released VALUES ('user:1')").await;
    };
    let (slow, lost, sign_in, ended, ()) =
        tokio::join!(write(&users[0], "slow"), write(&users[1], "lost"), sign_in, write(&users[3], "ended"), late);
    // Releases the commits before the assertions, because a failed assertion would leave them waiting forever.
    app.database.execute("INSERT INTO released VALUES ('user:2'), ('user:3')").await;
    assert_eq!(slow.status, 201, "{slow:?}");
    lost.assert_error(504, "outcome_unknown");
    ended.assert_error(504, "outcome_unknown");
    sign_in.assert_error(504, "server_error");
    for answer in [&lost, &ended, &sign_in] {
        assert_eq!(answer.header("retry-after"), "", "{answer:?}");
        let detail = "The database did not confirm whether the change was stored. Check before you repeat it.";
        assert_eq!(answer.text_of("detail"), detail);
    }
    for title in ["lost", "ended"] {
        let logged = warnings_of(title);
        assert!(logged.len() == 1 && logged[0].starts_with("ERROR outcome unknown: "), "{title}: {logged:?}");
    }

    // Waits for all transactions that have written an entry.
    app.database.execute("DROP TRIGGER wait ON audit_entries").await;
    let titles = app.database.rows("SELECT title AS row FROM pages ORDER BY id").await;
    assert!(titles.contains(&"slow".to_owned()) && titles.contains(&"lost".to_owned()), "{titles:?}");
    assert_eq!(app.get("/me", &users[2]).await.status, 403, "the sign-in happened and revoked the earlier token");
}
