//! Keys that a shop issues for purchases: repetitions, claim codes, limits and lists.

use serde_json::{Value, json};

use crate::support::{Answer, App, Credential, specify};

/// The service key of a shop, which can only issue keys.
async fn shop(app: &App) -> Credential {
    let root = app.admin("shop@example.org").await;
    app.key_of(&root, &["keys:issue"]).await.0
}

fn purchase(order: &str) -> Value {
    json!({
        "name": "Translations, 1 year",
        "scopes": ["translate:use"],
        "order": order,
        "metadata": { "product": { "sku": "T-1", "seats": 3 }, "buyer": "b-17" },
    })
}

async fn issue_with(app: &App, shop: &Credential, idempotency_key: &str, body: &Value) -> Answer {
    app.request("POST", "/keys").credential(shop).header("Idempotency-Key", idempotency_key).json(body).send().await
}

specify! {
    async fn an_external_scope_that_looks_like_one_of_latchkeys_own_is_rejected(app: App) {
        let shop = shop(&app).await;
        for (misspelt, likely) in [
            ("page:read", "pages:read"),
            ("pages:reed", "pages:read"),
            ("Pages:Read", "pages:read"),
            ("keys:sell", "keys:"),
        ] {
            let body = json!({ "name": "k", "scopes": [misspelt] });
            let answer = app.post("/keys", &shop, &body).await;
            answer.assert_error(422, "invalid");
            let error = &answer.body["errors"][0];
            assert_eq!((&error["field"], &error["code"]), (&json!("scopes"), &json!("unknown_scope")), "{answer:?}");
            assert!(error["message"].as_str().unwrap().contains(&format!("Use {likely}")), "{answer:?}");
        }
        let other = app.post("/keys", &shop, &json!({ "name": "k", "scopes": ["paging:read", "translate:use"] })).await;
        assert_eq!(other.status, 201, "{other:?}");
    }

    async fn a_shop_issues_a_key_for_a_purchase(app: App) {
        let shop = shop(&app).await;
        let issued = app.post("/keys", &shop, &purchase("1001")).await;
        assert_eq!(issued.status, 201, "{issued:?}");
        let secret = issued.text_of("key");
        assert!(secret.starts_with("lkk_") && issued.body["claim"].is_null(), "{issued:?}");
        assert_eq!(issued.body["hint"], format!("lkk_\u{2026}{}", &secret[49..]));
        let id = issued.body["id"].as_i64().unwrap();
        assert_eq!(issued.header("location"), format!("/keys/{id}"));
        assert_eq!(issued.body["metadata"], purchase("1001")["metadata"]);

        let key = Credential::Bearer(secret.clone());
        assert_eq!(app.get("/protected-route", &key).await.body["hello"], "Translations, 1 year");
        app.get("/me", &key).await.assert_error(403, "user_required");
        app.get("/page/", &key).await.assert_error(403, "insufficient_scope");
        app.get("/keys", &key).await.assert_error(403, "insufficient_scope");

        let by_order = app.get("/keys?order=1001", &shop).await;
        let read = app.get(&format!("/keys/{id}"), &shop).await;
        assert_eq!(by_order.body["items"], json!([read.body]));
        assert_eq!(app.get(&format!("/keys?order=1001&after={id}"), &shop).await.body["items"], json!([]));
        assert!(!read.text.contains(&secret) && read.body.get("key").is_none());
        assert_eq!(app.get("/keys?order=1002", &shop).await.body["items"], json!([]));

        assert_eq!(app.delete(&format!("/keys/{id}"), &shop).await.status, 204);
        app.get("/protected-route", &key).await.assert_error(app.expected.bad_bearer, "invalid_token");
        assert!(app.get(&format!("/keys/{id}"), &shop).await.body["revoked_at"].is_string(), "the record stays");
        assert_eq!(app.delete(&format!("/keys/{id}"), &shop).await.status, 204, "a second revocation succeeds");
        let again = app.post("/keys", &shop, &purchase("1001")).await;
        assert_eq!((again.status, &again.body["key"]), (200, &json!(null)), "a revoked order is not issued again");
    }

    async fn a_repeated_request_returns_the_record_and_issues_no_key(app: App) {
        let shop = shop(&app).await;
        let first = issue_with(&app, &shop, "request 1", &purchase("1001")).await;
        // After the secret has been used, no repetition returns another one.
        assert_eq!(app.get("/protected-route", &Credential::Token(first.text_of("key"))).await.status, 200);
        let mut reordered: Value = serde_json::from_str(
            r#"{"order": "1001", "metadata": {"buyer": "b-17", "product": {"seats": 3, "sku": "T-1"}}, "scopes": ["translate:use"], "name": "Translations, 1 year", "delivery": "secret"}"#,
        ).unwrap();
        for (name, body) in [
            (Some("request 1"), &purchase("1001")),
            (Some("request 2"), &purchase("1001")),
            (None, &purchase("1001")),
            (None, &reordered),
        ] {
            let again = match name {
                Some(name) => issue_with(&app, &shop, name, body).await,
                None => app.post("/keys", &shop, body).await,
            };
            assert_eq!(again.status, 200, "{name:?} {body}: {again:?}");
            assert_eq!((&again.body["key"], &again.body["claim"]), (&json!(null), &json!(null)), "the secret is shown once");
            assert_eq!((&again.body["id"], &again.body["hint"]), (&first.body["id"], &first.body["hint"]));
        }
        reordered["scopes"] = json!(["translate:use", "summarize:use"]);
        for (name, body) in [
            ("request 1", &purchase("1002")),
            ("request 1", &reordered),
            ("request 2", &purchase("1002")),
            ("request 3", &reordered),
        ] {
            issue_with(&app, &shop, name, body).await.assert_error(409, "repeated_differently");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys WHERE order_id IS NOT NULL").await, 1);

        let (zulu, offset) = ("2031-01-01T00:00:00Z", "2031-01-01T01:00:00.000+01:00");
        let until = |end: &str| json!({ "name": "k", "scopes": [], "order": "until", "expires_at": end });
        assert_eq!(app.post("/keys", &shop, &until(zulu)).await.status, 201);
        assert_eq!(app.post("/keys", &shop, &until(offset)).await.status, 200, "the same moment");
        app.clock.advance(5 * 365 * 86_400);
        let shop = { let root = Credential::Token(app.new_token_of("shop@example.org").await); app.key_of(&root, &["keys:issue"]).await.0 };
        assert_eq!(app.post("/keys", &shop, &until(zulu)).await.status, 200, "also after that moment has passed");

        let without_order = json!({ "name": "k", "scopes": [] });
        let ids: Vec<Value> = [app.post("/keys", &shop, &without_order).await, app.post("/keys", &shop, &without_order).await]
            .iter().map(|answer| answer.body["id"].clone()).collect();
        assert_ne!(ids[0], ids[1], "without an order and an idempotency key each request issues a key");
    }

    async fn two_shops_can_use_the_same_order_and_idempotency_key(app: App) {
        let one = shop(&app).await;
        let other = app.admin("other@example.org").await;
        let first = issue_with(&app, &one, "n", &purchase("1001")).await;
        let second = issue_with(&app, &other, "n", &purchase("1001")).await;
        assert_eq!((first.status, second.status), (201, 201));
        let path = format!("/keys/{}", first.body["id"]);
        app.get(&path, &other).await.assert_error(404, "not_found");
        app.delete(&path, &other).await.assert_error(404, "not_found");
        assert_eq!(app.get("/keys", &other).await.body["items"].as_array().unwrap().len(), 1);
        assert_eq!(app.get(&path, &one).await.body["revoked_at"], json!(null));
    }

    async fn a_claim_code_is_exchanged_for_the_secret_once(app: App) {
        let shop = shop(&app).await;
        let mut claimed = purchase("1001");
        claimed["delivery"] = json!("claim");
        let issued = app.post("/keys", &shop, &claimed).await;
        assert_eq!((issued.status, &issued.body["key"], &issued.body["hint"]), (201, &json!(null), &json!(null)), "{issued:?}");
        let code = issued.text_of("claim");
        assert!(code.starts_with("lkc_"));
        assert!(issued.body["claim_expires_at"].is_string() && issued.body["claimed_at"].is_null());
        for credential in [Credential::Token(code.clone()), Credential::Bearer(code.clone())] {
            assert_ne!(app.get("/protected-route", &credential).await.status, 200, "a claim code is not a credential");
        }

        let claim = json!({ "claim": code });
        let fresh = app.post("/keys/claim", &Credential::None, &claim).await;
        assert_eq!((fresh.status, &fresh.body["id"]), (200, &issued.body["id"]), "{fresh:?}");
        let key = Credential::Token(fresh.text_of("key"));
        assert_eq!(fresh.body["hint"], format!("lkk_\u{2026}{}", &key.secret()[49..]));
        assert_eq!(app.get("/protected-route", &key).await.status, 200);
        app.post("/keys/claim", &Credential::None, &claim).await.assert_error(410, "claim_used");
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "a second claim leaves the key valid");
        let record = app.get(&format!("/keys/{}", issued.body["id"]), &shop).await;
        assert!(record.body["claimed_at"].is_string() && record.body["hint"] == fresh.body["hint"], "{record:?}");
    }

    async fn a_claim_code_expires_and_is_revoked_with_its_key(app: App) {
        let root = app.admin("shop@example.org").await;
        let claimed = |order: &str| json!({ "name": "k", "scopes": [], "order": order, "delivery": "claim" });
        let claim = async |code: String| app.post("/keys/claim", &Credential::None, &json!({ "claim": code })).await;
        let revoked = app.post("/keys", &root, &claimed("1")).await;
        app.delete(&format!("/keys/{}", revoked.body["id"]), &root).await;
        claim(revoked.text_of("claim")).await.assert_error(410, "claim_revoked");

        let old = app.post("/keys", &root, &claimed("2")).await;
        let mut short = claimed("3");
        short["expires_at"] = json!(app.clock.now().plus_seconds(60).utc().to_rfc3339());
        let short = app.post("/keys", &root, &short).await;
        app.clock.advance(60);
        claim(short.text_of("claim")).await.assert_error(410, "claim_expired");
        app.clock.advance(72 * 3600 - 61);
        let last = app.post("/keys", &Credential::Token(app.new_token_of("shop@example.org").await), &claimed("4")).await;
        assert_eq!(claim(last.text_of("claim")).await.status, 200);
        app.clock.advance(1);
        claim(old.text_of("claim")).await.assert_error(410, "claim_expired");
        for unknown in ["", "lkc_", "x", &latchkey::domain::secret::Secret::generate(latchkey::domain::secret::SecretKind::Claim).unwrap().reveal()] {
            claim(unknown.to_owned()).await.assert_error(404, "not_found");
        }
    }

    async fn invalid_issue_requests_are_refused_field_by_field(app: App) {
        let shop = shop(&app).await;
        let with = |field: &str, value: Value| {
            let mut body = purchase("1001");
            body[field] = value;
            body
        };
        for (body, field) in [
            (with("metadata", json!([])), "metadata"),
            (with("metadata", json!("text")), "metadata"),
            (with("metadata", json!({ "long": "x".repeat(4096 - 10) })), "metadata"),
            (with("order", json!("")), "order"),
            (with("order", json!("a\u{1b}[31mb")), "order"),
            (with("order", json!("o".repeat(256))), "order"),
            (with("order", json!(1001)), "order"),
            (with("delivery", json!("mail")), "delivery"),
            (with("name", json!("a\rb")), "name"),
            (with("scopes", json!(["translate:use", "translate:use"])), "scopes"),
            (with("scopes", json!(["two words"])), "scopes"),
            (with("scopes", json!(["quote\""])), "scopes"),
            (with("scopes", json!(["pages:read"])), "scopes"),
            (with("expires_at", json!("2020-01-01T00:00:00Z")), "expires_at"),
            (with("owner", json!(1)), "owner"),
        ] {
            let answer = app.post("/keys", &shop, &body).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), [field], "{body}");
        }
        for name in ["", " ", &"n".repeat(256), "caf\u{e9}"] {
            issue_with(&app, &shop, name, &purchase("1001")).await.assert_error(400, "malformed_idempotency_key");
        }
        let twice = app.request("POST", "/keys").credential(&shop).header("Idempotency-Key", "a").header("Idempotency-Key", "a");
        twice.json(&purchase("1001")).send().await.assert_error(400, "malformed_idempotency_key");
        assert_eq!(app.get("/keys", &shop).await.body["items"], json!([]));
        let largest = json!({ "long": "x".repeat(4096 - 11) });
        assert_eq!(app.post("/keys", &shop, &with("metadata", largest)).await.status, 201);
    }

    async fn an_issued_key_acts_for_its_owner_within_its_scopes(app: App) {
        let root = app.admin("shop@example.org").await;
        let body = json!({ "name": "reader", "scopes": ["pages:read", "translate:use"] });
        let key = Credential::Token(app.post("/keys", &root, &body).await.text_of("key"));
        assert_eq!(app.get("/page/", &key).await.status, 200);
        app.post("/page/", &key, &json!({ "title": "t", "body": "" })).await.assert_error(403, "insufficient_scope");
        assert_eq!(app.get("/me/keys", &root).await.body["items"], json!([]), "an issued key is not among the owner's own keys");
        app.get("/me/keys/1", &root).await.assert_error(404, "not_found");
    }

    async fn the_list_of_issued_keys_is_paginated(app: App) {
        let shop = shop(&app).await;
        for order in 1..=5 {
            app.post("/keys", &shop, &purchase(&order.to_string())).await;
        }
        let mut orders = Vec::new();
        let mut next = json!(0);
        while !next.is_null() {
            let list = app.get(&format!("/keys?limit=2&after={next}"), &shop).await;
            orders.extend(list.body["items"].as_array().unwrap().iter().map(|key| key["order"].clone()));
            next = list.body["next"].clone();
        }
        assert_eq!(orders, ["1", "2", "3", "4", "5"]);
        for query in ["limit=0", "limit=101", "after=-1", "limit=x"] {
            app.get(&format!("/keys?{query}"), &shop).await.assert_error(422, "invalid");
        }
    }

    async fn a_key_stores_at_most_a_hundred_idempotency_keys(app: App) {
        let (shop, _) = app.key_of(&app.admin("shop@example.org").await, &["keys:issue"]).await;
        let body = json!({ "name": "k", "scopes": [], "order": "A-1" });
        for name in 0..103 {
            let request = app.request("POST", "/keys").credential(&shop).header("Idempotency-Key", &format!("name-{name}"));
            let answer = request.json(&body).send().await;
            assert_eq!((answer.status, &answer.body["order"]), (if name == 0 { 201 } else { 200 }, &json!("A-1")));
        }
        assert_eq!(app.database.number("SELECT count(*) FROM issue_requests").await, 100);
    }
}
