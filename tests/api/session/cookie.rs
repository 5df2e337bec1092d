//! The session cookie in the guard: which requests may use it, and what is beside it.

use serde_json::json;

use crate::support::app::{PASSWORD, STATIC_KEY};
use crate::support::client::{Request, SESSION_COOKIE};
use crate::support::{App, Backend, Credential, Profile, specify};

/// A request with the cookie and without the headers of a browser.
fn with_cookie(app: &App, method: &str, path: &str, session: &Credential) -> Request {
    app.request(method, path).header("Cookie", &format!("theme=dark; {SESSION_COOKIE}={}", session.secret()))
}

specify! {
    async fn only_requests_of_pages_of_this_server_can_use_the_cookie(app: App) {
        app.register("ada@example.org").await;
        let (session, id) = app.session_of("ada@example.org").await;
        let own = format!("http://{}", app.address);
        let other_port = format!("http://{}:{}", app.address.ip(), app.address.port() ^ 1);
        let other_scheme = format!("https://{}", app.address);
        for (headers, is_accepted) in [
            (vec![("Sec-Fetch-Site", "same-origin")], true),
            (vec![("Origin", own.as_str())], true),
            (vec![("Sec-Fetch-Site", "same-origin"), ("Origin", own.as_str())], true),
            (vec![], false),
            // Another port of this host.
            (vec![("Sec-Fetch-Site", "same-site"), ("Origin", other_port.as_str())], false),
            (vec![("Origin", other_port.as_str())], false),
            (vec![("Origin", other_scheme.as_str())], false),
            (vec![("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")], false),
            (vec![("Origin", "https://evil.example")], false),
            (vec![("Origin", "null")], false),
            // An address that the user has typed, or a bookmark.
            (vec![("Sec-Fetch-Site", "none")], false),
            (vec![("Sec-Fetch-Site", "cross-site"), ("Origin", own.as_str())], false),
            (vec![("Referer", own.as_str())], false),
        ] {
            for (method, path) in [("GET", "/me"), ("HEAD", "/me"), ("GET", "/session"), ("POST", "/page/"), ("PATCH", "/me")] {
                let request = headers.iter().fold(with_cookie(&app, method, path, &session), |request, (name, value)| request.header(name, value));
                let request = match method {
                    "POST" => request.json(&json!({ "title": "t", "body": "b" })),
                    "PATCH" => request.json(&json!({ "website": "elsewhere" })),
                    _ => request,
                };
                let answer = request.send().await;
                match (is_accepted, method) {
                    (true, _) => assert!(answer.status < 300, "{method} {path} with {headers:?}: {answer:?}"),
                    (false, "HEAD") => assert_eq!(answer.status, 403, "{headers:?}"),
                    (false, _) => answer.assert_error(403, "cross_site_request"),
                }
            }
        }
        // A sign-in without the cookie: a page of another site must not choose the account (login CSRF).
        let body = json!({ "email": "ada@example.org", "password": PASSWORD });
        for header in [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"), ("Origin", other_port.as_str()), ("Origin", "null")] {
            let answer = app.request("POST", "/session").header(header.0, header.1).json(&body).send().await;
            answer.assert_error(403, "cross_site_request");
            assert_eq!(answer.header("set-cookie"), "");
            let answer = app.request("DELETE", "/session").header(header.0, header.1).send().await;
            answer.assert_error(403, "cross_site_request");
            assert_eq!((answer.header("set-cookie"), answer.header("clear-site-data")), ("", ""));
        }
        with_cookie(&app, "POST", "/session", &session).json(&body).send().await.assert_error(403, "cross_site_request");
        with_cookie(&app, "DELETE", "/session", &session).send().await.assert_error(403, "cross_site_request");
        assert_eq!(app.get("/session", &session).await.body["id"], id, "the session is still open");
    }

    async fn a_form_of_another_page_changes_nothing(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        let page = json!({ "title": "t", "body": "b" }).to_string();
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let request = app.request("POST", "/page/").credential(&session).body(content_type, page.clone());
            request.send().await.assert_error(415, "unsupported_media_type");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
    }

    async fn another_credential_beside_the_cookie_decides(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        for credential in [eve.clone(), Credential::Bearer(eve.secret().to_owned())] {
            let answer = with_cookie(&app, "GET", "/me", &session).credential(&credential).send().await;
            assert_eq!(answer.text_of("email"), "eve@example.org", "and no header of a browser is required");
            let answer = app.request("GET", "/session").credential(&session).credential(&credential).send().await;
            answer.assert_error(403, "session_required");
            let answer = app.request("DELETE", "/session").credential(&session).credential(&credential).send().await;
            answer.assert_error(403, "session_required");
        }
        let invalid = Credential::Token("lkt_unknown".to_owned());
        let answer = app.request("GET", "/me").credential(&session).credential(&invalid).send().await;
        answer.assert_error(app.expected.bad_token_header, "invalid_token");
        // Empty headers, and schemes that the guard ignores, are no credential.
        for (name, value) in [("Token", ""), ("Authorization", ""), ("Authorization", "Basic YTpi")] {
            let answer = app.request("GET", "/me").credential(&session).header(name, value).send().await;
            assert_eq!(answer.text_of("email"), "ada@example.org", "{name}: {value}");
        }
    }

    async fn a_repeated_cookie_is_ambiguous(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        let (secret, same_origin) = (session.secret(), ("Sec-Fetch-Site", "same-origin"));
        for cookies in [
            vec![format!("{SESSION_COOKIE}={secret}; {SESSION_COOKIE}={secret}")],
            vec![format!("{SESSION_COOKIE}=planted; {SESSION_COOKIE}={secret}")],
            vec![format!("{SESSION_COOKIE}={secret}"), format!("{SESSION_COOKIE}=planted")],
        ] {
            for (method, path) in [("GET", "/me"), ("GET", "/session"), ("DELETE", "/session"), ("POST", "/session")] {
                let request = cookies.iter().fold(app.request(method, path), |request, cookie| request.header("Cookie", cookie));
                let request = request.header(same_origin.0, same_origin.1);
                let request = if method == "POST" { request.json(&json!({ "email": "ada@example.org", "password": PASSWORD })) } else { request };
                request.send().await.assert_error(400, "ambiguous_credential");
            }
        }
        assert_eq!(app.get("/me", &session).await.status, 200);
    }

    async fn each_kind_of_secret_is_accepted_in_its_own_place_only(app: App) {
        let token = app.user("ada@example.org").await;
        let (key, _) = app.key_of(&token, &["pages:read"]).await;
        let (session, _) = app.session_of("ada@example.org").await;
        for secret in [token.secret(), key.secret(), STATIC_KEY, "lks_", "\u{e9}", &session.secret().to_uppercase(), &"a".repeat(5000)] {
            let answer = app.get("/protected-route", &Credential::Session(secret.to_owned())).await;
            answer.assert_error(401, "invalid_token");
            assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="latchkey", error="invalid_token""#);
        }
        for (credential, status) in [
            (Credential::Token(session.secret().to_owned()), app.expected.bad_token_header),
            (Credential::Bearer(session.secret().to_owned()), app.expected.bad_bearer),
        ] {
            app.get("/protected-route", &credential).await.assert_error(status, "invalid_token");
        }
        app.get("/me", &Credential::Session(String::new())).await.assert_error(app.expected.no_credential, "not_authenticated");
    }

    async fn services_ignore_the_cookie(app: App) {
        let root = app.admin("root@example.org").await;
        let (session, _) = app.session_of("root@example.org").await;
        app.get("/authz", &session).await.assert_error(app.expected.no_credential, "not_authenticated");
        let form = [("token", session.secret())];
        let introspect = app.request("POST", "/introspect").credential(&session).form(&form).send().await;
        introspect.assert_error(401, "invalid_client");
        // As anonymous, without the headers of a browser, and with those of another site.
        let token = [("token", root.secret())];
        let revoke = with_cookie(&app, "POST", "/revoke", &session).header("Sec-Fetch-Site", "cross-site").form(&token).send().await;
        assert_eq!(revoke.status, 200, "{revoke:?}");
        let root = app.new_token_of("root@example.org").await;
        let introspect = app.request("POST", "/introspect").header("Token", &root).form(&form).send().await;
        assert_eq!(introspect.body, json!({ "active": false }), "a session is for browsers only");
        assert_eq!(app.get("/me", &session).await.status, 200);
    }

    async fn head_responds_like_get_and_options_stay_closed(app: App) {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        for path in ["/session", "/me", "/me/sessions"] {
            let get = app.get(path, &session).await;
            let head = app.request("HEAD", path).credential(&session).send().await;
            assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
            assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
            app.request("OPTIONS", path).credential(&session).send().await.assert_error(405, "method_not_allowed");
        }
    }
}

/// Also for an origin whose pages may read responses: they send tokens.
#[tokio::test]
async fn cors_never_allows_credentials() {
    let page = "https://app.example.com";
    let listed = |settings: &mut latchkey::config::Settings| {
        settings.http.cors_origins = vec![page.to_owned()].try_into().unwrap();
    };
    for app in App::start_on_all(listed).await {
        app.register("ada@example.org").await;
        let (session, _) = app.session_of("ada@example.org").await;
        let answer = with_cookie(&app, "GET", "/me", &session).header("Origin", page).send().await;
        answer.assert_error(403, "cross_site_request");
        assert_eq!(answer.header("access-control-allow-origin"), page);
        assert_eq!(answer.header("access-control-allow-credentials"), "");
        let body = json!({ "email": "ada@example.org", "password": PASSWORD });
        let answer = app.request("POST", "/session").header("Origin", page).json(&body).send().await;
        answer.assert_error(403, "cross_site_request");
        let preflight = app
            .request("OPTIONS", "/session")
            .header("Origin", page)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type")
            .send()
            .await;
        assert_eq!(preflight.header("access-control-allow-credentials"), "", "{preflight:?}");
    }
}

#[tokio::test]
async fn the_public_url_is_the_origin_of_this_server() {
    let public = |settings: &mut latchkey::config::Settings| {
        settings.http.public_url = "https://auth.example.com".to_owned();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, public).await.unwrap();
    app.register("ada@example.org").await;
    let (session, _) = app.session_of("ada@example.org").await;
    let own = format!("http://{}", app.address);
    for (origin, status) in [("https://auth.example.com", 200), (own.as_str(), 403), ("http://auth.example.com", 403)] {
        let answer = with_cookie(&app, "GET", "/me", &session).header("Origin", origin).send().await;
        assert_eq!(answer.status, status, "{origin}");
    }
}

#[tokio::test]
async fn invalid_cookies_count_as_invalid_tokens_of_the_client() {
    let low = |settings: &mut latchkey::config::Settings| {
        settings.limits.enabled = true;
        settings.limits.invalid_tokens = latchkey::config::Limit { burst: 2, per_hour: 60 };
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, low).await.unwrap();
    app.register("ada@example.org").await;
    let (session, _) = app.session_of("ada@example.org").await;
    let unknown = Credential::Session("lks_unknown".to_owned());
    app.get("/me", &unknown).await.assert_error(401, "invalid_token");
    assert_eq!(app.delete("/session", &unknown).await.status, 204);
    app.get("/me", &unknown).await.assert_error(429, "too_many_requests");
    assert_eq!(app.delete("/session", &unknown).await.status, 204, "a browser drops a cookie that has ended");
    assert_eq!(app.get("/me", &session).await.status, 200);
}
