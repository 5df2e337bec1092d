//! The index of the API (`GET /`).

use latchkey::config::RegistrationMode;
use serde_json::{Value, json};

use crate::support::{App, Credential, specify};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

specify! {
    async fn the_index_names_the_program_and_links_to_its_entry_points(app: App) {
        let answer = app.get("/", &Credential::None).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
        assert_eq!(answer.body, json!({
            "name": "latchkey",
            "version": env!("CARGO_PKG_VERSION"),
            "links": {
                "docs": "/docs/",
                "openapi": "/openapi.json",
                "health": "/health/ready",
                "register": "/register",
                "token": "/token",
            },
        }));
        for (link, path) in answer.body["links"].as_object().unwrap() {
            let path = path.as_str().unwrap();
            let status = if ["register", "token"].contains(&link.as_str()) { 405 } else { 200 };
            assert_eq!(app.get(path, &Credential::None).await.status, status, "{link}");
        }
    }

    async fn a_browser_is_redirected_to_the_documentation(app: App) {
        for (accept, is_html) in [
            (BROWSER, true),
            ("text/html", true),
            ("text/*", true),
            ("application/json;q=0.5, text/html;q=0.6", true),
            ("*/*", false),
            ("", false),
            ("application/json", false),
            ("text/html;q=0.5, application/json", false),
            ("text/html, application/json", false),
            ("text/html;q=0", false),
            ("image/png", false),
            ("\"", false),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = app.request(method, "/").header("Accept", accept).send().await;
                let expected = if is_html { (303, "docs/") } else { (200, "") };
                assert_eq!((answer.status, answer.header("location")), expected, "{method} {accept}");
                let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
                assert!(vary.iter().any(|value| *value == "Accept"), "{vary:?}");
                assert_eq!(answer.text.is_empty(), is_html || method == "HEAD", "{method} {accept}");
            }
        }
    }

    async fn only_the_index_has_the_methods_of_the_index(app: App) {
        let answer = app.request("POST", "/").send().await;
        answer.assert_error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD");
        // No route has this path, so the guard of the scope responds.
        let answer = app.request("POST", "/page/1/nothing").send().await;
        answer.assert_error(app.expected.no_credential, "not_authenticated");
    }
}

#[tokio::test]
async fn links_follow_the_settings() {
    let apps = App::start_on_all(|settings| {
        settings.http.public_url = "https://example.com/auth/".to_owned();
        settings.registration.mode = RegistrationMode::Closed;
    });
    for app in apps.await {
        let answer = app.get("/", &Credential::None).await;
        let links = &answer.body["links"];
        assert_eq!((&links["token"], &links["register"]), (&json!("https://example.com/auth/token"), &Value::Null));
        let metadata = "https://example.com/auth/.well-known/oauth-authorization-server";
        assert_eq!(links["metadata"], json!(metadata));
        let document = app.get("/openapi.json", &Credential::None).await.body;
        let example =
            document["paths"]["/"]["get"]["responses"]["200"]["content"]["application/json"]["example"].to_string();
        let example: Value = serde_json::from_str(&example.replace("auth.example.com", "example.com/auth")).unwrap();
        let mut with_registration = answer.body.clone();
        with_registration["links"]["register"] = json!("https://example.com/auth/register");
        assert_eq!(example, with_registration);
        // The address is relative, so that it is right with and without the proxy that adds the prefix.
        let redirect = app.request("GET", "/").header("Accept", BROWSER).send().await;
        assert_eq!(redirect.header("location"), "docs/");
    }
}
