//! Each count contains exactly the events of its name.

use latchkey::config::{Limit, Settings};
use serde_json::json;

use super::{HOUR, advance_to, by_hour, counted, this_hour};
use crate::support::app::{PASSWORD, STATIC_KEY, registration};
use crate::support::{App, Credential, specify};

const WRONG: &str = "a wrong password";
const SIGN_INS: [&str; 3] = ["sign_ins_succeeded", "sign_ins_failed", "sign_ins_throttled"];

specify! {
    async fn sign_ins_are_counted_by_their_outcome(app: App) {
        app.admin("root@example.org").await;
        app.register("ada@example.org").await;
        assert_eq!(counted(&app, SIGN_INS).await, [1, 0, 0]);
        for _ in 0..3 {
            assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
        }
        app.sign_in("ada@example.org", WRONG).await.assert_error(app.expected.bad_password, "invalid_grant");
        app.sign_in("nobody@example.org", WRONG).await.assert_error(app.expected.bad_password, "invalid_grant");
        assert_eq!(counted(&app, SIGN_INS).await, [4, 2, 0]);
        app.database.execute("UPDATE users SET disabled_at = created_at WHERE email = 'ada@example.org'").await;
        app.sign_in("ada@example.org", PASSWORD).await.assert_error(app.expected.bad_password, "invalid_grant");
        assert_eq!(counted(&app, SIGN_INS).await, [4, 3, 0], "a disabled user");
        let form = [("grant_type", "password"), ("username", "root@example.org")];
        assert_eq!(app.request("POST", "/token").form(&form).send().await.status, 400);
        assert_eq!(counted(&app, SIGN_INS).await, [4, 3, 0], "a malformed request is no sign-in");
    }

    async fn registrations_are_counted_and_users_whom_admins_create_are_not(app: App) {
        let root = app.admin("root@example.org").await;
        assert_eq!(counted(&app, ["registrations"]).await, [1]);
        assert_eq!(app.register("ada@example.org").await.status, 201);
        assert_eq!(app.register("ada@example.org").await.status, 409);
        assert_eq!(app.post("/register", &Credential::None, &json!({})).await.status, 422);
        assert_eq!(app.post("/users", &root, &registration("eve@example.org")).await.status, 201);
        assert_eq!(counted(&app, ["registrations"]).await, [2]);
    }

    async fn guarded_requests_are_counted_as_authorized_or_refused(app: App) {
        const REQUESTS: [&str; 2] = ["requests_authorized", "requests_refused"];
        let (root, ada) = (app.admin("root@example.org").await, app.user("ada@example.org").await);
        let none = Credential::None;
        let static_key = Credential::Token(STATIC_KEY.to_owned());
        for (path, status) in [("/health/live", 200), ("/nowhere", 404), ("/openapi.json", 200)] {
            assert_eq!(app.get(path, &none).await.status, status, "{path}");
        }
        assert_eq!(counted(&app, REQUESTS).await, [0, 0], "sign-ins and public routes are not counted");

        for (path, caller, status) in [
            ("/me", &ada, 200),
            ("/page/9999", &ada, 404),
            ("/page/?size=0", &ada, 422),
            ("/users", &root, 200),
            ("/protected-route", &static_key, 200),
            ("/authz", &ada, 200),
            ("/authz?scope=users:read", &root, 200),
        ] {
            assert_eq!(app.get(path, caller).await.status, status, "{path}");
        }
        let form = [("token", "lkt_unknown")];
        assert_eq!(app.request("POST", "/introspect").credential(&root).form(&form).send().await.status, 200);
        assert_eq!(counted(&app, REQUESTS).await, [8, 0], "also if the request then fails for another reason");

        let unknown = Credential::Token("lkt_unknown".to_owned());
        for (path, caller, status) in [
            ("/me", &none, app.expected.no_credential),
            ("/me", &unknown, app.expected.bad_token_header),
            ("/users", &ada, 403),
            ("/me", &static_key, 403),
            ("/authz", &none, app.expected.no_credential),
            ("/authz", &unknown, app.expected.bad_token_header),
            ("/authz?scope=users:read", &ada, 403),
        ] {
            assert_eq!(app.get(path, caller).await.status, status, "{path}");
        }
        let two = app.request("GET", "/me").credential(&ada).header("Authorization", "Bearer other");
        assert_eq!(two.send().await.status, 400);
        assert_eq!(counted(&app, REQUESTS).await, [8, 8]);
    }

    async fn each_key_counts_once_in_an_hour_and_once_in_a_day(app: App) {
        advance_to(&app, HOUR + 600);
        let ada = app.user("ada@example.org").await;
        let (first, _) = app.key_of(&ada, &["pages:read"]).await;
        let (second, _) = app.key_of(&ada, &["pages:read"]).await;
        let use_key = async |key: &Credential| assert_eq!(app.get("/page/", key).await.status, 200);
        app.get("/me", &ada).await;
        assert_eq!(counted(&app, ["keys_used"]).await, [0], "a token is no key, and a key counts when it is used");
        let mut expected = Vec::new();
        for (passed, keys, in_hour) in [
            (0, vec![&first, &first, &second], 2),
            (HOUR, vec![&first], 1),
            (HOUR, vec![&second, &first, &second], 2),
            (5 * HOUR, vec![&second], 1),
        ] {
            app.clock.advance(passed);
            for _ in 0..2 {
                for key in &keys {
                    use_key(key).await;
                }
                // The last use is written twice.
                counted(&app, []).await;
            }
            expected.push(format!("{} {in_hour}", this_hour(&app)));
        }
        assert_eq!(by_hour(&app, "keys_used").await, expected);
        assert_eq!(counted(&app, ["keys_new_in_day"]).await, [2]);
        app.clock.advance(24 * HOUR);
        use_key(&first).await;
        assert_eq!(counted(&app, ["keys_used", "keys_new_in_day"]).await, [7, 3], "a new day");
    }
}

#[tokio::test]
async fn sign_ins_that_a_limit_refuses_are_throttled_and_neither_failed_nor_succeeded() {
    let limit = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.limits.failed_sign_ins = Limit { burst: 2, per_hour: 60 };
    };
    for app in App::start_on_all(limit).await {
        app.register("ada@example.org").await;
        for _ in 0..2 {
            app.sign_in("ada@example.org", WRONG).await.assert_error(app.expected.bad_password, "invalid_grant");
        }
        for password in [PASSWORD, WRONG, PASSWORD] {
            app.sign_in("ada@example.org", password).await.assert_error(429, "too_many_requests");
        }
        assert_eq!(counted(&app, SIGN_INS).await, [0, 2, 3]);
    }
}

#[tokio::test]
async fn sign_ins_of_a_stopped_account_have_failed() {
    let stop = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.limits.account_failures = 2;
        settings.limits.account_stop = 2;
    };
    for app in App::start_on_all(stop).await {
        app.register("ada@example.org").await;
        for password in [WRONG, WRONG, PASSWORD] {
            app.sign_in("ada@example.org", password).await.assert_error(app.expected.bad_password, "invalid_grant");
        }
        assert_eq!(counted(&app, SIGN_INS).await, [0, 3, 0]);
    }
}

#[tokio::test]
async fn the_longest_queue_of_password_hashes_is_recorded() {
    let one_at_a_time = |settings: &mut Settings| {
        settings.auth.hash_threads = 1;
        settings.auth.hash_lanes = 1;
        settings.auth.bcrypt_cost = 8;
    };
    for app in App::start_on_all(one_at_a_time).await {
        app.register("ada@example.org").await;
        assert_eq!(counted(&app, ["hash_queue_max"]).await, [0], "a thread was idle");
        let emails: Vec<String> = (0..12).map(|number| format!("user{number}@example.org")).collect();
        let sign_ins = emails.iter().map(|email| app.sign_in(email, WRONG));
        futures_util::future::join_all(sign_ins).await;
        let [longest] = counted(&app, ["hash_queue_max"]).await;
        assert!((1..=12).contains(&longest), "{longest}");
        app.sign_in("ada@example.org", PASSWORD).await;
        assert_eq!(counted(&app, ["hash_queue_max"]).await, [longest], "a shorter queue changes nothing");
    }
}
