//! The examples of the OpenAPI document, executed in the order of the page on a new server: without a credential, then
//! by Grace, whom the example of `POST /register` creates, then by an admin.
//!
//! Success is a 2xx for each operation that the caller may call, and a refusal (401 or 403) for the others, except for
//! [`EXCEPTIONS`]. As on the page, an id in a response replaces the example where a link of the response leads, and the
//! response to a sign-in replaces the caller's token or cookie. The cookie goes with operations that do not accept the
//! token.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::{Answer, App, Credential, scopes, specify_mailing};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Anonymous,
    Grace,
    Admin,
}

/// The operation, the caller, the status, and why it is not a 2xx.
const EXCEPTIONS: [(&str, Caller, u16, &str); 5] = [
    ("register", Caller::Grace, 409, "the account of the example exists, because Grace uses it"),
    ("claimKey", Caller::Anonymous, 404, "a claim code is returned once, so the document cannot contain a valid one"),
    ("claimKey", Caller::Grace, 404, "a claim code is returned once, so the document cannot contain a valid one"),
    ("endSessionById", Caller::Admin, 404, "the example of a sign-in is that of Grace"),
    ("deleteMe", Caller::Admin, 409, "the last admin cannot be deleted"),
];

/// The operations that require the secret of a link, of which the document cannot contain a valid one.
const REQUIRE_A_LINK: [&str; 6] = [
    "confirmPasswordReset",
    "confirmEmailVerification",
    "confirmEmailChange",
    "undoEmailChange",
    "confirmRegistration",
    "acceptInvitation",
];

/// The operations after which the caller signs in again.
const END_THE_TOKEN: [&str; 2] = ["changePassword", "signOut"];

struct Operation<'a> {
    id: &'a str,
    method: String,
    path: &'a str,
    described: &'a Value,
}

impl Operation<'_> {
    fn parameters(&self, place: &str) -> Vec<(&str, &Value)> {
        let parameters = self.described["parameters"].as_array().into_iter().flatten();
        let parameters = parameters.filter(|parameter| parameter["in"] == place);
        parameters.map(|parameter| (parameter["name"].as_str().unwrap(), &parameter["example"])).collect()
    }

    fn schemes(&self) -> &[Value] {
        self.described["security"].as_array().unwrap()
    }

    fn accepts_token(&self) -> bool {
        self.schemes().iter().any(|scheme| !scheme["token"].is_null())
    }

    fn may_call(&self, caller: Caller) -> bool {
        let schemes = self.schemes();
        let scope = schemes.iter().find_map(|scheme| scheme["password"][0].as_str());
        match caller {
            // The cookie of an earlier operation goes with them.
            _ if !self.accepts_token() => true,
            Caller::Anonymous => false,
            Caller::Grace => scope.is_none_or(|scope| scopes::of("member").iter().any(|held| held == scope)),
            Caller::Admin => true,
        }
    }
}

/// The operations in the order of the page.
fn page(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for tag in document["tags"].as_array().unwrap() {
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, described) in item.as_object().unwrap().iter().filter(|item| item.1["tags"][0] == tag["name"])
            {
                let id = described["operationId"].as_str().unwrap();
                operations.push(Operation { id, method: method.to_uppercase(), path, described });
            }
        }
    }
    operations
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A caller on the page, with what the page has learned from responses.
struct Visit<'a> {
    app: &'a App,
    caller: Caller,
    email: String,
    credential: Credential,
    /// The cookie of the session.
    session: Credential,
    /// What links lead to: the path parameter `id`, and the body.
    ids: BTreeMap<String, Value>,
    bodies: BTreeMap<String, Value>,
}

impl<'a> Visit<'a> {
    async fn begin(app: &'a App, caller: Caller, email: &str, password: &str) -> Visit<'a> {
        let credential = match caller {
            Caller::Anonymous => Credential::None,
            _ => Credential::Token(app.sign_in(email, password).await.text_of("access_token")),
        };
        if caller == Caller::Admin {
            // The example of a sign-in makes a session of Grace, and lists must not be empty.
            app.begin_session(email, password).await;
        }
        let (email, session) = (email.to_owned(), Credential::None);
        Self { app, caller, email, credential, session, ids: BTreeMap::new(), bodies: BTreeMap::new() }
    }

    fn request(&self, operation: &Operation<'_>, query: &str) -> Request {
        let mut path = operation.path.to_owned();
        for (name, example) in operation.parameters("path") {
            let id = self.ids.get(operation.id).unwrap_or(example);
            // What the examples name is what Grace creates.
            assert!(
                self.caller != Caller::Grace || id == example,
                "{}: the example is {example}, not {id}",
                operation.id
            );
            path = path.replace(&format!("{{{name}}}"), &text(id));
        }
        let credential = if operation.accepts_token() { &self.credential } else { &self.session };
        let request = self.app.request(&operation.method, &format!("{path}{query}")).credential(credential);
        let content = &operation.described["requestBody"]["content"];
        if let Some(form) = content["application/x-www-form-urlencoded"]["example"].as_object() {
            let fields: Vec<(&str, String)> = form.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
            return request.form(&fields.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
        }
        match self.bodies.get(operation.id).or(content["application/json"].get("example")) {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// Executes an operation, and checks its response.
    async fn execute(&mut self, operation: &Operation<'_>, document: &Value) {
        let mut request = self.request(operation, "");
        if self.caller == Caller::Admin {
            // The page does not fill in optional headers. Their examples work, too.
            for (name, example) in operation.parameters("header") {
                request = request.header(name, &text(example));
            }
        }
        let answer = request.send().await;
        let what = format!("{} {} by {:?}: {answer:?}", operation.method, operation.path, self.caller);
        let exception = EXCEPTIONS.iter().find(|exception| (exception.0, exception.1) == (operation.id, self.caller));
        if REQUIRE_A_LINK.contains(&operation.id) {
            assert_eq!(answer.status, 410, "{what}");
        } else if let Some((_, _, status, reason)) = exception {
            assert_eq!(answer.status, *status, "{reason}: {what}");
        } else if operation.may_call(self.caller) {
            assert!((200..400).contains(&answer.status), "{what}");
            self.check_lists(operation, &answer).await;
            self.learn(operation, document, &answer);
        } else {
            assert!([401, 403].contains(&answer.status), "{what}");
        }
    }

    /// A list is not empty, neither as the page requests it, nor with any of the optional parameters.
    async fn check_lists(&self, operation: &Operation<'_>, answer: &Answer) {
        if !answer.body["items"].is_array() {
            return;
        }
        assert_ne!(answer.body["items"], json!([]), "{}", operation.path);
        for (name, example) in operation.parameters("query") {
            let answer = self.request(operation, &format!("?{name}={}", text(example))).send().await;
            assert_eq!(answer.status, 200, "{} with {name}: {answer:?}", operation.path);
            assert_ne!(answer.body["items"], json!([]), "{} with {name}", operation.path);
        }
    }

    /// Follows the links of a response, and takes over a new token of the caller.
    fn learn(&mut self, operation: &Operation<'_>, document: &Value, answer: &Answer) {
        let response = &operation.described["responses"][answer.status.to_string()];
        for link in response["links"].as_object().into_iter().flat_map(|links| links.values()) {
            let target = link["operationId"].as_str().unwrap().to_owned();
            let evaluate = |expression: &Value| {
                let pointer = expression.as_str().unwrap().strip_prefix("$response.body#").unwrap();
                answer.body.pointer(pointer).unwrap().clone()
            };
            if let Some(id) = link["parameters"].get("id") {
                self.ids.insert(target.clone(), evaluate(id));
            }
            if let Some(template) = link["requestBody"].as_str() {
                let template: BTreeMap<String, String> = serde_json::from_str(template).unwrap();
                let evaluate_embedded = |text: &str| evaluate(&text.trim_matches(['{', '}']).into());
                let body = template.iter().map(|(name, value)| (name.clone(), evaluate_embedded(value))).collect();
                self.bodies.insert(target, body);
            }
        }
        if operation.id == "createSession" {
            self.session = Credential::Session(answer.session_secret());
        }
        if operation.id == "signIn" && self.email == grace(document)["email"] {
            self.credential = Credential::Token(answer.text_of("access_token"));
        }
    }
}

/// The example of a registration.
fn grace(document: &Value) -> &Value {
    &document["paths"]["/register"]["post"]["requestBody"]["content"]["application/json"]["example"]
}

specify_mailing! {
    async fn every_example_works_in_the_order_of_the_page(app: App) {
        let document = app.get("/openapi.json", &Credential::None).await.body;
        let operations = page(&document);
        let (grace, password) = (grace(&document), text(&grace(&document)["password"]));
        let mut admin = grace.clone();
        admin["email"] = "root@example.org".into();
        assert_eq!(app.post("/register", &Credential::None, &admin).await.status, 201);
        app.database.execute("UPDATE users SET role = 'admin'".to_owned()).await;

        let grace = text(&grace["email"]);
        for (caller, email) in [(Caller::Anonymous, ""), (Caller::Grace, grace.as_str()), (Caller::Admin, "root@example.org")] {
            let mut visit = Visit::begin(&app, caller, email, &password).await;
            for operation in &operations {
                visit.execute(operation, &document).await;
                if END_THE_TOKEN.contains(&operation.id) && caller != Caller::Anonymous {
                    let refused = app.get("/me", &visit.credential).await;
                    assert_ne!(refused.status, 200, "{} ends the token", operation.id);
                    visit.credential = Credential::Token(app.sign_in(email, &password).await.text_of("access_token"));
                }
            }
        }
    }
}

#[test]
fn the_page_begins_with_registration_and_ends_with_the_deletion_of_the_account() {
    let settings = latchkey::config::Settings::defaults().unwrap();
    let document: Value = serde_json::from_str(latchkey::http::routes::document(&settings).json()).unwrap();
    let operations = page(&document);
    let ids: Vec<&str> = operations.iter().map(|operation| operation.id).collect();
    assert_eq!(ids[..3], ["register", "signIn", "protectedRoute"]);
    assert_eq!(ids[ids.len() - 3..], ["signOut", "changePassword", "deleteMe"]);
}
