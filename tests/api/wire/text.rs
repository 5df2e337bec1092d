//! Invisible characters and blanks in texts and e-mail addresses.

use serde_json::json;

use crate::support::app::{PASSWORD, registration};
use crate::support::{Credential, specify};

/// Invalid text, error code and error message.
const INVALID_TEXTS: [(&str, &str, &str); 9] = [
    ("      ", "blank", "Use at least one visible character."),
    ("\u{a0}\u{3000}\u{2800}\u{a0}\u{a0}", "blank", "Use at least one visible character."),
    ("\u{200b}\u{200b}\u{200b}\u{200b}\u{200b}", "invisible", "Remove the invisible character U+200B."),
    ("Ada\u{202e}Love", "invisible", "Remove the invisible character U+202E."),
    ("\u{feff}Adaline", "invisible", "Remove the invisible character U+FEFF."),
    ("Ada\u{200d}line", "invisible", "Remove the invisible character U+200D."),
    ("Adaline\u{2066}", "invisible", "Remove the invisible character U+2066."),
    ("Ada\u{e0041}line", "invisible", "Remove the invisible character U+E0041."),
    ("Ada\nline", "control", "Remove the control character U+000A."),
];

/// Valid texts with characters that are rejected in other contexts.
const VALID_TEXTS: [&str; 4] = [
    "\u{639}\u{644}\u{6cc}\u{200c}\u{631}\u{636}\u{627}",
    "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}\u{dbb}",
    "Ada \u{1f469}\u{1f3fd}\u{200d}\u{1f4bb}",
    "\u{5d0}\u{5d3}\u{5d4} Ada",
];

specify! {
    async fn displayed_texts_must_not_contain_invisible_characters(app: App) {
        let root = app.admin("root@example.org").await;
        let key = app.key_of(&root, &["pages:read"]).await.1;
        let page = app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await.body["id"].clone();
        let registration_with = |field: &str, text: &str| {
            let mut body = registration("ada@example.org");
            body[field] = json!(text);
            body
        };
        for (text, code, message) in INVALID_TEXTS {
            let order = json!({ "name": "k", "scopes": [], "order": text });
            for (method, path, field, body) in [
                ("POST", "/register", "name", registration_with("name", text)),
                ("POST", "/register", "surname", registration_with("surname", text)),
                ("POST", "/register", "website", registration_with("website", text)),
                ("PATCH", "/me", "name", json!({ "name": text })),
                ("PATCH", "/me", "surname", json!({ "surname": text })),
                ("PATCH", "/me", "website", json!({ "website": text })),
                ("POST", "/me/keys", "name", json!({ "name": text, "scopes": [] })),
                ("PATCH", &format!("/me/keys/{key}"), "name", json!({ "name": text })),
                ("POST", "/keys", "name", json!({ "name": text, "scopes": [] })),
                ("POST", "/keys", "order", order),
                ("POST", "/page/", "title", json!({ "title": text, "body": "b" })),
                ("PUT", &format!("/page/{page}"), "title", json!({ "title": text, "body": "b" })),
                ("PATCH", &format!("/page/{page}"), "title", json!({ "title": text })),
            ] {
                let answer = app.request(method, path).credential(&root).json(&body).send().await;
                answer.assert_error(422, "invalid");
                let expected = json!([{ "field": field, "code": code, "message": message }]);
                assert_eq!(answer.body["errors"], expected, "{method} {path} {text:?}");
            }
        }
        for (number, text) in VALID_TEXTS.iter().enumerate() {
            let mut body = registration_with("name", text);
            body["email"] = json!(format!("ada{number}@example.org"));
            assert_eq!(app.post("/register", &Credential::None, &body).await.body["name"], *text);
            assert_eq!(app.post("/page/", &root, &json!({ "title": text, "body": text })).await.body["title"], *text);
        }
        let page = app.post("/page/", &root, &json!({ "title": "t", "body": "a\n\u{202e}b\u{202c}\u{200b}" })).await;
        assert_eq!(page.status, 201, "a body is free text");
    }

    async fn blanks_around_an_email_are_ignored(app: App) {
        let blank = " \tada@example.org\r\n";
        let registered = app.post("/register", &Credential::None, &registration(blank)).await;
        assert_eq!((registered.status, &registered.body["email"]), (201, &json!("ada@example.org")));
        app.post("/register", &Credential::None, &registration("ada@example.org ")).await.assert_error(409, "email_taken");
        for spelling in ["ada@example.org", " ADA@example.org", "ada@example.org\n", blank] {
            assert_eq!(app.sign_in(spelling, PASSWORD).await.status, 200, "{spelling:?}");
        }
        let ada = app.user("eve@example.org").await;
        let new = json!({ "email": " grace@example.org ", "current_password": PASSWORD });
        assert_eq!(app.patch("/me", &ada, &new).await.body["email"], "grace@example.org");
        let root = app.admin("root@example.org").await;
        let found = app.get("/users?search=+%09ada@example.org+", &root).await;
        assert_eq!(found.body["items"].as_array().unwrap().len(), 1, "{found:?}");
    }

    async fn an_email_must_not_contain_invisible_characters(app: App) {
        for (email, point) in [
            ("ada\u{200b}@example.org", "U+200B"),
            ("ada\u{3164}@example.org", "U+3164"),
            ("ada@exam\u{ad}ple.org", "U+00AD"),
            ("\u{feff}ada@example.org", "U+FEFF"),
        ] {
            let answer = app.post("/register", &Credential::None, &registration(email)).await;
            answer.assert_error(422, "invalid");
            let message = answer.body["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains(point), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn failures_are_counted_per_account_in_every_spelling_of_the_email() {
    use crate::support::{App, Backend, Profile};

    let limited = |settings: &mut latchkey::config::Settings| {
        settings.limits.enabled = true;
        settings.limits.account_failures = 3;
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, limited).await.unwrap();
    app.register("ada@example.org").await;
    for spelling in ["ada@example.org ", "\tADA@example.org", "ada@example.org\r\n"] {
        assert_eq!(app.sign_in(spelling, "a wrong password").await.status, 401);
    }
    assert_eq!(app.database.number("SELECT count(*) FROM sign_in_failures").await, 1);
    assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 401, "the account has to wait");
}
