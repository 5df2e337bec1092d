//! Forward-auth: whether a reverse proxy can pass a request on, and the headers that identify its caller.

use latchkey::config::{ForwardAudit, Limit, Settings};
use serde_json::{Value, json};

use crate::support::app::STATIC_KEY;
use crate::support::client::Request;
use crate::support::{Answer, App, Backend, Credential, Profile, scopes, specify};

const REMOTE: [&str; 6] =
    ["remote-user", "remote-email", "remote-email-verified", "remote-name", "remote-scopes", "remote-key"];

fn remote_headers(answer: &Answer) -> [&str; 6] {
    REMOTE.map(|name| answer.header(name))
}

/// A server with these rules, behind a trusted proxy.
async fn app_with_rules(
    backend: Backend,
    profile: Profile,
    rules: &Value,
    change: impl Fn(&mut Settings),
) -> Option<App> {
    let settings = |settings: &mut Settings| {
        settings.http.trusted_proxies = serde_json::from_str(r#"["127.0.0.1"]"#).unwrap();
        settings.authz.rules = serde_json::from_value(rules.clone()).unwrap();
        change(settings);
    };
    App::start_with_stopped_clock(backend, profile, settings).await
}

/// Servers with these rules: one for each database and status profile.
async fn apps_with_rules(rules: Value, change: impl Fn(&mut Settings)) -> Vec<App> {
    let mut apps = Vec::new();
    for (backend, profile) in [(Backend::Sqlite, Profile::Fastapi), (Backend::Postgres, Profile::Rfc)] {
        apps.extend(app_with_rules(backend, profile, &rules, &change).await);
    }
    apps
}

/// A request with the headers of Traefik and Caddy.
fn forwarded(app: &App, credential: &Credential, method: &str, uri: &str) -> Request {
    let request = app.request("GET", "/authz").credential(credential).header("X-Forwarded-Method", method);
    request.header("X-Forwarded-Uri", uri).header("X-Forwarded-Host", "api.example.com")
}

async fn check(app: &App, credential: &Credential, method: &str, uri: &str) -> Answer {
    forwarded(app, credential, method, uri).send().await
}

specify! {
    async fn without_rules_any_valid_credential_passes_and_the_response_names_the_caller(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let (own, own_id) = app.key_of(&ada, &["pages:read"]).await;
        let request = json!({ "name": "Zo\u{eb} & Co 100%", "scopes": ["translate:use", "pages:read"] });
        let issued = app.post("/keys", &root, &request).await;
        let (issued, issued_id) = (Credential::Bearer(issued.text_of("key")), issued.body["id"].to_string());
        let static_key = Credential::Token(STATIC_KEY.into());
        let all = &scopes::text_of("member");
        for (credential, expected) in [
            (&ada, ["2", "ada@example.org", "false", "Adaline", all, ""]),
            (&own, ["2", "ada@example.org", "false", "Adaline", "pages:read", &own_id.to_string()]),
            (&issued, ["", "", "", "Zo%C3%AB & Co 100%25", "pages:read translate:use", &issued_id]),
            (&static_key, ["", "", "", "static key", "", ""]),
        ] {
            let answer = app.get("/authz", credential).await;
            assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{answer:?}");
            assert_eq!(remote_headers(&answer), expected);
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }

    async fn every_method_is_accepted_and_the_credential_alone_decides(app: App) {
        let ada = app.user("ada@example.org").await;
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
            let answer = app.request(method, "/authz").credential(&ada).send().await;
            assert_eq!((answer.status, answer.header("remote-user")), (200, "1"), "{method}");
            let answer = app.request(method, "/authz").send().await;
            assert_eq!(answer.status, app.expected.no_credential, "{method}: {answer:?}");
        }
    }

    async fn requests_without_a_valid_credential_get_the_errors_of_the_guard(app: App) {
        let ada = app.user("ada@example.org").await;
        let inbound = |request: Request| REMOTE.iter().fold(request, |request, name| request.header(name, "root"));
        let missing = inbound(app.request("GET", "/authz")).send().await;
        missing.assert_error(app.expected.no_credential, "not_authenticated");
        assert_eq!(missing.header("www-authenticate"), r#"Bearer realm="latchkey""#);
        let bad = inbound(app.request("GET", "/authz").header("Token", "x")).send().await;
        bad.assert_error(app.expected.bad_token_header, "invalid_token");
        app.get("/authz", &Credential::Bearer("x".into())).await.assert_error(app.expected.bad_bearer, "invalid_token");
        let two = app.request("GET", "/authz").header("Token", ada.secret()).header("Authorization", "Bearer x");
        two.send().await.assert_error(400, "ambiguous_credential");
        for answer in [&missing, &bad] {
            assert_eq!(remote_headers(answer), [""; 6]);
        }
        // Headers of the request that name a user are ignored.
        let answer = inbound(app.request("GET", "/authz").credential(&ada)).send().await;
        assert_eq!(remote_headers(&answer)[..2], ["1", "ada@example.org"]);
        app.delete("/token", &ada).await;
        app.get("/authz", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
    }

    async fn the_query_can_require_scopes(app: App) {
        let root = app.admin("root@example.org").await;
        let request = json!({ "name": "issued", "scopes": ["translate:use", "pages:read"] });
        let issued = app.post("/keys", &root, &request).await;
        let issued = Credential::Token(issued.text_of("key"));
        for query in ["scope=translate:use", "scope=translate:use+pages:read", "scope=pages%3Aread&scope=translate%3Ause"] {
            let answer = app.get(&format!("/authz?{query}"), &issued).await;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
        }
        for (query, missing) in [
            ("scope=translate:admin", "translate:admin"),
            ("scope=translate:use+translate:admin", "translate:admin"),
            ("scope=translate:use&scope=a+b", "a b"),
            ("scope=keys:issue", "keys:issue"),
        ] {
            let answer = app.get(&format!("/authz?{query}"), &issued).await;
            answer.assert_error(403, "insufficient_scope");
            let challenge = format!(r#"Bearer realm="latchkey", error="insufficient_scope", scope="{missing}""#);
            assert_eq!(answer.header("www-authenticate"), challenge, "{query}");
            assert_eq!(remote_headers(&answer), [""; 6]);
            let entry = &app.trail(&root, "outcome=denied").await[0];
            assert_eq!((&entry["action"], &entry["target"]), (&json!("request"), &json!("/authz")), "{entry}");
            assert_eq!(entry["detail"], format!("insufficient_scope {missing}"));
        }
        // No role in these settings holds this external scope, and the static key has no scopes.
        app.get("/authz?scope=translate:use", &root).await.assert_error(403, "insufficient_scope");
        app.get("/authz?scope=pages:read", &Credential::Token(STATIC_KEY.into())).await.assert_error(403, "insufficient_scope");
        for wrong in ["scope=", "scope=a++b", "scope=%22", "scope", "scopes=translate:use", "scope=translate:use&x=1"] {
            app.get(&format!("/authz?{wrong}"), &issued).await.assert_error(422, "invalid");
        }
        for broken in ["scope=%zz", "scope=%ff"] {
            app.get(&format!("/authz?{broken}"), &issued).await.assert_error(400, "malformed_encoding");
        }
    }
}

fn translate() -> Value {
    json!([
        { "host": "api.example.com", "methods": ["GET"], "path": "/status", "public": true },
        { "host": "api.example.com", "methods": ["POST", "DELETE"], "path": "/translate", "scopes": ["translate:use"] },
        { "host": "api.example.com", "path": "/home", "scopes": [] },
    ])
}

#[tokio::test]
async fn the_first_matching_rule_decides() {
    for app in apps_with_rules(translate(), |_| ()).await {
        let root = app.admin("root@example.org").await;
        let issued = app.post("/keys", &root, &json!({ "name": "issued", "scopes": ["translate:use"] })).await;
        let issued = Credential::Token(issued.text_of("key"));
        let (none, static_key) = (&Credential::None, Credential::Token(STATIC_KEY.into()));
        for (credential, method, uri, status) in [
            (none, "GET", "/status", 200),
            (none, "HEAD", "/status/x?y=//", 200),
            (none, "POST", "/status", app.expected.no_credential),
            (&root, "POST", "/status", 403),
            (none, "POST", "/translate", app.expected.no_credential),
            (&issued, "POST", "/translate/de?q=%2e%2e", 200),
            (&issued, "POST", "/%74ranslate", 200),
            (&issued, "GET", "/translate", 403),
            (&root, "DELETE", "/translate", 403),
            (&static_key, "POST", "/translate", 403),
            (&static_key, "GET", "/home", 200),
            (&issued, "GET", "/home/", 200),
            (&root, "GET", "/homes", 403),
            (&root, "GET", "/", 403),
        ] {
            let answer = check(&app, credential, method, uri).await;
            assert_eq!(answer.status, status, "{method} {uri}: {answer:?}");
        }
        assert_eq!(check(&app, &root, "GET", "/").await.body["code"], "no_rule");
        let other =
            app.request("GET", "/authz").header("X-Forwarded-Method", "GET").header("X-Forwarded-Uri", "/status");
        let other = other.header("X-Forwarded-Host", "other.example.com").credential(&root).send().await;
        other.assert_error(403, "no_rule");
        // A scope in the query is required in addition to the rule.
        let scoped =
            |scope: &str| app.request("GET", &format!("/authz?scope={scope}")).header("X-Forwarded-Method", "GET");
        let scoped = |scope: &str| {
            scoped(scope).header("X-Forwarded-Uri", "/status").header("X-Forwarded-Host", "api.example.com")
        };
        assert_eq!(scoped("translate:use").send().await.status, app.expected.no_credential);
        assert_eq!(scoped("translate:use").credential(&issued).send().await.status, 200);
        scoped("a:b").credential(&issued).send().await.assert_error(403, "insufficient_scope");
    }
}

#[tokio::test]
async fn a_public_rule_ignores_credentials() {
    for app in apps_with_rules(translate(), |_| ()).await {
        let ada = app.user("ada@example.org").await;
        for credential in [&Credential::None, &Credential::Token("bad".into()), &ada] {
            let answer = check(&app, credential, "GET", "/status").await;
            assert_eq!((answer.status, remote_headers(&answer)), (200, [""; 6]), "{answer:?}");
        }
        let two = forwarded(&app, &ada, "GET", "/status").header("Authorization", "Bearer x").send().await;
        assert_eq!(two.status, 200, "{two:?}");
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused_if_a_rule_matches_paths() {
    for app in apps_with_rules(json!([{ "path": "/", "public": true }]), |_| ()).await {
        let ada = app.user("ada@example.org").await;
        assert_eq!(check(&app, &Credential::None, "GET", "/a").await.status, 200);
        for uri in [
            "/a/../b",
            "/%2e%2e/b",
            "//a",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%",
            "/a%zz",
            "/a;b",
            "/%252e",
            "a",
            "http://api.example.com/a",
            "*",
        ] {
            check(&app, &ada, "GET", uri).await.assert_error(403, "ambiguous_request");
            assert_eq!(check(&app, &Credential::None, "GET", uri).await.status, app.expected.no_credential, "{uri}");
        }
        check(&app, &ada, "G E T", "/a").await.assert_error(403, "ambiguous_request");
        let raw = app.request("GET", "/authz").credential(&ada).header("X-Forwarded-Method", "GET");
        raw.raw_header("X-Forwarded-Uri", b"/caf\xc3\xa9").send().await.assert_error(403, "ambiguous_request");
    }
}

#[tokio::test]
async fn any_path_passes_if_no_rule_for_its_host_matches_paths() {
    let rules = json!([
        { "host": "wiki.example.com", "path": "/admin", "scopes": ["wiki:admin"] },
        { "host": "api.example.com", "methods": ["GET"], "public": true },
        { "host": "api.example.com", "scopes": [] },
    ]);
    let writes = |settings: &mut Settings| settings.authz.audit = ForwardAudit::Writes;
    for app in apps_with_rules(rules, writes).await {
        let root = app.admin("root@example.org").await;
        for uri in ["/api/v4/projects/a%2Fb?x=%2F", "//a", "/a;b=c", "/a/../b", "/%zz", "*", "http://api.example.com/a"]
        {
            assert_eq!(check(&app, &Credential::None, "GET", uri).await.status, 200, "{uri}");
            assert_eq!(check(&app, &root, "POST", uri).await.status, 200, "{uri}");
            assert_eq!(check(&app, &Credential::None, "POST", uri).await.status, app.expected.no_credential, "{uri}");
            let on_the_wiki = app.request("GET", "/authz").credential(&root).header("X-Forwarded-Method", "GET");
            let on_the_wiki = on_the_wiki.header("X-Forwarded-Uri", uri).header("X-Forwarded-Host", "wiki.example.com");
            on_the_wiki.send().await.assert_error(403, "ambiguous_request");
        }
        // Repeated refusals are summed. Requests that pass always have their own entries.
        for _ in 0..20 {
            assert_eq!(check(&app, &root, "POST", "/api").await.status, 200);
        }
        let entries = app.trail(&root, "action=request.forward&outcome=success").await;
        assert_eq!(entries.len(), 27, "{entries:?}");
        assert_eq!(entries[26]["target"], "POST /api/v4/projects/a%2Fb", "as it was sent, without the query");
    }
}

#[tokio::test]
async fn a_public_rule_for_options_lets_preflights_pass() {
    let rules = json!([{ "methods": ["OPTIONS"], "public": true }, { "scopes": [] }]);
    for app in apps_with_rules(rules, |_| ()).await {
        let ada = app.user("ada@example.org").await;
        let preflight =
            forwarded(&app, &Credential::None, "OPTIONS", "/a%2Fb").header("Origin", "https://app.example.com");
        let preflight = preflight.header("Access-Control-Request-Method", "PATCH").send().await;
        assert_eq!((preflight.status, remote_headers(&preflight)), (200, [""; 6]), "{preflight:?}");
        assert_eq!(check(&app, &Credential::None, "PATCH", "/a").await.status, app.expected.no_credential);
        assert_eq!(check(&app, &ada, "PATCH", "/a").await.status, 200);
    }
}

#[tokio::test]
async fn preflights_of_listed_origins_to_authz_require_what_the_rules_require() {
    let rules = json!([{ "scopes": ["pages:write"] }]);
    let origin = "https://app.example.com";
    let listed =
        |settings: &mut Settings| settings.http.cors_origins = serde_json::from_value(json!([origin])).unwrap();
    for app in apps_with_rules(rules, listed).await {
        let ada = app.user("ada@example.org").await;
        let preflight = |origin: &str, credential: &Credential| {
            let request = app.request("OPTIONS", "/authz").credential(credential).header("Origin", origin);
            let request = request.header("X-Forwarded-Method", "OPTIONS").header("X-Forwarded-Uri", "/home");
            request.header("Access-Control-Request-Method", "GET").header("X-Forwarded-Host", "a.example.com").send()
        };
        for origin in [origin, "https://other.example.com"] {
            assert_eq!(preflight(origin, &Credential::None).await.status, app.expected.no_credential, "{origin}");
            assert_eq!(preflight(origin, &ada).await.status, 200, "{origin}");
        }
    }
}

#[tokio::test]
async fn the_original_request_is_read_from_any_usual_header_and_contradictions_are_refused() {
    for app in apps_with_rules(translate(), |_| ()).await {
        let ada = app.user("ada@example.org").await;
        let send = |headers: &[(&str, &str)]| {
            let request = app.request("GET", "/authz").credential(&ada);
            headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
        };
        let (method, uri, host) =
            (("X-Original-Method", "GET"), ("X-Original-URI", "/home?x"), ("X-Original-Host", "api.example.com:443"));
        let url = ("X-Original-URL", "https://API.example.com/home?x");
        for headers in [
            &[method, uri, host][..],
            &[method, url],
            &[method, url, uri, host],
            &[
                ("X-Forwarded-Method", "get"),
                ("X-Forwarded-Uri", "/h%6fme"),
                ("X-Forwarded-Host", "api.example.com"),
                url,
                method,
            ],
            &[method, method, url],
        ] {
            assert_eq!(send(headers).await.status, 200, "{headers:?}");
        }
        for (headers, code) in [
            (&[][..], "missing_original_request"),
            (&[method, uri], "missing_original_request"),
            (&[uri, host], "missing_original_request"),
            (&[method, host], "missing_original_request"),
            (&[method, url, ("X-Forwarded-Uri", "/status")], "ambiguous_request"),
            (&[method, url, ("X-Forwarded-Method", "POST")], "ambiguous_request"),
            (&[method, url, ("X-Forwarded-Host", "other.example.com")], "ambiguous_request"),
            (&[method, url, ("X-Original-URL", "https://api.example.com/status")], "ambiguous_request"),
            (&[method, uri, ("X-Forwarded-Host", "api.example.com, evil.test")], "ambiguous_request"),
            (&[method, ("X-Original-URL", "api.example.com/home")], "ambiguous_request"),
            (&[method, ("X-Original-URL", "https://api.example.com")], "ambiguous_request"),
        ] {
            send(headers).await.assert_error(403, code);
        }
    }
}

#[tokio::test]
async fn forwarded_headers_of_untrusted_peers_are_ignored() {
    for app in apps_with_rules(json!([{ "public": true }]), |settings| {
        settings.http.trusted_proxies = serde_json::from_str(r#"["192.0.2.1"]"#).unwrap();
    })
    .await
    {
        let ada = app.user("ada@example.org").await;
        check(&app, &ada, "GET", "/a").await.assert_error(403, "missing_original_request");
        assert_eq!(check(&app, &Credential::None, "GET", "/a").await.status, app.expected.no_credential);
    }
}

#[tokio::test]
async fn decisions_about_writes_are_recorded_if_configured() {
    let writes = |settings: &mut Settings| settings.authz.audit = ForwardAudit::Writes;
    for app in
        apps_with_rules(json!([{ "path": "/open", "public": true }, { "path": "/a", "scopes": ["a:b"] }]), writes).await
    {
        let root = app.admin("root@example.org").await;
        let issued = app.post("/keys", &root, &json!({ "name": "issued", "scopes": ["a:b"] })).await.text_of("key");
        let (issued, none, bad) = (Credential::Token(issued), Credential::None, Credential::Token("bad".into()));
        for (credential, method, uri) in [
            (&issued, "GET", "/a"),
            (&none, "GET", "/a"),
            (&issued, "POST", "/a/b?secret=1"),
            (&none, "POST", "/open"),
            (&none, "PUT", "/a"),
            (&bad, "PATCH", "/a"),
            (&root, "DELETE", "/a"),
            (&root, "DELETE", "/c"),
            (&root, "GET", "/c"),
        ] {
            check(&app, credential, method, uri).await;
        }
        let line = |entry: &Value| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
            ["actor", "action", "target", "outcome", "detail"].map(text).join(" | ")
        };
        let mut lines: Vec<String> =
            app.trail(&root, "").await.iter().map(line).filter(|line| line.contains("| request")).collect();
        lines.reverse();
        assert_eq!(
            lines,
            [
                "key:1 | request.forward | POST /a/b | success | -",
                "anonymous | request.forward | POST /open | success | -",
                "anonymous | request.forward | PUT /a | denied | not_authenticated",
                "anonymous | request.forward | PATCH /a | denied | invalid_token",
                "user:1 | request.forward | DELETE /a | denied | insufficient_scope a:b",
                "user:1 | request.forward | DELETE /c | denied | no_rule",
                "user:1 | request | /authz | denied | no_rule",
            ]
        );
        // A request does not pass if its decision cannot be recorded.
        app.database.execute("ALTER TABLE audit_entries RENAME TO audit_entries_renamed").await;
        assert!(check(&app, &issued, "POST", "/a").await.status >= 500);
        assert!(check(&app, &none, "POST", "/open").await.status >= 500);
        assert_eq!(check(&app, &none, "GET", "/open").await.status, 200);
        app.database.execute("ALTER TABLE audit_entries_renamed RENAME TO audit_entries").await;
    }
}

/// The counters of cache hits and misses.
async fn cache_counters(metrics: std::net::SocketAddr) -> [u64; 2] {
    let text = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap().text().await.unwrap();
    ["hit", "miss"].map(|outcome| {
        let prefix = format!("latchkey_cache_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse().unwrap()
    })
}

#[tokio::test]
async fn known_credentials_are_checked_from_the_cache() {
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with_metrics = |settings: &mut Settings| settings.metrics.listen = metrics.to_string().try_into().unwrap();
    let rules = json!([{ "scopes": ["pages:read"] }]);
    let app = app_with_rules(Backend::Sqlite, Profile::Fastapi, &rules, with_metrics).await.unwrap();
    let ada = app.user("ada@example.org").await;
    // The cache is used only after the change log has been read, and her sign-in invalidates her entry.
    let mut used_the_database = true;
    for _ in 0..1000 {
        let [hits, misses] = cache_counters(metrics).await;
        for _ in 0..10 {
            let answer = check(&app, &ada, "GET", "/a").await;
            assert_eq!((answer.status, answer.header("remote-email")), (200, "ada@example.org"), "{answer:?}");
        }
        used_the_database = cache_counters(metrics).await != [hits + 10, misses];
        if !used_the_database {
            break;
        }
    }
    assert!(!used_the_database, "ten requests in a row use the cache");
}

#[tokio::test]
async fn invalid_tokens_are_limited_by_the_client_address_that_the_proxy_reports() {
    let limited = |settings: &mut Settings| {
        settings.limits.enabled = true;
        settings.limits.invalid_tokens = Limit { burst: 1, per_hour: 60 };
    };
    for app in apps_with_rules(json!([]), limited).await {
        let ada = app.user("ada@example.org").await;
        let from = |credential: &Credential, client: &str| {
            app.request("GET", "/authz").credential(credential).header("X-Forwarded-For", client).send()
        };
        let bad = Credential::Token("bad".into());
        from(&bad, "192.0.2.7").await.assert_error(app.expected.bad_token_header, "invalid_token");
        let refused = from(&bad, "192.0.2.7").await;
        refused.assert_error(429, "too_many_requests");
        assert_eq!(refused.header("retry-after"), "60");
        assert_eq!(from(&ada, "192.0.2.7").await.status, 200);
        from(&bad, "192.0.2.8").await.assert_error(app.expected.bad_token_header, "invalid_token");
    }
}

#[tokio::test]
async fn while_the_database_is_unavailable_no_credential_is_refused() {
    for app in apps_with_rules(json!([]), |settings| settings.auth.cache_size = 0).await {
        let ada = app.user("ada@example.org").await;
        app.database.execute("ALTER TABLE access_tokens RENAME TO access_tokens_renamed").await;
        let answer = app.get("/authz", &ada).await;
        assert!(answer.status >= 500, "{answer:?}");
        assert_eq!(remote_headers(&answer), [""; 6]);
        app.database.execute("ALTER TABLE access_tokens_renamed RENAME TO access_tokens").await;
    }
}
