//! The OpenAPI document against the server that it describes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::app::{PASSWORD, registration};
use crate::support::{App, Credential, specify};

/// Operations that need no credential. This list only ever shrinks.
const PUBLIC: [(&str, &str); 6] = [
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("post", "/keys/claim"),
    ("post", "/register"),
    ("post", "/revoke"),
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

specify! {
    async fn guarded_operations_have_locks_and_refuse_strangers_and_no_others_do(app: App) {
        let document = document(&app).await;
        let locks = json!(["token", "password"]);
        // A browser sends cookies along with what a foreign page asks for.
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
                assert!(operation.get("security").is_none(), "{method} {path} has a lock");
                assert_ne!(answer.status, app.expected.no_credential, "{method} {path}");
            } else {
                // RFC 7662, section 2.3, in both profiles.
                let refused = if path == "/introspect" { 401 } else { app.expected.no_credential };
                assert_eq!(answer.status, refused, "{method} {path}: {answer:?}");
                let schemes: Vec<&String> =
                    operation["security"].as_array().unwrap().iter().flat_map(|one| one.as_object().unwrap().keys()).collect();
                assert_eq!(json!(schemes), locks, "{method} {path}: either scheme opens it");
            }
        }
        assert_eq!(public, BTreeSet::from(PUBLIC), "the list of public operations is exact");
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!((&schemes["token"]["type"], &schemes["token"]["in"], &schemes["token"]["name"]), (&json!("apiKey"), &json!("header"), &json!("Token")));
        assert_eq!(schemes["password"]["flows"]["password"]["tokenUrl"], "/token");
    }

    async fn each_success_has_exactly_the_documented_members(app: App) {
        let document = document(&app).await;
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let tim = app.user("tim@example.org").await;
        let page = json!({ "title": "t", "body": "b" });
        let key = json!({ "name": "k", "scopes": ["pages:read"] });
        let claimed = json!({ "name": "k", "scopes": ["translate:use"], "order": "1", "delivery": "claim" });
        let claim = json!({ "claim": app.post("/keys", &root, &claimed).await.text_of("claim") });
        let password = json!({ "current_password": PASSWORD, "new_password": "another password" });
        let mut seen = BTreeSet::new();
        let form = [("grant_type", "password"), ("username", "root@example.org"), ("password", PASSWORD)];
        let by = |caller: &Credential, method: &str, path: &str| app.request(&method.to_uppercase(), path).credential(caller);
        let of = |method: &str, path: &str| by(&ada, method, path);
        let admin = |method: &str, path: &str| by(&root, method, path);
        for (method, path, request) in [
            ("post", "/register", of("post", "/register").json(&registration("bob@example.org"))),
            ("post", "/page/", of("post", "/page/").json(&page)),
            ("get", "/page/", of("get", "/page/")),
            ("get", "/page/{id}", of("get", "/page/1")),
            ("put", "/page/{id}", of("put", "/page/1").json(&page)),
            ("patch", "/page/{id}", of("patch", "/page/1").json(&page)),
            ("delete", "/page/{id}", of("delete", "/page/1")),
            ("get", "/page/{id}/history", of("get", "/page/1/history")),
            ("get", "/me", of("get", "/me")),
            ("patch", "/me", of("patch", "/me").json(&json!({ "surname": "King" }))),
            ("get", "/me/activity", of("get", "/me/activity")),
            ("post", "/me/keys", of("post", "/me/keys").json(&key)),
            ("get", "/me/keys", of("get", "/me/keys")),
            ("get", "/me/keys/{id}", of("get", "/me/keys/2")),
            ("patch", "/me/keys/{id}", of("patch", "/me/keys/2").json(&key)),
            ("post", "/me/keys/{id}/rotate", of("post", "/me/keys/2/rotate").json(&json!({}))),
            ("delete", "/me/keys/{id}", of("delete", "/me/keys/2")),
            ("get", "/authz", of("get", "/authz")),
            ("get", "/protected-route", of("get", "/protected-route")),
            ("get", "/health/live", of("get", "/health/live")),
            ("get", "/health/ready", of("get", "/health/ready")),
            ("post", "/keys", admin("post", "/keys").json(&claimed)),
            ("post", "/keys", admin("post", "/keys").json(&key)),
            ("get", "/keys", admin("get", "/keys")),
            ("get", "/keys/{id}", admin("get", "/keys/1")),
            ("post", "/keys/claim", app.request("POST", "/keys/claim").json(&claim)),
            ("delete", "/keys/{id}", admin("delete", "/keys/1")),
            ("get", "/users", admin("get", "/users?total=true")),
            ("get", "/users/{id}", admin("get", "/users/2")),
            ("patch", "/users/{id}", admin("patch", "/users/2").json(&json!({ "disabled": false }))),
            ("delete", "/users/{id}/token", admin("delete", "/users/2/token")),
            ("delete", "/users/{id}", admin("delete", "/users/2")),
            ("get", "/audit", admin("get", "/audit?limit=100")),
            ("put", "/me/password", by(&eve, "put", "/me/password").json(&password)),
            ("delete", "/me", by(&app.user("tom@example.org").await, "delete", "/me")),
            ("post", "/introspect", admin("post", "/introspect").form(&[("token", tim.secret())])),
            ("post", "/revoke", app.request("POST", "/revoke").form(&[("token", tim.secret())])),
            ("delete", "/token", admin("delete", "/token")),
            ("post", "/token", app.request("POST", "/token").form(&form)),
        ] {
            let answer = request.send().await;
            seen.insert((method, path));
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
            // Of a token that has no end, or where nobody said who issues it, RFC 7662 has members absent.
            let optional: &[&str] = if path == "/introspect" { &["iss"] } else { &[] };
            let expected: Vec<&str> = documented.iter().copied().filter(|member| !optional.contains(member)).collect();
            assert_eq!(answer.members(), expected, "{method} {path}");
            for (member, rules) in schema["properties"].as_object().unwrap() {
                let may_be_null = rules["nullable"] == true;
                let may_be_absent = optional.contains(&member.as_str());
                assert!(may_be_null || may_be_absent || !answer.body[member].is_null(), "{member} of {method} {path} may not be null");
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
        let all: BTreeSet<_> = operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
        assert_eq!(seen, all, "every operation has been tried");
    }

    async fn every_time_in_an_answer_has_six_digits_of_a_second(app: App) {
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
        // Whole seconds, and a tenth: what is left out otherwise.
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
        for (path, least) in [
            ("/me", 2), ("/users", 2), ("/users/1", 2), ("/page/", 2), ("/page/1", 2), ("/page/1/history", 2), ("/me/keys", 4),
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

    async fn the_document_has_no_holes(app: App) {
        fn holes(value: &Value, path: &str, found: &mut Vec<String>) {
            match value {
                Value::Null => found.push(path.to_owned()),
                Value::Object(members) => members.iter().for_each(|(name, value)| holes(value, &format!("{path}/{name}"), found)),
                Value::Array(items) => items.iter().for_each(|item| holes(item, path, found)),
                _ => {}
            }
        }
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document(&app).await;
        let mut found = Vec::new();
        holes(&document, "", &mut found);
        assert_eq!(found, [""; 0], "Swagger UI stumbles over null");
        let mut referred = BTreeSet::new();
        references(&document, &mut referred);
        assert!(referred.len() > 30, "{referred:?}");
        for reference in referred {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
        }
    }

    async fn every_bound_of_a_text_is_enforced(app: App) {
        let document = document(&app).await;
        let ada = app.admin("ada@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await;
        app.key_of(&ada, &[]).await;
        let mut tried = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let schema = resolve(&document, &operation["requestBody"]["content"]["application/json"]["schema"]);
            let valid = match path {
                "/register" => registration("eve@example.org"),
                "/me" => json!({ "current_password": PASSWORD }),
                "/me/password" => json!({ "current_password": PASSWORD, "new_password": PASSWORD }),
                "/me/keys" | "/me/keys/{id}" | "/keys" => json!({ "name": "k", "scopes": [] }),
                "/users/{id}" | "/me/keys/{id}/rotate" => json!({}),
                "/keys/claim" => json!({ "claim": "x" }),
                _ => json!({ "title": "t", "body": "b" }),
            };
            for (field, rules) in schema["properties"].as_object().into_iter().flatten() {
                let mut wrong = Vec::new();
                match rules["type"].as_str().unwrap() {
                    "string" if rules["enum"].is_array() => wrong.push(json!("no such word")),
                    // What is compared may be anything, and is simply wrong.
                    "string" if ["current_password", "claim"].contains(&field.as_str()) => {}
                    "string" => {
                        let most = rules["maxLength"].as_u64().unwrap_or_else(|| panic!("{path} {field} has no maxLength"));
                        let over = usize::try_from(most).unwrap() + 1;
                        // A time is wrong long before it is too long for the body.
                        wrong.push(json!("a".repeat(if rules["format"] == "date-time" { 100 } else { over })));
                        let least = usize::try_from(rules["minLength"].as_u64().unwrap_or_default()).unwrap();
                        wrong.extend(least.checked_sub(1).map(|under| json!("a".repeat(under))));
                    }
                    "integer" => {
                        wrong.push(json!(rules["minimum"].as_i64().unwrap() - 1));
                        wrong.push(json!(rules["maximum"].as_i64().unwrap() + 1));
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
        assert!(tried.len() >= 100, "{} values were tried", tried.len());
    }

    async fn every_bound_of_a_query_is_enforced(app: App) {
        let document = document(&app).await;
        let root = app.admin("root@example.org").await;
        app.post("/page/", &root, &json!({ "title": "t", "body": "b" })).await;
        let mut tried = 0;
        // What the scopes of `/authz` may be has a test of its own.
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
        assert!(tried >= 100, "{tried} values were tried");
    }

    async fn documented_errors_are_the_ones_that_come(app: App) {
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
            let known = schema["properties"].as_object().unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
            let required: Vec<&str> = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let members = answer.members();
            assert!(members.iter().all(|member| known.contains_key(*member)), "{method} {path}: {answer:?}");
            assert!(required.iter().all(|member| members.contains(member)), "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn the_document_is_valid_openapi_3_0() {
    let settings = latchkey::config::Settings::defaults().unwrap();
    let current = latchkey::http::openapi::Document::build(&settings.http, &settings.auth);
    let typed: openapiv3::OpenAPI = serde_json::from_str(current.json()).unwrap();
    assert!(typed.openapi.starts_with("3.0."));
    for (path, method, operation) in typed.operations() {
        assert!(operation.operation_id.is_some() && !operation.tags.is_empty(), "{method} {path}");
        assert!(operation.responses.responses.len() > 1, "{method} {path} documents its errors");
    }
}

/// `UPDATE_SNAPSHOTS=1 cargo test openapi` writes it anew.
#[test]
fn the_document_is_the_checked_in_one() {
    let settings = latchkey::config::Settings::defaults().unwrap();
    let current = latchkey::http::openapi::Document::build(&settings.http, &settings.auth);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var("UPDATE_SNAPSHOTS").is_ok_and(|value| value == "1") {
        std::fs::write(file, current.json()).unwrap();
    }
    let stored = std::fs::read_to_string(file).unwrap();
    assert!(stored == current.json(), "docs/openapi.json is out of date: UPDATE_SNAPSHOTS=1 cargo test openapi");
}
