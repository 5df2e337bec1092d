//! A tour of all that the program does for its clients.

use std::collections::BTreeSet;
use std::process::Command;

use latchkey::config::Settings;
use latchkey::http::openapi::Document;
use serde_json::{Value, json};

use super::client::{Answer, Client, Credential, PASSWORD};
use super::program::{out, with_input};

/// What has been asked for with success, as the document calls it: `GET /page/{id}`.
type Visited = BTreeSet<String>;

/// Asks for every operation of the document, with success, and for some that must fail. `command` is the program on the same
/// database, still empty.
pub async fn tour(client: &Client, command: impl Fn(&[&str]) -> Command) {
    let create = ["user", "create", "root@example.org", "--name", "Augusta", "--role", "admin"];
    out(&with_input(&mut command(&create), PASSWORD));
    let mut visited = Visited::new();
    let root = Credential::Token(client.new_token_of("root@example.org").await);
    let ada = client.user("ada@example.org").await;
    client.user("eve@example.org").await;
    visited.extend(["POST /register", "POST /token"].map(str::to_owned));
    client.sign_in("ada@example.org", "a wrong password").await.assert_error(401, "invalid_grant");

    let mut ask = async |method: &str, path: &str, caller: &Credential, body: Value| {
        let request = client.request(method, path).credential(caller);
        let answer = if body.is_null() { request } else { request.json(&body) }.send().await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        let may_be_stored = ["/.well-known/oauth-authorization-server", "/openapi.json", "/docs/"].contains(&path);
        assert!(may_be_stored || answer.header("cache-control") == "no-store", "{method} {path}: {answer:?}");
        visited.insert(format!("{method} {}", template(path)));
        answer
    };
    for path in ["/health/live", "/health/ready", "/.well-known/oauth-authorization-server", "/openapi.json", "/docs/"]
    {
        ask("GET", path, &Credential::None, Value::Null).await;
    }

    // API keys: one's own, used, changed and gone; and one that is sold.
    let named = json!({ "name": "a key", "scopes": ["pages:read"] });
    let key = Credential::Bearer(ask("POST", "/me/keys", &ada, named.clone()).await.text_of("key"));
    ask("GET", "/protected-route", &key, Value::Null).await;
    ask("GET", "/me/keys", &ada, Value::Null).await;
    ask("GET", "/me/keys/1", &ada, Value::Null).await;
    ask("PATCH", "/me/keys/1", &ada, json!({ "name": "another" })).await;
    ask("POST", "/me/keys/1/rotate", &ada, json!({ "overlap_seconds": 60 })).await;
    ask("GET", "/authz", &key, Value::Null).await;
    ask("DELETE", "/me/keys/1", &ada, Value::Null).await;
    let sold = json!({ "name": "sold", "scopes": ["a:b"], "order": "1", "delivery": "claim" });
    let code = ask("POST", "/keys", &root, sold).await.text_of("claim");
    let sold = ask("POST", "/keys/claim", &Credential::None, json!({ "claim": code })).await.text_of("key");
    ask("GET", "/keys", &root, Value::Null).await;
    ask("GET", "/keys/2", &root, Value::Null).await;

    // Pages, and who changed what.
    let page = json!({ "title": "a title", "body": "text" });
    ask("POST", "/page/", &ada, page.clone()).await;
    ask("PUT", "/page/1", &ada, page).await;
    ask("PATCH", "/page/1", &ada, json!({ "title": "another title" })).await;
    for path in ["/page/", "/page/1", "/page/1/history", "/me", "/me/activity"] {
        ask("GET", path, &ada, Value::Null).await;
    }
    ask("DELETE", "/page/1", &ada, Value::Null).await;

    // Others' accounts, and one's own until its end.
    for path in ["/users", "/users/3", "/audit"] {
        ask("GET", path, &root, Value::Null).await;
    }
    ask("PATCH", "/users/3", &root, json!({ "role": "auditor" })).await;
    ask("DELETE", "/users/3/token", &root, Value::Null).await;
    ask("DELETE", "/users/3", &root, Value::Null).await;
    ask("PATCH", "/me", &ada, json!({ "name": "Augusta" })).await;
    let password = json!({ "current_password": PASSWORD, "new_password": "another password" });
    ask("PUT", "/me/password", &ada, password).await;
    let again = async || {
        let signed_in: Answer = client.sign_in("ada@example.org", "another password").await;
        Credential::Token(signed_in.text_of("access_token"))
    };
    ask("DELETE", "/token", &again().await, Value::Null).await;
    ask("DELETE", "/me", &again().await, Value::Null).await;
    ask("DELETE", "/keys/2", &root, Value::Null).await;

    for path in ["/introspect", "/revoke"] {
        let answer = client.request("POST", path).credential(&root).form(&[("token", &sold)]).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        visited.insert(format!("POST {path}"));
    }
    let missed: Vec<String> =
        operations().iter().map(Operation::name).filter(|operation| !visited.contains(operation)).collect();
    assert!(missed.is_empty(), "the tour leaves out {missed:?}");
}

/// The path as the document has it.
pub fn template(path: &str) -> String {
    let part = |part| if str::parse::<u64>(part).is_ok() { "{id}" } else { part };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// An operation of the document.
pub struct Operation {
    pub method: String,
    /// With `{id}` for an id.
    pub path: String,
    /// What the document says of it.
    described: Value,
}

impl Operation {
    /// What the document calls it: `GET /page/{id}`.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Its path with the id of the first object.
    pub fn path_to_first(&self) -> String {
        self.path.replace("{id}", "1")
    }

    fn schemes(&self) -> &[Value] {
        self.described["security"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether it takes a credential.
    pub fn is_locked(&self) -> bool {
        !self.schemes().is_empty()
    }

    /// What a credential must hold.
    pub fn scope(&self) -> Option<&str> {
        self.schemes().iter().find_map(|scheme| scheme["password"][0].as_str())
    }

    /// The types of the bodies that it takes.
    pub fn media_types(&self) -> Vec<&str> {
        let content = self.described["requestBody"]["content"].as_object();
        content.into_iter().flatten().map(|(media_type, _)| media_type.as_str()).collect()
    }
}

/// Every operation of the document.
pub fn operations() -> Vec<Operation> {
    let settings = Settings::defaults().unwrap();
    let document: Value = serde_json::from_str(Document::build(&settings.http, &settings.auth).json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, described) in item.as_object().unwrap() {
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                described: described.clone(),
            });
        }
    }
    assert!(operations.len() > 30, "the document was read");
    operations
}

/// Those that take a body of this type.
pub fn taking(media_type: &str) -> Vec<Operation> {
    operations().into_iter().filter(|operation| operation.media_types().contains(&media_type)).collect()
}
