//! Sign-in and sign-out (`POST` and `DELETE /token`).

use crate::support::app::PASSWORD;
use crate::support::{Credential, scopes, specify};

specify! {
    async fn the_correct_password_returns_a_token(app: App) {
        app.register("ada@example.org").await;
        let answer = app.sign_in("ada@example.org", PASSWORD).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.members(), ["access_token", "expires_in", "scope", "token_type"]);
        assert_eq!(answer.body["token_type"], "bearer");
        assert_eq!(answer.body["expires_in"], 86400);
        assert_eq!(answer.body["scope"], scopes::text_of("member"));
        assert_eq!(answer.header("cache-control"), "no-store");
        let token = answer.body["access_token"].as_str().unwrap();
        assert_eq!(token.len(), 53);
        assert!(token.starts_with("lkt_"));
    }

    async fn the_database_holds_digests_and_no_secret(app: App) {
        let token = app.token_of("ada@example.org").await;
        let stored = app.database.rows("SELECT access_token AS row FROM access_tokens").await;
        assert_eq!(stored, [latchkey::domain::secret::Digest::of(&token).to_hex()]);
        assert_eq!(stored[0].len(), 64);
    }

    async fn wrong_password_and_unknown_email_return_the_same_response(app: App) {
        app.register("ada@example.org").await;
        let wrong = app.sign_in("ada@example.org", "wrong password").await;
        wrong.assert_error(app.expected.bad_password, "invalid_grant");
        assert_eq!(
            wrong.body["detail"],
            "Incorrect e-mail or password. After several failures, wait before you try again."
        );
        for unknown in ["eve@example.org", "not an address", "' OR '1'='1", "ada @example.org", "ada@example.org\u{200b}"] {
            let answer = app.sign_in(unknown, PASSWORD).await;
            assert_eq!(answer.status, wrong.status, "{unknown:?}");
            assert_eq!(answer.text, wrong.text, "{unknown:?}");
            assert_eq!(answer.header("www-authenticate"), wrong.header("www-authenticate"));
        }
        assert_eq!(wrong.header("www-authenticate").is_empty(), wrong.status == 400);
    }

    async fn second_sign_in_replaces_the_first_token(app: App) {
        let first = app.token_of("ada@example.org").await;
        let second = app.new_token_of("ada@example.org").await;
        assert_ne!(first, second);
        let answer = app.get("/me", &Credential::Bearer(first)).await;
        answer.assert_error(401, "invalid_token");
        assert_eq!(app.get("/me", &Credential::Bearer(second)).await.status, 200);
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 1);
    }

    async fn a_token_expires_after_exactly_one_day(app: App) {
        let token = Credential::Bearer(app.token_of("ada@example.org").await);
        app.clock.advance(86_400 - 60);
        assert_eq!(app.get("/me", &token).await.status, 200);
        app.clock.advance(60);
        app.get("/me", &token).await.assert_error(401, "invalid_token");
    }

    async fn signing_out_revokes_only_the_presented_token(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let answer = app.request("DELETE", "/token").credential(&ada).send().await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.text, "");
        app.get("/me", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        assert_eq!(app.get("/me", &eve).await.status, 200);
        // The token is unknown now. The errors of this path have the format of OAuth.
        let again = app.request("DELETE", "/token").credential(&ada).send().await;
        again.assert_error(app.expected.bad_token_header, "invalid_token");
    }

    async fn grant_type_follows_the_profile(app: App) {
        app.register("ada@example.org").await;
        let form = |grant: Option<&'static str>| {
            let mut fields = vec![("username", "ada@example.org"), ("password", PASSWORD)];
            fields.extend(grant.map(|grant| ("grant_type", grant)));
            app.request("POST", "/token").form(&fields)
        };
        assert_eq!(form(Some("password")).send().await.status, 200);
        for absent in [None, Some("")] {
            let answer = form(absent).send().await;
            assert_eq!(answer.status, app.expected.missing_grant_type, "{answer:?}");
            if answer.status == 400 {
                answer.assert_error(400, "invalid_request");
            }
        }
        for other in ["authorization_code", "client_credentials", "refresh_token", "PASSWORD"] {
            form(Some(other)).send().await.assert_error(400, "unsupported_grant_type");
        }
    }

    async fn missing_empty_and_repeated_fields_are_invalid_requests(app: App) {
        app.register("ada@example.org").await;
        for body in [
            "",
            "grant_type=password",
            "grant_type=password&username=ada%40example.org",
            "grant_type=password&username=&password=x",
            "grant_type=password&username=ada%40example.org&password=",
            "grant_type=password&username=ada%40example.org&username=eve%40example.org&password=x",
            "grant_type=password&grant_type=password&username=ada%40example.org&password=x",
            "grant_type=password&username=ada%40example.org&password=x&other=1&other=2",
            "grant_type=password&username=%FF%FE&password=x",
            "grant_type=password&username=%zz&password=x",
            "grant_type=password&username=a%00b&password=x",
        ] {
            let answer = app.request("POST", "/token").body("application/x-www-form-urlencoded", body).send().await;
            answer.assert_error(400, "invalid_request");
            assert_eq!(answer.header("cache-control"), "no-store", "{body}");
        }
        // Credentials in the query are ignored.
        let query = format!("/token?grant_type=password&username=ada%40example.org&password={}", PASSWORD.replace(' ', "+"));
        app.request("POST", &query).form(&[]).send().await.assert_error(400, "invalid_request");
    }

    async fn unknown_fields_and_basic_authentication_are_tolerated(app: App) {
        app.register("ada@example.org").await;
        let answer = app
            .request("POST", "/token")
            // Swagger UI sends this header, with an empty client id.
            .header("Authorization", "Basic Og==")
            .header("X-Requested-With", "XMLHttpRequest")
            .form(&[
                ("grant_type", "password"),
                ("username", "ada@example.org"),
                ("password", PASSWORD),
                ("client_id", ""),
                ("client_secret", "whatever"),
                ("resource", "unknown"),
            ])
            .send()
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn scope_narrows_the_token(app: App) {
        app.register("ada@example.org").await;
        let request = |scope: &'static str| {
            app.request("POST", "/token")
                .form(&[("grant_type", "password"), ("username", "ada@example.org"), ("password", PASSWORD), ("scope", scope)])
        };
        let answer = request("pages:read").send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["scope"], "pages:read");
        let token = Credential::Bearer(answer.body["access_token"].as_str().unwrap().to_owned());
        assert_eq!(app.get("/page/", &token).await.status, 200);
        let denied = app.post("/page/", &token, &serde_json::json!({ "title": "t", "body": "" })).await;
        denied.assert_error(403, "insufficient_scope");
        assert_eq!(
            denied.header("www-authenticate"),
            r#"Bearer realm="latchkey", error="insufficient_scope", scope="pages:write""#
        );
        for unknown in ["admin", "pages:read admin", "pages:read pages:read", "pages:read  pages:write"] {
            request(unknown).send().await.assert_error(400, "invalid_scope");
        }
    }

    async fn an_imported_hash_signs_in_and_is_upgraded(app: App) {
        app.register("ada@example.org").await;
        // The hash that the bcrypt package of Python makes of "password".
        let plain = "$2b$04$NffPZaD64qB7IaQWoSmKd.RU6ufQfwLC/Uc3LbWxrADycjB8lb8Am";
        app.database.execute(format!("UPDATE users SET hashed_password = '{plain}'")).await;
        let stored = "SELECT hashed_password AS row FROM users";
        app.sign_in("ada@example.org", "wrong").await.assert_error(app.expected.bad_password, "invalid_grant");
        assert_eq!(app.database.rows(stored).await, [plain], "a wrong password changes nothing");
        assert_eq!(app.sign_in("ada@example.org", "password").await.status, 200);
        let renewed = app.database.rows(stored).await;
        assert!(renewed[0].starts_with("$bcrypt-sha256$v=2,t=2b,r=4$"), "{renewed:?}");
        assert_eq!(app.sign_in("ada@example.org", "password").await.status, 200);
        assert_eq!(app.database.rows(stored).await, renewed, "a current hash is not replaced");
    }

    async fn a_damaged_hash_rejects_every_password(app: App) {
        app.register("ada@example.org").await;
        for damaged in ["", "$2b$99$", "$bcrypt-sha256$v=2,t=2b,r=4$short$short", PASSWORD] {
            app.database.execute(format!("UPDATE users SET hashed_password = '{damaged}'")).await;
            app.sign_in("ada@example.org", PASSWORD).await.assert_error(app.expected.bad_password, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn a_full_hashing_queue_returns_503_and_the_guard_keeps_working() {
    use crate::support::{App, Backend, Profile};

    let short_queue = |settings: &mut latchkey::config::Settings| {
        settings.auth.bcrypt_cost = 9;
        settings.auth.hash_queue = 1;
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, short_queue).await.unwrap();
    let ada = app.user("ada@example.org").await;
    let form = [("grant_type", "password"), ("username", "eve@example.org"), ("password", PASSWORD)];
    let sign_ins: Vec<_> = (0..16).map(|_| tokio::spawn(app.request("POST", "/token").form(&form).send())).collect();
    assert_eq!(app.get("/me", &ada).await.status, 200);
    let mut busy = 0;
    for sign_in in sign_ins {
        let answer = sign_in.await.unwrap();
        if answer.status == 503 {
            answer.assert_error(503, "temporarily_unavailable");
            assert_eq!(answer.header("retry-after"), "1");
            busy += 1;
        } else {
            answer.assert_error(401, "invalid_grant");
        }
    }
    assert!((1..16).contains(&busy), "{busy} of 16 were busy");
}
