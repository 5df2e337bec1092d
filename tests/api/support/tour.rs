//! The operations of the OpenAPI document, and a tour that uses each of them.

use std::process::Command;

use latchkey::config::Settings;
use latchkey::http::routes::document;
use serde_json::{Value, json};

use super::client::{Client, Credential, PASSWORD};
use super::program::{out, run, with_input};
use super::requests::Callers;

/// Sends a successful request for every operation of the document, and some that must fail. `command` returns a command
/// of the program on the database of the server, which must be empty.
pub async fn tour(client: &Client, command: impl Fn(&[&str]) -> Command) {
    let create = ["user", "create", "root@example.org", "--name", "Augusta", "--role", "admin"];
    out(&with_input(&mut command(&create), PASSWORD));
    let root = Credential::Token(client.new_token_of("root@example.org").await);
    let ada = client.user("ada@example.org").await;
    client.user("eve@example.org").await;
    client.sign_in("ada@example.org", "a wrong password").await.assert_error(401, "invalid_grant");

    let callers = Callers { client, member: &ada, admin: &root, email: "eve@example.org" };
    for operation in operations() {
        let name = operation.name();
        let request = if operation.path.starts_with("/users/invitations/{id}") {
            // Without an SMTP server, only the command line invites.
            let email = format!("invited{}@example.org", name.len());
            out(&run(&mut command(&["user", "invite", &email, "--print-link"])));
            let list = client.get("/users/invitations", &root).await;
            let ids = list.body["items"].as_array().unwrap().iter().filter_map(|item| item["id"].as_i64());
            let path = operation.path.replace("{id}", &ids.max().unwrap().to_string());
            client.request(&operation.method, &path).credential(&root)
        } else {
            callers.permitted(&name).await
        };
        let answer = request.send().await;
        // A server of its own sends no mails, and its database is not open to the test.
        let needs_mail = ["not_configured", "link_invalid"].iter().any(|code| answer.body["code"] == *code);
        assert!((200..300).contains(&answer.status) || needs_mail, "{name}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{name}: {answer:?}");
    }
    for path in ["/.well-known/oauth-authorization-server", "/openapi.json", "/docs/"] {
        let answer = client.get(path, &Credential::None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    // Use keys, introspect one and revoke it.
    let own = Credential::Bearer(client.key_of(&ada, &["pages:read"]).await.0.secret().to_owned());
    for path in ["/protected-route", "/authz", "/page/"] {
        assert_eq!(client.get(path, &own).await.status, 200, "{path}");
    }
    let issued = client.post("/keys", &root, &json!({ "name": "issued", "scopes": ["a:b"] })).await.text_of("key");
    for path in ["/introspect", "/revoke"] {
        let answer = client.request("POST", path).credential(&root).form(&[("token", &issued)]).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(client.delete("/token", &ada).await.status, 204);
}

/// An operation of the document.
pub struct Operation {
    pub method: String,
    /// The path, with `{id}` in place of an id.
    pub path: String,
    /// The operation object of the document.
    description: Value,
}

impl Operation {
    /// The name of the operation, such as `GET /page/{id}`.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The path, with `1` in place of `{id}`.
    pub fn path_to_first(&self) -> String {
        self.path.replace("{id}", "1")
    }

    fn schemes(&self) -> &[Value] {
        self.description["security"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the operation requires a credential.
    pub fn requires_credential(&self) -> bool {
        !self.schemes().is_empty()
    }

    /// Whether the operation accepts the cookie of a session.
    pub fn accepts_session(&self) -> bool {
        self.schemes().iter().any(|scheme| !scheme["session"].is_null())
    }

    /// The scope that the operation requires.
    pub fn scope(&self) -> Option<&str> {
        self.schemes().iter().find_map(|scheme| scheme["password"][0].as_str())
    }

    /// The media types of the request bodies that the operation accepts.
    pub fn media_types(&self) -> Vec<&str> {
        let content = self.description["requestBody"]["content"].as_object();
        content.into_iter().flatten().map(|(media_type, _)| media_type.as_str()).collect()
    }
}

/// Every operation of the document.
pub fn operations() -> Vec<Operation> {
    let settings = Settings::defaults().unwrap();
    let document: Value = serde_json::from_str(document(&settings).json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, description) in item.as_object().unwrap() {
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                description: description.clone(),
            });
        }
    }
    assert!(operations.len() > 30, "the document has more operations");
    operations
}

/// The operations that accept a request body of this media type.
pub fn accepting(media_type: &str) -> Vec<Operation> {
    operations().into_iter().filter(|operation| operation.media_types().contains(&media_type)).collect()
}
