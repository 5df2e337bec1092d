//! Secrets are where they belong: in the one answer that delivers them, and nowhere else.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use latchkey::domain::secret::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::registration;
use crate::support::client::Request;
use crate::support::program::{Serving, latchkey, out, with_input};
use crate::support::{Answer, Credential, specify_database};

/// A server, and every answer that it gave.
struct Recorded {
    address: String,
    http: reqwest::Client,
    answers: Vec<(String, Answer)>,
}

impl Recorded {
    async fn send(&mut self, method: &str, path: &str, credential: &Credential, body: Value) -> &Answer {
        let request =
            Request::new(self.http.request(method.parse().unwrap(), format!("http://{}{path}", self.address)));
        let request = request.credential(credential);
        let request = if body.is_null() { request } else { request.json(&body) };
        self.answers.push((format!("{method} {path}"), request.send().await));
        &self.answers.last().unwrap().1
    }

    async fn send_form(&mut self, path: &str, credential: &Credential, form: &[(&str, &str)]) -> &Answer {
        let request = Request::new(self.http.post(format!("http://{}{path}", self.address))).credential(credential);
        self.answers.push((format!("POST {path}"), request.form(form).send().await));
        &self.answers.last().unwrap().1
    }

    async fn send_basic(&mut self, path: &str, pair: &str, form: &[(&str, &str)]) {
        let request = Request::new(self.http.post(format!("http://{}{path}", self.address)));
        let request = request.header("Authorization", &format!("Basic {pair}"));
        self.answers.push((format!("POST {path}"), request.form(form).send().await));
    }

    async fn sign_in(&mut self, email: &str, password: &str) -> String {
        let form = [("grant_type", "password"), ("username", email), ("password", password)];
        let answer = self.send_form("/token", &Credential::None, &form).await;
        answer.body["access_token"].as_str().unwrap_or_default().to_owned()
    }
}

/// The spellings in which a secret could leak.
fn spellings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let base64 = [STANDARD.encode(secret), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    [secret.to_owned(), secret.replace(' ', "+"), url, hex.to_uppercase(), hex].into_iter().chain(base64).collect()
}

specify_database! {
    async fn no_secret_is_in_the_database_the_log_or_an_answer_that_does_not_deliver_it(database: Database) {
        let home = TempDir::new().unwrap();
        let (first, second, typo) = ("canary password one", "canary password two", "canary password tpyo");
        let constant = "canary-constant-key-0123456789abcdef";
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("LATCHKEY__AUTH__API_KEY_TOKEN", constant);
            command
        };
        let root_password = "canary password root";
        out(&with_input(&mut command(&["user", "create", "root@example.org", "--name", "Rooot", "--role", "admin"]), root_password));
        let issued = out(&with_input(&mut command(&["key", "issue", "root@example.org", "--name", "cli", "--json"]), ""));
        let issued: Value = serde_json::from_str(&issued).unwrap();

        let format = if database.backend == Backend::Sqlite { "text" } else { "json" };
        let mut serve = command(&[]);
        serve.env("RUST_LOG", "trace").env("LATCHKEY__LOG__FORMAT", format).env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0");
        let mut serving = Serving::start(&mut serve);
        let told = serving.line("metrics on http://");
        let metrics = told.split_once("metrics on ").unwrap().1.split('"').next().unwrap().trim().to_owned();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut server = Recorded { address: serving.address(), http, answers: Vec::new() };
        // Secret → how many answers deliver it.
        let mut secrets: BTreeMap<String, usize> =
            [first, second, typo, root_password, constant].map(|secret| (secret.to_owned(), 0)).into();
        secrets.insert(issued["key"].as_str().unwrap().to_owned(), 0);

        let none = Credential::None;
        let mut ada = registration("ada@example.org");
        ada["password"] = json!(first);
        server.send("POST", "/register", &none, ada.clone()).await;
        server.send("POST", "/register", &none, ada).await;
        server.sign_in("ada@example.org", typo).await;
        server.sign_in(first, first).await; // a password typed into the wrong field
        let token = server.sign_in("ada@example.org", first).await;
        secrets.insert(token.clone(), 1);
        let root = server.sign_in("root@example.org", root_password).await;
        secrets.insert(root.clone(), 1);
        let (ada, root) = (Credential::Token(token), Credential::Bearer(root));
        let key = server.send("POST", "/me/keys", &ada, json!({ "name": "k", "scopes": ["pages:write"] })).await.text_of("key");
        secrets.insert(key.clone(), 1);
        let key = Credential::Bearer(key);
        let rotated = server.send("POST", "/me/keys/2/rotate", &ada, json!({ "overlap_seconds": 60 })).await.text_of("key");
        secrets.insert(rotated.clone(), 1);
        let sold = json!({ "name": "k", "scopes": ["x:y"], "order": "1" });
        let sold = server.send("POST", "/keys", &root, sold).await.text_of("key");
        secrets.insert(sold.clone(), 1);
        let claimed = json!({ "name": "k", "scopes": [], "order": "2", "delivery": "claim" });
        let code = server.send("POST", "/keys", &root, claimed.clone()).await.text_of("claim");
        secrets.insert(code.clone(), 1);
        let claim = json!({ "claim": code });
        let fresh = server.send("POST", "/keys/claim", &none, claim.clone()).await.text_of("key");
        secrets.insert(fresh.clone(), 1);

        for (path, credential) in [("/introspect", &root), ("/introspect", &ada), ("/introspect", &none), ("/revoke", &ada)] {
            for token in [sold.as_str(), first] {
                server.send_form(path, credential, &[("token", token), ("token", token)]).await;
                server.send_form(path, credential, &[("token", token), ("token_type_hint", token)]).await;
            }
        }
        // OAuth libraries put a token into the password of `Basic`.
        let pair = STANDARD.encode(format!("client:{fresh}"));
        secrets.insert(pair.clone(), 0);
        for path in ["/introspect", "/revoke", "/token", "/me"] {
            server.send_basic(path, &pair, &[("token", &sold)]).await;
        }
        server.send_form("/revoke", &none, &[("token", &sold)]).await;

        let page = json!({ "title": "t", "body": "b" });
        let bad_password = json!({ "current_password": typo, "new_password": second });
        let constant = Credential::Token(constant.to_owned());
        let with_query = format!("/me?token={fresh}&password={}", first.replace(' ', "+"));
        for (method, path, credential, body) in [
            ("POST", "/keys/claim", &none, claim),
            ("POST", "/keys", &root, claimed),
            ("GET", "/keys", &root, Value::Null),
            ("GET", "/keys/3", &root, Value::Null),
            ("DELETE", "/keys/3", &root, Value::Null),
            ("GET", "/me/keys", &ada, Value::Null),
            ("GET", "/me/keys/2", &ada, Value::Null),
            ("PATCH", "/me/keys/2", &ada, json!({ "name": "n" })),
            ("POST", "/page/", &key, page.clone()),
            ("PUT", "/page/1", &root, page),
            ("GET", "/page/", &ada, Value::Null),
            ("GET", "/page/1/history", &ada, Value::Null),
            ("GET", "/protected-route", &constant, Value::Null),
            ("GET", "/authz", &constant, Value::Null),
            ("GET", "/authz?scope=a:b", &ada, Value::Null),
            ("GET", "/audit", &constant, Value::Null),
            ("GET", with_query.as_str(), &ada, Value::Null),
            ("GET", "/users", &root, Value::Null),
            ("GET", "/users", &ada, Value::Null),
            ("PATCH", "/users/2", &root, json!({ "role": "auditor" })),
            ("PUT", "/me/password", &ada, bad_password),
            ("PATCH", "/me", &ada, json!({ "email": "new@example.org", "current_password": first })),
            ("POST", "/register", &none, json!({ "name": "x", "password": [second] })),
            ("POST", "/me/keys", &ada, json!({ "name": { "password": second } })),
            ("PUT", "/me/password", &ada, json!({ "current_password": first, "new_password": second })),
            ("GET", "/me", &ada, Value::Null),
            ("GET", "/audit?limit=500", &root, Value::Null),
            ("DELETE", "/users/2/token", &root, Value::Null),
            ("DELETE", "/token", &root, Value::Null),
        ] {
            server.send(method, path, credential, body).await;
        }
        let counted = Request::new(server.http.get(&metrics)).send().await;
        assert!(counted.text.contains("latchkey_sign_ins_total"), "{counted:?}");
        server.answers.push(("GET /metrics".to_owned(), counted));
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());
        let printed = std::io::read_to_string(serving.child.stdout.take().unwrap()).unwrap();
        assert_eq!(printed, "", "all that it has to say is in the log");
        let log = serving.rest().join("\n");
        assert!(log.contains("TRACE") && log.lines().count() > 100, "the log is at trace");
        assert_eq!(log.starts_with('{'), format == "json");

        let mut stored = String::new();
        for table in database.tables().await {
            stored += &database.dump(&table).await.join("\n");
        }
        assert!(stored.contains("ada@example.org") || stored.contains("new@example.org"), "the database is dumped");
        let trail = database.dump("audit_entries").await.join("\n");
        assert!(!trail.contains('@'), "no e-mail in the trail: {trail}");

        for (secret, deliveries) in &secrets {
            for spelling in spellings(secret) {
                assert!(!stored.contains(&spelling), "{secret} as {spelling} in the database");
                let line = log.lines().find(|line| line.contains(&spelling));
                assert_eq!(line, None, "{secret} as {spelling} in the log");
            }
            assert!(!log.contains(&Digest::of(secret).to_hex()), "the digest of {secret} in the log");
            let carriers: Vec<&str> = server.answers.iter()
                .filter(|(_, answer)| {
                    let headers = format!("{:?}", answer.headers);
                    spellings(secret).iter().any(|spelling| answer.text.contains(spelling) || headers.contains(spelling))
                })
                .map(|(request, _)| request.as_str())
                .collect();
            assert_eq!(carriers.len(), *deliveries, "{secret} is in the answers to {carriers:?}");
        }
    }
}
