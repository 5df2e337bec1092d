//! Rate limits by client, user and account, and the lockout of accounts after failed sign-ins.

use latchkey::config::{Limit, Settings};
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, registration};
use crate::support::{Answer, App, Backend, Credential, Profile};

const WRONG: &str = "a wrong password";

/// Servers on both databases and in both profiles, with limits and a clock that stands still.
async fn limited(change: impl Fn(&mut Settings)) -> Vec<App> {
    let mut apps = Vec::new();
    for (backend, profile) in [(Backend::Sqlite, Profile::Fastapi), (Backend::Postgres, Profile::Rfc)] {
        let settings = |settings: &mut Settings| {
            settings.limits.enabled = true;
            change(settings);
        };
        apps.extend(App::start_with_stopped_clock(backend, profile, settings).await);
    }
    apps
}

fn low_limits(settings: &mut Settings) {
    let limits = &mut settings.limits;
    for limit in
        [&mut limits.failed_sign_ins, &mut limits.registrations, &mut limits.claims, &mut limits.invalid_tokens]
    {
        *limit = Limit { burst: 2, per_hour: 60 };
    }
    limits.new_keys = Limit { burst: 2, per_hour: 60 };
}

fn assert_too_many(answer: &Answer, retry_after: &str) {
    answer.assert_error(429, "too_many_requests");
    let headers = ["retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
    assert_eq!(headers.map(|name| answer.header(name)), [retry_after, "2", "0", retry_after], "{answer:?}");
}

#[tokio::test]
async fn registrations_are_limited_by_client() {
    for app in limited(low_limits).await {
        for email in ["ada@example.org", "eve@example.org"] {
            assert_eq!(app.register(email).await.status, 201);
        }
        assert_too_many(&app.register("joe@example.org").await, "60");
        app.clock.advance(59);
        assert_too_many(&app.register("joe@example.org").await, "1");
        app.clock.advance(1);
        assert_eq!(app.register("joe@example.org").await.status, 201);
        app.post("/register", &Credential::None, &json!({})).await.assert_error(422, "invalid");
    }
}

#[tokio::test]
async fn failed_sign_ins_are_limited_by_client_and_successful_ones_are_not() {
    for app in limited(low_limits).await {
        app.register("ada@example.org").await;
        for _ in 0..5 {
            assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
        }
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        app.sign_in("joe@example.org", WRONG).await.assert_error(app.expected.bad_password, "invalid_grant");
        app.begin_session("eve@example.org", WRONG).await.assert_error(401, "invalid_grant");
        assert_too_many(&app.sign_in("ada@example.org", PASSWORD).await, "60");
        assert_too_many(&app.begin_session("ada@example.org", PASSWORD).await, "60");
        let change = json!({ "current_password": PASSWORD, "new_password": "another password of hers" });
        assert_too_many(&app.put("/me/password", &ada, &change).await, "60");
        assert_eq!(app.get("/me", &ada).await.status, 200, "tokens that were issued before stay valid");
        app.clock.advance(60);
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn parallel_guesses_at_many_accounts_are_checked_up_to_the_limit_of_the_client() {
    for app in limited(low_limits).await {
        let emails: Vec<String> = (0..16).map(|number| format!("user{number}@example.org")).collect();
        let guesses = emails.iter().map(|email| app.sign_in(email, WRONG));
        let answers = futures_util::future::join_all(guesses).await;
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((count(app.expected.bad_password), count(429)), (2, 14), "{answers:?}");
        assert_eq!(app.database.number("SELECT count(*) FROM audit_entries WHERE detail = 'unknown_email'").await, 2);
    }
}

#[tokio::test]
async fn invalid_tokens_are_limited_by_client_and_valid_ones_still_work() {
    for app in limited(low_limits).await {
        let ada = app.user("ada@example.org").await;
        let bad = Credential::Token("lkt_bad".to_owned());
        for _ in 0..2 {
            app.get("/me", &bad).await.assert_error(app.expected.bad_token_header, "invalid_token");
        }
        assert_too_many(&app.get("/me", &bad).await, "60");
        assert_eq!(app.get("/me", &ada).await.status, 200);
        assert_too_many(&app.delete("/session", &bad).await, "60");
        let ended = app.delete("/session", &Credential::Session("lks_ended".to_owned())).await;
        assert_eq!((ended.status, ended.header("set-cookie").is_empty()), (204, false), "a browser drops its cookie");
    }
}

#[tokio::test]
async fn claims_and_new_keys_are_limited() {
    for app in limited(low_limits).await {
        let claim = json!({ "claim": "lkc_none" });
        for _ in 0..2 {
            app.post("/keys/claim", &Credential::None, &claim).await.assert_error(404, "not_found");
        }
        assert_too_many(&app.post("/keys/claim", &Credential::None, &claim).await, "60");
        let (ada, eve) = (app.user("ada@example.org").await, app.user("eve@example.org").await);
        for _ in 0..2 {
            app.key_of(&ada, &[]).await;
        }
        assert_too_many(&app.post("/me/keys", &ada, &json!({ "name": "a key", "scopes": [] })).await, "60");
        app.key_of(&eve, &[]).await;
    }
}

#[tokio::test]
async fn issued_keys_and_own_keys_share_one_limit() {
    for app in limited(low_limits).await {
        let root = app.admin("root@example.org").await;
        let key = json!({ "name": "a key", "scopes": [] });
        for path in ["/keys", "/me/keys"] {
            assert_eq!(app.post(path, &root, &key).await.status, 201, "{path}");
        }
        for path in ["/keys", "/me/keys"] {
            assert_too_many(&app.post(path, &root, &key).await, "60");
        }
    }
}

fn early_lockout(settings: &mut Settings) {
    settings.limits.account_failures = 2;
    settings.limits.account_stop = 4;
}

#[tokio::test]
async fn the_delay_of_an_account_grows_with_each_failure_and_its_tokens_stay_valid() {
    for app in limited(early_lockout).await {
        let refused = app.expected.bad_password;
        let ada = app.user("ada@example.org").await;
        let attempt = async |password| app.sign_in("ADA@example.org", password).await;
        attempt(WRONG).await.assert_error(refused, "invalid_grant");
        app.begin_session("ada@EXAMPLE.org", WRONG).await.assert_error(401, "invalid_grant");
        app.begin_session("ada@example.org", PASSWORD).await.assert_error(401, "invalid_grant");
        assert_eq!(app.get("/me", &ada).await.status, 200);
        app.clock.advance(1);
        attempt(WRONG).await.assert_error(refused, "invalid_grant");
        app.clock.advance(1);
        attempt(PASSWORD).await.assert_error(refused, "invalid_grant");
        app.clock.advance(1);
        assert_eq!(attempt(PASSWORD).await.status, 200, "an attempt during the delay does not lengthen it");

        let root = app.admin("root@example.org").await;
        let trail = app.trail(&root, "action=user.sign_in&target=user:1&order=oldest").await;
        let details: Vec<&Value> = trail.iter().map(|entry| &entry["detail"]).collect();
        let wrong = "wrong_password";
        assert_eq!(
            details,
            [
                &Value::Null,
                &json!(wrong),
                &json!(wrong),
                &json!("throttled"),
                &json!(wrong),
                &json!("throttled"),
                &json!("after 3 failures")
            ]
        );
    }
}

#[tokio::test]
async fn failures_in_any_spelling_of_an_address_are_failures_of_one_account() {
    for app in limited(early_lockout).await {
        let refused = app.expected.bad_password;
        for (email, spellings) in [
            ("ada@example.org", ["ADA@example.org", "ada@EXAMPLE.org"]),
            ("eve@b\u{fc}cher.example", ["eve@xn--bcher-kva.example", "EVE@bu\u{308}cher.example"]),
            ("nobody@example.org", ["NOBODY@example.org", "nobody@Example.Org"]),
        ] {
            app.database.execute("DELETE FROM sign_in_failures").await;
            if !email.starts_with("nobody") {
                assert_eq!(app.register(email).await.status, 201);
            }
            for spelling in spellings {
                app.sign_in(spelling, WRONG).await.assert_error(refused, "invalid_grant");
            }
            app.sign_in(email, PASSWORD).await.assert_error(refused, "invalid_grant");
            let counted = app.database.rows("SELECT CAST(failures AS TEXT) AS row FROM sign_in_failures").await;
            assert_eq!(counted, ["2"], "{email}");
        }
    }
}

#[tokio::test]
async fn a_wrong_current_password_is_a_failure_of_the_account() {
    for app in limited(early_lockout).await {
        let refused = app.expected.bad_password;
        let ada = app.user("ada@example.org").await;
        let password = json!({ "current_password": WRONG, "new_password": "another password of hers" });
        app.put("/me/password", &ada, &password).await.assert_error(403, "wrong_password");
        let email = json!({ "current_password": WRONG, "email": "new@example.org" });
        app.patch("/me", &ada, &email).await.assert_error(403, "wrong_password");
        app.sign_in("ada@example.org", PASSWORD).await.assert_error(refused, "invalid_grant");
        app.clock.advance(1);
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn a_successful_sign_in_resets_the_failures() {
    for app in limited(early_lockout).await {
        app.register("ada@example.org").await;
        for _ in 0..4 {
            app.sign_in("ada@example.org", WRONG).await.assert_error(app.expected.bad_password, "invalid_grant");
            assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
        }
        assert_eq!(app.database.number("SELECT count(*) FROM sign_in_failures").await, 0);
    }
}

#[tokio::test]
async fn after_very_many_failures_only_a_manual_action_unlocks_an_account() {
    for app in limited(early_lockout).await {
        let refused = app.expected.bad_password;
        app.register("ada@example.org").await;
        let root = app.admin("root@example.org").await;
        let fail_until_stopped = async |email| {
            // The failures are spread over more than an hour.
            for _ in 0..4 {
                app.sign_in(email, WRONG).await.assert_error(refused, "invalid_grant");
                app.clock.advance(1_200);
            }
            app.sign_in(email, PASSWORD).await.assert_error(refused, "invalid_grant");
        };
        fail_until_stopped("ada@example.org").await;
        let refusal = entry_with(&app, &root, "action=user.sign_in&outcome=failure", "stopped").await;
        assert_eq!((&refusal["subject"], &refusal["actor"]), (&json!(1), &json!("anonymous")));
        assert_eq!(app.get("/users/1", &root).await.body["sign_in_stopped"], true);
        let listed = app.get("/users", &root).await.body;
        assert_eq!([0, 1].map(|at| &listed["items"][at]["sign_in_stopped"]), [&json!(true), &json!(false)]);
        let promoted = app.patch("/users/1", &root, &json!({ "role": "auditor" })).await;
        assert_eq!((promoted.status, &promoted.body["sign_in_stopped"]), (200, &json!(true)), "a role ends no lockout");
        let unlocked = app.patch("/users/1", &root, &json!({ "disabled": false })).await;
        assert_eq!((unlocked.status, &unlocked.body["sign_in_stopped"]), (200, &json!(false)), "{unlocked:?}");
        assert_eq!(app.trail(&root, "action=user.enable").await[0]["detail"], "failed sign-ins forgotten");
        assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);

        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        fail_until_stopped("ada@example.org").await;
        let wrong = json!({ "current_password": PASSWORD, "new_password": "another password of hers" });
        app.put("/me/password", &ada, &wrong).await.assert_error(403, "wrong_password");
    }
}

#[tokio::test]
async fn failures_before_an_account_exists_do_not_count_against_it() {
    for app in limited(early_lockout).await {
        for _ in 0..4 {
            app.sign_in("ada@example.org", WRONG).await;
            app.clock.advance(4);
        }
        let ada = app.user("ada@example.org").await;
        assert_eq!(app.database.number("SELECT count(*) FROM sign_in_failures").await, 0);
        app.sign_in("countess@example.org", WRONG).await;
        let moves = json!({ "email": "countess@example.org", "current_password": PASSWORD });
        assert_eq!(app.patch("/me", &ada, &moves).await.status, 200);
        assert_eq!(
            app.database.number("SELECT count(*) FROM sign_in_failures").await,
            0,
            "failures for an address are deleted when it becomes the address of a user"
        );
        app.sign_in("countess@example.org", WRONG).await;
        assert_eq!(app.delete("/me", &ada).await.status, 204);
        assert_eq!(
            app.database.number("SELECT count(*) FROM sign_in_failures").await,
            0,
            "failures are deleted with the account"
        );
    }
}

#[tokio::test]
async fn parallel_guesses_do_not_bypass_the_lockout() {
    for app in limited(|settings| settings.limits.account_failures = 1).await {
        let ada = app.user("ada@example.org").await;
        let change = json!({ "current_password": PASSWORD, "new_password": "another password of hers" });
        tokio::join!(
            futures_util::future::join_all((0..8).map(|_| app.sign_in("ada@example.org", WRONG))),
            app.sign_in("ada@example.org", PASSWORD),
            app.put("/me/password", &ada, &change),
        );
        // All begin before the first one fails. None succeeds after that, not even with the right password.
        let outcomes = app.database.rows("SELECT action || ' ' || outcome AS row FROM audit_entries ORDER BY id").await;
        let after = outcomes.iter().skip_while(|entry| *entry != "user.sign_in failure");
        assert!(after.clone().count() >= 8 && after.clone().all(|entry| entry.ends_with(" failure")), "{outcomes:?}");
    }
}

/// Servers that take the address of a client from `X-Forwarded-For`.
async fn behind_a_proxy(change: impl Fn(&mut Settings)) -> Vec<App> {
    limited(|settings| {
        settings.http.trusted_proxies = serde_json::from_str("[\"127.0.0.0/8\"]").unwrap();
        change(settings);
    })
    .await
}

async fn sign_in_from(app: &App, client: &str, password: &str) -> Answer {
    let form = [("grant_type", "password"), ("username", "ada@example.org"), ("password", password)];
    app.request("POST", "/token").header("X-Forwarded-For", client).form(&form).send().await
}

const KNOWN: &str = "192.0.2.1";

/// Puts the accounts into the state after a day of failed sign-ins.
const STOPPED: &str = "UPDATE sign_in_failures SET failures = 1000, first_at = NULL";

#[tokio::test]
async fn a_burst_is_checked_only_up_to_the_failures_allowed_without_delay() {
    for app in behind_a_proxy(|_| ()).await {
        app.register("ada@example.org").await;
        let clients: Vec<String> = (0..32).map(|number| format!("203.0.113.{number}")).collect();
        let guesses = clients.iter().map(|client| sign_in_from(&app, client, WRONG));
        // The right password is sent last, when the allowed failures are used up.
        let (guesses, right) = tokio::join!(futures_util::future::join_all(guesses), async {
            while app.database.number("SELECT count(*) FROM sign_in_failures WHERE failures >= 5").await == 0 {
                tokio::task::yield_now().await;
            }
            sign_in_from(&app, "203.0.113.99", PASSWORD).await
        });
        for answer in guesses.iter().chain([&right]) {
            answer.assert_error(app.expected.bad_password, "invalid_grant");
        }
        assert_eq!(app.database.number("SELECT failures FROM sign_in_failures").await, 5);
        let count = async |detail: &str| {
            app.database.number(format!("SELECT count(*) FROM audit_entries WHERE detail = '{detail}'")).await
        };
        assert_eq!(count("wrong_password").await, 5);
        assert_eq!(count("throttled").await, 15, "the others are summed");
    }
}

#[tokio::test]
async fn parallel_sign_ins_with_the_right_password_all_succeed() {
    for app in limited(|settings| settings.limits.account_failures = 1).await {
        app.register("ada@example.org").await;
        let sign_ins = (0..32).map(|_| app.sign_in("ada@example.org", PASSWORD));
        let answers = futures_util::future::join_all(sign_ins).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    }
}

#[tokio::test]
async fn failed_sign_ins_from_elsewhere_do_not_lock_out_the_owner_on_a_known_network() {
    for app in behind_a_proxy(early_lockout).await {
        let refused = app.expected.bad_password;
        app.register("ada@example.org").await;
        assert_eq!(sign_in_from(&app, KNOWN, PASSWORD).await.status, 200);
        for _ in 0..2 {
            sign_in_from(&app, "203.0.113.1", WRONG).await.assert_error(refused, "invalid_grant");
        }
        sign_in_from(&app, "203.0.113.2", PASSWORD).await.assert_error(refused, "invalid_grant");
        assert_eq!(sign_in_from(&app, KNOWN, PASSWORD).await.status, 200, "while sign-ins from elsewhere are delayed");
        app.database.execute(STOPPED).await;
        sign_in_from(&app, "203.0.113.2", PASSWORD).await.assert_error(refused, "invalid_grant");
        let signed_in = sign_in_from(&app, KNOWN, PASSWORD).await;
        assert_eq!(signed_in.status, 200, "while sign-ins from elsewhere are stopped");

        // The owner can still change the password, which unlocks the account.
        let ada = Credential::Token(signed_in.text_of("access_token"));
        let change = json!({ "current_password": PASSWORD, "new_password": "another password of hers" });
        let request = app.request("PUT", "/me/password").credential(&ada).header("X-Forwarded-For", KNOWN);
        assert_eq!(request.json(&change).send().await.status, 204);
        let elsewhere = sign_in_from(&app, "203.0.113.2", "another password of hers").await;
        assert_eq!(elsewhere.status, 200, "{elsewhere:?}");
    }
}

#[tokio::test]
async fn guesses_from_a_known_network_are_delayed_too() {
    for app in behind_a_proxy(early_lockout).await {
        let refused = app.expected.bad_password;
        app.register("ada@example.org").await;
        assert_eq!(sign_in_from(&app, KNOWN, PASSWORD).await.status, 200);
        for _ in 0..2 {
            sign_in_from(&app, KNOWN, WRONG).await.assert_error(refused, "invalid_grant");
        }
        sign_in_from(&app, KNOWN, PASSWORD).await.assert_error(refused, "invalid_grant");
        assert_eq!(
            sign_in_from(&app, "203.0.113.1", PASSWORD).await.status,
            200,
            "no sign-in from elsewhere has failed"
        );
        app.database.execute(STOPPED).await;
        sign_in_from(&app, KNOWN, PASSWORD).await.assert_error(refused, "invalid_grant");
        let root = app.admin("root@example.org").await;
        assert_eq!(app.get("/users/1", &root).await.body["sign_in_stopped"], true, "from the known network");
        assert_eq!(app.patch("/users/1", &root, &json!({ "disabled": false })).await.status, 200);
        assert_eq!(app.get("/users/1", &root).await.body["sign_in_stopped"], false);
        assert_eq!(app.trail(&root, "action=user.enable").await[0]["detail"], "failed sign-ins forgotten");
        assert_eq!(
            sign_in_from(&app, KNOWN, PASSWORD).await.status,
            200,
            "an admin unlocks the account for all networks"
        );
    }
}

#[tokio::test]
async fn at_most_twenty_networks_of_a_user_are_stored_without_their_addresses() {
    for app in behind_a_proxy(|_| ()).await {
        app.register("ada@example.org").await;
        for number in 0..22 {
            let client = format!("192.0.2.{number}");
            assert_eq!(sign_in_from(&app, &client, PASSWORD).await.status, 200);
            assert_eq!(sign_in_from(&app, &client, PASSWORD).await.status, 200);
            app.clock.advance(1);
        }
        assert_eq!(app.database.number("SELECT count(*) FROM known_networks WHERE NOT is_place").await, 20);
        let stored = app.database.dump("known_networks").await.join(" ");
        assert!(!stored.contains("192.0.2."), "{stored}");
        // The two oldest networks are no longer known.
        sign_in_from(&app, "192.0.2.0", WRONG).await;
        sign_in_from(&app, "192.0.2.1", WRONG).await;
        sign_in_from(&app, "192.0.2.2", WRONG).await;
        let counted = app.database.rows("SELECT CAST(failures AS TEXT) AS row FROM sign_in_failures ORDER BY 1").await;
        assert_eq!(counted, ["1", "2"]);
        let ada = sign_in_from(&app, "192.0.2.9", PASSWORD).await.text_of("access_token");
        assert_eq!(app.delete("/me", &Credential::Token(ada)).await.status, 204);
        for table in ["known_networks", "sign_in_failures"] {
            assert_eq!(app.database.number(format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
        }
    }
}

#[tokio::test]
async fn a_known_network_is_renewed_once_a_day_while_its_user_signs_in_there() {
    for app in behind_a_proxy(|_| ()).await {
        app.register("ada@example.org").await;
        let seen = async || {
            assert_eq!(sign_in_from(&app, "192.0.2.1", PASSWORD).await.status, 200);
            // The network, and the place for notices.
            app.database.rows("SELECT CAST(seen_at AS TEXT) AS row FROM known_networks").await
        };
        let first = seen().await;
        app.clock.advance(86_000);
        assert_eq!(seen().await, first, "within a day it stays as it is");
        app.clock.advance(401);
        let second = seen().await;
        assert!(second.len() == 2 && second > first, "{second:?} after {first:?}");
    }
}

#[tokio::test]
async fn no_response_reveals_why_a_sign_in_failed() {
    for app in limited(early_lockout).await {
        for email in ["ada@example.org", "eve@example.org", "joe@example.org"] {
            app.register(email).await;
        }
        app.database.execute("UPDATE users SET disabled_at = '2026-01-01 00:00:00' WHERE id = 2").await;
        for _ in 0..2 {
            app.sign_in("joe@example.org", WRONG).await;
        }
        let (mut answers, mut sessions) = (Vec::new(), Vec::new());
        for (email, password) in [
            ("nobody@example.org", PASSWORD),
            ("ada@example.org", WRONG),
            ("eve@example.org", PASSWORD),
            ("joe@example.org", PASSWORD),
        ] {
            let mut answer = app.sign_in(email, password).await;
            for varies in ["x-request-id", "date"] {
                answer.headers.remove(varies);
            }
            answers.push((answer.status, answer.headers, answer.text));
            let session = app.begin_session(email, password).await;
            session.assert_error(401, "invalid_grant");
            sessions.push(session.text.replace(session.header("x-request-id"), ""));
        }
        assert!(sessions.windows(2).all(|pair| pair[0] == pair[1]), "{sessions:#?}");
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
        // Failures of unknown accounts are counted in the same way.
        assert_eq!(app.database.number("SELECT count(*) FROM sign_in_failures").await, 4);
    }
}

/// Waits for the newest entry that sums refusals.
async fn sum_of(app: &App, reader: &Credential, query: &str) -> Value {
    entry_with(app, reader, query, "repeated").await
}

/// Waits for the newest entry whose detail contains `detail`. Sums are written once a minute.
async fn entry_with(app: &App, reader: &Credential, query: &str, detail: &str) -> Value {
    app.clock.advance(61);
    for _ in 0..200 {
        let entries = app.trail(reader, query).await;
        if let Some(found) = entries.into_iter().find(|entry| entry["detail"].as_str().unwrap().contains(detail)) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no entry has {detail:?}");
}

#[tokio::test]
async fn refusals_of_one_user_are_limited_and_summed_in_the_trail() {
    for app in limited(|settings| settings.limits.refusals = Limit { burst: 30, per_hour: 60 }).await {
        let (root, ada) = (app.admin("root@example.org").await, app.user("ada@example.org").await);
        let mut statuses = Vec::new();
        for _ in 0..50 {
            statuses.push(app.get("/users", &ada).await.status);
        }
        assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 30);
        let answer = app.delete("/page/99", &ada).await;
        answer.assert_error(429, "too_many_requests");
        assert_eq!(["retry-after", "ratelimit-limit"].map(|name| answer.header(name)), ["60", "30"]);
        assert_eq!(app.get("/me", &ada).await.status, 200, "permitted requests still succeed");
        assert_eq!(app.trail(&root, "action=request&outcome=denied").await.len(), 20);
        let sum = sum_of(&app, &root, "action=request&outcome=denied").await;
        assert_eq!(sum["detail"], "insufficient_scope users:read, repeated 30 times", "{sum}");
        assert_eq!((&sum["actor"], &sum["user"], &sum["role"]), (&json!("user:2"), &json!(2), &json!("member")));
        assert_eq!(
            (&sum["target"], &sum["client"], &sum["request_id"]),
            (&json!("GET /users"), &json!("127.0.0.1"), &Value::Null)
        );
        let sum = sum_of(&app, &root, "action=page.delete").await;
        assert_eq!((&sum["outcome"], &sum["detail"]), (&json!("failure"), &json!("not_found, repeated once")), "{sum}");
    }
}

#[tokio::test]
async fn refusals_are_limited_by_client_too_and_do_not_affect_users_elsewhere() {
    for app in behind_a_proxy(|settings| settings.limits.refusals = Limit { burst: 2, per_hour: 60 }).await {
        let (ada, eve) = (app.user("ada@example.org").await, app.user("eve@example.org").await);
        let ask = async |caller: &Credential, from: &str| {
            app.request("GET", "/users").credential(caller).header("X-Forwarded-For", from).send().await.status
        };
        assert_eq!([ask(&ada, KNOWN).await, ask(&eve, KNOWN).await, ask(&eve, KNOWN).await], [403, 403, 429]);
        assert_eq!(
            [ask(&eve, "192.0.2.2").await, ask(&ada, "192.0.2.2").await],
            [429, 403],
            "eve has used up her two refusals"
        );
    }
}

#[tokio::test]
async fn failed_sign_ins_of_known_and_unknown_accounts_are_summed_alike() {
    for app in behind_a_proxy(|_| ()).await {
        let root = app.admin("root@example.org").await;
        app.register("ada@example.org").await;
        for number in 0..30 {
            sign_in_from(&app, &format!("203.0.113.{number}"), WRONG).await;
            for email in ["nobody@example.org", "noone@example.org"] {
                let form = [("grant_type", "password"), ("username", email), ("password", WRONG)];
                let from = format!("198.51.100.{number}");
                app.request("POST", "/token").header("X-Forwarded-For", &from).form(&form).send().await;
            }
        }
        let entries = app.trail(&root, "action=user.sign_in&outcome=failure").await;
        let of = |target: &Value| entries.iter().filter(|entry| entry["target"] == *target).count();
        assert_eq!((of(&json!("user:2")), of(&Value::Null)), (20, 40));
        sum_of(&app, &root, "action=user.sign_in&outcome=failure&target=user:2").await;
        let entries = app.trail(&root, "action=user.sign_in&outcome=failure").await;
        let repeated = |target: &Value| -> u32 {
            let sums = entries.iter().filter(|entry| entry["target"] == *target);
            let counts = sums.filter_map(|entry| entry["detail"].as_str().unwrap().split_once(", repeated "));
            counts.map(|(_, count)| count.trim_end_matches(" times").parse().unwrap_or(1)).sum()
        };
        assert_eq!((repeated(&json!("user:2")), repeated(&Value::Null)), (10, 20), "{entries:?}");
    }
}

#[tokio::test]
async fn the_client_address_is_taken_only_from_a_trusted_proxy() {
    for trusted in [true, false] {
        let apps = limited(|settings| {
            low_limits(settings);
            if trusted {
                settings.http.trusted_proxies = serde_json::from_str("[\"127.0.0.0/8\"]").unwrap();
            }
        });
        for app in apps.await {
            let from = async |client: &str, number: i32| {
                let request = app.request("POST", "/register").header("X-Forwarded-For", client);
                request.json(&registration(&format!("user{number}@example.org"))).send().await.status
            };
            assert_eq!([from("192.0.2.1", 1).await, from("1.1.1.1, 192.0.2.1", 2).await], [201, 201]);
            assert_eq!(from("2.2.2.2, 192.0.2.1", 3).await, 429);
            assert_eq!(from("192.0.2.2", 4).await, if trusted { 201 } else { 429 });
        }
    }
}

#[test]
fn the_page_about_limits_states_the_defaults() {
    let limits = Settings::defaults().unwrap().limits;
    let page = include_str!("../../docs/limits.md");
    let at_once = |limit: Limit| format!("{} at once, then {} an hour", limit.burst, limit.per_hour);
    for (setting, default) in [
        ("enabled", limits.enabled.to_string()),
        ("account_failures", limits.account_failures.to_string()),
        ("account_delay_max", limits.account_delay_max.to_string()),
        ("account_stop", limits.account_stop.to_string()),
        ("failed_sign_ins", at_once(limits.failed_sign_ins)),
        ("registrations", at_once(limits.registrations)),
        ("claims", at_once(limits.claims)),
        ("mails", at_once(limits.mails)),
        ("invalid_tokens", at_once(limits.invalid_tokens)),
        ("new_keys", at_once(limits.new_keys)),
        ("refusals", at_once(limits.refusals)),
    ] {
        assert!(page.contains(&format!("| `limits.{setting}` | {default} |")), "{setting} = {default}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `limits.")).count();
    assert_eq!(rows, 11, "every limit has a row");
}
