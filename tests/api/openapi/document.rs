//! Compares the OpenAPI document with the behavior of the server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::requests::{self, Callers};
use crate::support::{App, Credential, specify_mailing};

/// Operations that require no credential. Entries can be removed, but must not be added.
const PUBLIC: [(&str, &str); 17] = [
    ("delete", "/session"),
    ("get", "/"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("post", "/email-change/confirm"),
    ("post", "/email-change/undo"),
    ("post", "/email-verification"),
    ("post", "/email-verification/confirm"),
    ("post", "/invitations/accept"),
    ("post", "/keys/claim"),
    ("post", "/password-reset"),
    ("post", "/password-reset/confirm"),
    ("post", "/register"),
    ("post", "/registration/confirm"),
    ("post", "/revoke"),
    ("post", "/session"),
    ("post", "/token"),
];

async fn document(app: &App) -> Value {
    let answer = app.get("/openapi.json", &Credential::None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    answer.body
}

fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(|(method, operation)| (method.as_str(), path.as_str(), operation))
        })
        .collect()
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

specify_mailing! {
    async fn only_guarded_operations_have_locks_and_reject_anonymous_requests(app: App) {
        let document = document(&app).await;
        // Browsers add cookies to requests from pages of other origins, so cookies must not authenticate.
        let token = app.token_of("ada@example.org").await;
        let cookies = format!("Token={token}; token={token}; access_token={token}; Authorization=Bearer {token}");
        let mut public = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let request = app.request(&method.to_uppercase(), &path.replace("{id}", "1")).header("Cookie", &cookies);
            let answer = request.header("Origin", "https://evil.example").send().await;
            assert_eq!(answer.header("set-cookie"), "", "{method} {path}");
            assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
            if PUBLIC.contains(&(method, path)) {
                public.insert((method, path));
                assert_eq!(operation["security"], json!([]), "{method} {path} has no lock");
                if path == "/session" {
                    answer.assert_error(403, "cross_site_request");
                    continue;
                }
                assert_ne!(answer.status, app.expected.no_credential, "{method} {path}");
            } else {
                // RFC 7662, section 2.3, in both profiles.
                let expected = if path == "/introspect" { 401 } else { app.expected.no_credential };
                assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
                let schemes: Vec<&String> =
                    operation["security"].as_array().unwrap().iter().flat_map(|scheme| scheme.as_object().unwrap().keys()).collect();
                let locks = match path {
                    "/authz" | "/introspect" => json!(["token", "password"]),
                    "/session" => json!(["session"]),
                    _ => json!(["token", "password", "session"]),
                };
                assert_eq!(json!(schemes), locks, "{method} {path}: any of these schemes is accepted");
            }
        }
        assert_eq!(public, BTreeSet::from(PUBLIC), "the list of public operations is exact");
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!((&schemes["token"]["type"], &schemes["token"]["in"], &schemes["token"]["name"]), (&json!("apiKey"), &json!("header"), &json!("Token")));
        assert_eq!((&schemes["session"]["type"], &schemes["session"]["in"], &schemes["session"]["name"]), (&json!("apiKey"), &json!("cookie"), &json!("__Host-latchkey")));
        assert_eq!(schemes["password"]["flows"]["password"]["tokenUrl"], "/token");
    }

    async fn each_success_has_exactly_the_documented_members(app: App) {
        let document = document(&app).await;
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        app.user("eve@example.org").await;
        let tim = app.user("tim@example.org").await;
        let callers = Callers { client: &app, member: &ada, admin: &root, email: "eve@example.org" };
        let mut requests = Vec::new();
        // The table introspects an unknown token, and that response lacks most members.
        for (method, path, _) in operations(&document).into_iter().filter(|(_, path, _)| *path != "/introspect") {
            requests.push((method, path, callers.permitted(&format!("{} {path}", method.to_uppercase())).await));
        }
        let admin = |method: &str, path: &str| app.request(method, path).credential(&root);
        requests.push(("post", "/introspect", admin("POST", "/introspect").form(&[("token", tim.secret())])));
        requests.push(("post", "/keys", admin("POST", "/keys").json(&json!({ "name": "k", "scopes": ["pages:read"] }))));
        requests.push(("get", "/users", admin("GET", "/users?total=true")));
        for (method, path, request) in requests {
            let answer = request.send().await;
            let response = resolve(&document, &document["paths"][path][method]["responses"][answer.status.to_string()]);
            assert!(answer.status < 300 && response.is_object(), "{method} {path}: {answer:?}");
            let documented_headers = response["headers"].as_object().into_iter().flat_map(|headers| headers.keys());
            for header in documented_headers {
                assert_ne!(answer.header(header), "", "{method} {path} sends {header}");
            }
            let schema = resolve(&document, &response["content"]["application/json"]["schema"]);
            if schema.is_null() {
                assert_eq!(answer.text, "", "{method} {path}");
                continue;
            }
            assert_eq!(answer.header("content-type"), "application/json", "{method} {path}");
            let documented: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            // RFC 7662, section 2.2: members can be absent. `iss` requires a setting.
            let optional: &[&str] = if path == "/introspect" { &["iss"] } else { &[] };
            let expected: Vec<&str> = documented.iter().copied().filter(|member| !optional.contains(member)).collect();
            assert_eq!(answer.members(), expected, "{method} {path}");
            for (member, rules) in schema["properties"].as_object().unwrap() {
                let may_be_null = rules["nullable"] == true;
                let may_be_absent = optional.contains(&member.as_str());
                assert!(may_be_null || may_be_absent || !answer.body[member].is_null(), "{member} of {method} {path} must not be null");
            }
            if path != "/introspect" {
                assert_eq!(schema["required"].as_array().unwrap().len(), documented.len(), "{method} {path}: all are required");
            }
            for item in answer.body["items"].as_array().into_iter().flatten() {
                let schema = resolve(&document, &schema["properties"]["items"]["items"]);
                let documented: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
                let mut members: Vec<&String> = item.as_object().unwrap().keys().collect();
                members.sort_unstable();
                assert_eq!(members, documented, "an item of {method} {path}");
            }
        }
    }

    async fn every_time_in_a_response_has_microseconds(app: App) {
        fn check(value: &Value, seen: &mut usize) {
            match value {
                Value::Object(members) => for (name, value) in members {
                    if let Some(time) = value.as_str().filter(|_| name == "at" || name.ends_with("_at")) {
                        assert!(time.len() == 27 && time.get(19..20) == Some(".") && time.ends_with('Z'), "{name}: {time}");
                        *seen += 1;
                    }
                    check(value, seen);
                },
                Value::Array(items) => items.iter().for_each(|item| check(item, seen)),
                _ => {}
            }
        }
        let root = app.admin("root@example.org").await;
        app.key_of(&root, &[]).await;
        app.post("/keys", &root, &json!({ "name": "k", "scopes": [], "delivery": "claim" })).await;
        app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await;
        // Whole seconds and tenths, because many formats omit trailing zeros.
        let (whole, tenth) = ("'2030-01-01 00:00:00'", "'2030-01-01 00:00:00.1'");
        for table in ["users", "pages"] {
            app.database.execute(format!("UPDATE {table} SET created_at = {whole}, updated_at = {tenth}")).await;
        }
        app.database.execute(format!(
            "UPDATE api_keys SET created_at = {whole}, expires_at = {tenth}, last_used_at = {whole}, previous_expires_at = {tenth}, \
             revoked_at = {whole}, claim_expires_at = {tenth}, claimed_at = {whole}"
        )).await;
        app.database.execute(format!(
            "INSERT INTO audit_entries (at, actor, user_id, credential, scopes, action, target, changed, outcome) \
             VALUES ({whole}, 'user:1', 1, 'token:1', '', 'page.update', 'page:1', '', 'success')"
        )).await;
        app.session_of("root@example.org").await;
        app.database.execute(format!("UPDATE sessions SET created_at = {whole}, last_used_at = '2098-01-01 00:00:00', expires_at = '2099-01-01 00:00:00.1'")).await;
        for (path, least) in [
            ("/me/sessions", 3), ("/me", 2), ("/users", 2), ("/users/1", 2), ("/page/", 2), ("/page/1", 2), ("/page/1/history", 2), ("/me/keys", 4),
            ("/me/keys/1", 4), ("/keys", 7), ("/keys/2", 7), ("/audit", 6), ("/me/activity", 6),
        ] {
            let (answer, mut seen) = (app.get(path, &root).await, 0);
            check(&answer.body, &mut seen);
            assert!(answer.status == 200 && seen >= least, "{path} shows {seen} times: {answer:?}");
        }
        let lines = app.request("GET", "/audit").credential(&root).header("Accept", "application/x-ndjson").send().await;
        let mut seen = 0;
        lines.text.lines().for_each(|line| check(&serde_json::from_str(line).unwrap(), &mut seen));
        assert!(seen >= 6, "{lines:?}");
    }

    async fn the_document_has_no_nulls_and_no_broken_references(app: App) {
        fn find_nulls(value: &Value, path: &str, found: &mut Vec<String>) {
            match value {
                Value::Null => found.push(path.to_owned()),
                // An example can contain null.
                Value::Object(members) => members.iter().filter(|(name, _)| *name != "example").for_each(|(name, value)| {
                    find_nulls(value, &format!("{path}/{name}"), found);
                }),
                Value::Array(items) => items.iter().for_each(|item| find_nulls(item, path, found)),
                _ => {}
            }
        }
        fn find_references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|value| find_references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| find_references(item, found)),
                _ => {}
            }
        }
        let document = document(&app).await;
        let mut nulls = Vec::new();
        find_nulls(&document, "", &mut nulls);
        assert_eq!(nulls, [""; 0], "Swagger UI fails on null");
        let mut references = BTreeSet::new();
        find_references(&document, &mut references);
        assert!(references.len() > 30, "{references:?}");
        for reference in references {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} does not exist");
        }
    }

    async fn every_bound_of_a_json_body_is_enforced(app: App) {
        let document = document(&app).await;
        let ada = app.admin("ada@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await;
        app.key_of(&ada, &[]).await;
        let mut tried = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let schema = resolve(&document, &operation["requestBody"]["content"]["application/json"]["schema"]);
            if schema.is_null() {
                continue;
            }
            let valid = requests::json_of(&format!("{} {path}", method.to_uppercase()));
            let place = format!("{method} {path}: declare the bounds of its body in `resource()`, next to the handler");
            assert_eq!(schema["additionalProperties"], false, "{place}");
            for (field, rules) in schema["properties"].as_object().into_iter().flatten() {
                let mut wrong = Vec::new();
                match rules["type"].as_str().unwrap() {
                    "string" if rules["enum"].is_array() => wrong.push(json!("no such word")),
                    // These are compared with a stored value, so any text that fits into the body is a valid value.
                    "string" if ["current_password", "claim", "secret"].contains(&field.as_str()) => {}
                    "string"
                        if field == "password"
                            && ["/email-verification/confirm", "/email-change/confirm"].contains(&path) => {}
                    "string" => {
                        let most = rules["maxLength"].as_u64().unwrap_or_else(|| panic!("{place}: {field} has no maxLength"));
                        let over = usize::try_from(most).unwrap() + 1;
                        // A longer time would exceed the limit of the body. Any text that is not a time is invalid.
                        wrong.push(json!("a".repeat(if rules["format"] == "date-time" { 100 } else { over })));
                        let least = usize::try_from(rules["minLength"].as_u64().unwrap_or_default()).unwrap();
                        wrong.extend(least.checked_sub(1).map(|under| json!("a".repeat(under))));
                    }
                    "integer" => {
                        let bound = |name: &str| rules[name].as_i64().unwrap_or_else(|| panic!("{place}: {field} has no {name}"));
                        wrong.push(json!(bound("minimum") - 1));
                        wrong.push(json!(bound("maximum") + 1));
                    }
                    "array" => {
                        let name = |number: u64| json!(format!("a:{number}"));
                        wrong.push((0..=rules["maxItems"].as_u64().unwrap()).map(name).collect());
                        wrong.push(json!(["pages:read", "pages:read"]));
                        wrong.push(json!([1]));
                    }
                    "object" => wrong.push(json!({ "long": "\u{1}".repeat(5000) })),
                    "boolean" => {}
                    other => panic!("{path} {field} is of type {other}"),
                }
                wrong.push(if rules["type"] == "string" { json!("nul\0") } else { json!("text") });
                wrong.push(json!(null));
                for wrong in wrong {
                    let mut body = valid.clone();
                    body[field] = wrong;
                    let path = path.replace("{id}", "1");
                    let answer = app.request(&method.to_uppercase(), &path).credential(&ada).json(&body).send().await;
                    answer.assert_error(422, "invalid");
                    assert!(answer.bad_fields().contains(&field.as_str()), "{method} {path} {field}: {answer:?}");
                    tried.insert(format!("{method} {path} {field} {}", body[field]));
                }
            }
        }
        assert!(tried.len() >= 100, "{} invalid values were sent", tried.len());
    }

    async fn every_bound_of_a_query_is_enforced(app: App) {
        let document = document(&app).await;
        let root = app.admin("root@example.org").await;
        app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await;
        let mut tried = 0;
        // Another test covers the parameters of `/authz`.
        for (method, path, operation) in operations(&document).into_iter().filter(|(_, path, _)| *path != "/authz") {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let parameter = resolve(&document, parameter);
                if parameter["in"] != "query" {
                    continue;
                }
                let (name, rules) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
                let mut wrong = Vec::new();
                match rules["type"].as_str().unwrap() {
                    "integer" => {
                        wrong.extend(rules["minimum"].as_i64().map(|least| (least - 1).to_string()));
                        wrong.extend(rules["maximum"].as_i64().map(|most| (most + 1).to_string()));
                        wrong.extend(["9223372036854775808", "1.0", "1e0", "0x1", "text", ""].map(str::to_owned));
                    }
                    "boolean" => wrong.extend(["1", "yes", "True", ""].map(str::to_owned)),
                    _ if rules["enum"].is_array() || rules["format"] == "date-time" => wrong.push("word".to_owned()),
                    _ => wrong.extend(rules["maxLength"].as_u64().map(|most| "a".repeat(usize::try_from(most).unwrap() + 1))),
                }
                wrong.push("nul%00".to_owned());
                for wrong in wrong {
                    let path = format!("{}?{name}={wrong}", path.replace("{id}", "1"));
                    let answer = app.request(&method.to_uppercase(), &path).credential(&root).send().await;
                    answer.assert_error(422, "invalid");
                    assert_eq!(answer.bad_fields(), [name], "{method} {path}");
                    tried += 1;
                }
            }
        }
        assert!(tried >= 100, "{tried} invalid values were sent");
    }

    async fn each_error_has_the_documented_members(app: App) {
        let document = document(&app).await;
        let ada = app.user("ada@example.org").await;
        let none = &Credential::None;
        for (method, path, answer) in [
            ("get", "/me", app.get("/me", none).await),
            ("get", "/me", app.get("/me", &Credential::Bearer("x".into())).await),
            ("post", "/register", app.register("ada@example.org").await),
            ("post", "/register", app.post("/register", none, &json!({})).await),
            ("post", "/register", app.request("POST", "/register").body("text/plain", "x").send().await),
            ("post", "/register", app.request("POST", "/register").body("application/json", "x").send().await),
            ("post", "/token", app.sign_in("ada@example.org", "wrong").await),
            ("post", "/revoke", app.request("POST", "/revoke").form(&[]).send().await),
            ("post", "/revoke", app.request("POST", "/revoke").header("Token", "x").send().await),
            ("post", "/introspect", app.request("POST", "/introspect").form(&[("token", "x")]).send().await),
            ("post", "/introspect", app.request("POST", "/introspect").credential(&ada).send().await),
            ("delete", "/token", app.request("DELETE", "/token").send().await),
            ("get", "/page/", app.get("/page/?page=0", &ada).await),
            ("get", "/page/{id}", app.get("/page/1", &ada).await),
        ] {
            let response = resolve(&document, &document["paths"][path][method]["responses"][answer.status.to_string()]);
            let schema = resolve(&document, &response["content"][answer.header("content-type")]["schema"]);
            let documented = schema["properties"].as_object().unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
            let required: Vec<&str> = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let members = answer.members();
            assert!(members.iter().all(|member| documented.contains_key(*member)), "{method} {path}: {answer:?}");
            assert!(required.iter().all(|member| members.contains(member)), "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn the_document_is_valid_openapi_3_0() {
    let settings = latchkey::config::Settings::defaults().unwrap();
    let current = latchkey::http::routes::document(&settings);
    let typed: openapiv3::OpenAPI = serde_json::from_str(current.json()).unwrap();
    assert!(typed.openapi.starts_with("3.0."));
    for (path, method, operation) in typed.operations() {
        assert!(operation.operation_id.is_some() && !operation.tags.is_empty(), "{method} {path}");
        assert!(
            operation.responses.responses.len() > 1 || path == "/health/live",
            "{method} {path} documents its errors"
        );
    }
}

/// `UPDATE_SNAPSHOTS=1 cargo test openapi` rewrites the file.
#[test]
fn the_checked_in_document_is_up_to_date() {
    let settings = latchkey::config::Settings::defaults().unwrap();
    let current = latchkey::http::routes::document(&settings);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var("UPDATE_SNAPSHOTS").is_ok_and(|value| value == "1") {
        std::fs::write(file, current.json()).unwrap();
    }
    let stored = std::fs::read_to_string(file).unwrap();
    assert!(stored == current.json(), "docs/openapi.json is out of date: UPDATE_SNAPSHOTS=1 cargo test openapi");
}
