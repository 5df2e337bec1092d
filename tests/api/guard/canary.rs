//! A secret appears only in the response that delivers it, and not in the database, the log or other responses.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use latchkey::domain::secret::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::registration;
use crate::support::client::Request;
use crate::support::program::{Serving, latchkey, out, with_input};
use crate::support::smtp::{Behaviour, SmtpServer};
use crate::support::{Answer, Credential, specify_database};

/// A client of a server that records every response.
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

/// The encodings in which a secret could leak.
fn encodings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let base64 = [STANDARD.encode(secret), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    [secret.to_owned(), secret.replace(' ', "+"), url, hex.to_uppercase(), hex].into_iter().chain(base64).collect()
}

specify_database! {
    async fn no_secret_is_in_the_database_the_log_or_another_response(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        let (first, second, typo) = ("canary password one", "canary password two", "canary password tpyo");
        let static_key = "canary-static-key-0123456789abcdef";
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("LATCHKEY__AUTH__API_KEY_TOKEN", static_key);
            command
        };
        let root_password = "canary password root";
        out(&with_input(&mut command(&["user", "create", "root@example.org", "--name", "Rooot", "--role", "admin"]), root_password));
        let issued = out(&with_input(&mut command(&["key", "issue", "root@example.org", "--name", "cli", "--json"]), ""));
        let issued: Value = serde_json::from_str(&issued).unwrap();

        // It refuses every mail with an answer that quotes the text.
        let smtp = SmtpServer::start().await;
        smtp.behave(Behaviour::Quote);
        let format = if database.backend == Backend::Sqlite { "text" } else { "json" };
        let mut serve = command(&[]);
        serve.env("RUST_LOG", "trace").env("LATCHKEY__LOG__FORMAT", format).env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0");
        smtp.configure_command(&mut serve);
        let mut serving = Serving::start(&mut serve);
        let metrics = serving.metrics_url();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut server = Recorded { address: serving.address(), http, answers: Vec::new() };
        // Each secret, with the number of responses that deliver it.
        let mut secrets: BTreeMap<String, usize> =
            [first, second, typo, root_password, static_key].map(|secret| (secret.to_owned(), 0)).into();
        secrets.insert(issued["key"].as_str().unwrap().to_owned(), 0);

        let none = Credential::None;
        let mut ada = registration("ada@example.org");
        ada["password"] = json!(first);
        server.send("POST", "/register", &none, ada.clone()).await;
        server.send("POST", "/register", &none, ada).await;
        server.sign_in("ada@example.org", typo).await;
        server.sign_in(first, first).await; // a password as the user name
        let root = server.sign_in("root@example.org", root_password).await;
        secrets.insert(root.clone(), 1);
        let in_browser = json!({ "email": "ada@example.org", "password": first });
        let session = server.send("POST", "/session", &none, in_browser).await.session_secret();
        secrets.insert(session.clone(), 1);
        let session = Credential::Session(session);
        for (method, path) in [("GET", "/session"), ("GET", "/me/sessions"), ("GET", "/me"), ("GET", "/nowhere"), ("GET", "/authz")] {
            server.send(method, path, &session, Value::Null).await;
        }
        server.send_form("/introspect", &session, &[("token", session.secret())]).await;
        let renewed = server.send("PUT", "/me/password", &session, json!({ "current_password": first, "new_password": second })).await.session_secret();
        secrets.insert(renewed.clone(), 1);
        let renewed = Credential::Session(renewed);
        let back = json!({ "current_password": second, "new_password": first });
        let renewed = server.send("PUT", "/me/password", &renewed, back).await.session_secret();
        secrets.insert(renewed.clone(), 1);
        server.send("DELETE", "/session", &Credential::Session(renewed), Value::Null).await;
        let token = server.sign_in("ada@example.org", first).await;
        secrets.insert(token.clone(), 1);
        let (ada, root) = (Credential::Token(token), Credential::Bearer(root));
        let key = server.send("POST", "/me/keys", &ada, json!({ "name": "k", "scopes": ["pages:write"] })).await.text_of("key");
        secrets.insert(key.clone(), 1);
        let key = Credential::Bearer(key);
        let rotated = server.send("POST", "/me/keys/2/rotate", &ada, json!({ "overlap_seconds": 60 })).await.text_of("key");
        secrets.insert(rotated.clone(), 1);
        let issued_key = json!({ "name": "k", "scopes": ["x:y"], "order": "1" });
        let issued_key = server.send("POST", "/keys", &root, issued_key).await.text_of("key");
        secrets.insert(issued_key.clone(), 1);
        let claimed = json!({ "name": "k", "scopes": [], "order": "2", "delivery": "claim" });
        let code = server.send("POST", "/keys", &root, claimed.clone()).await.text_of("claim");
        secrets.insert(code.clone(), 1);
        let claim = json!({ "claim": code });
        let fresh = server.send("POST", "/keys/claim", &none, claim.clone()).await.text_of("key");
        secrets.insert(fresh.clone(), 1);

        for (path, credential) in [("/introspect", &root), ("/introspect", &ada), ("/introspect", &none), ("/revoke", &ada)] {
            for token in [issued_key.as_str(), first] {
                server.send_form(path, credential, &[("token", token), ("token", token)]).await;
                server.send_form(path, credential, &[("token", token), ("token_type_hint", token)]).await;
            }
        }
        // OAuth libraries put a token into the password of `Basic`.
        let pair = STANDARD.encode(format!("client:{fresh}"));
        secrets.insert(pair.clone(), 0);
        for path in ["/introspect", "/revoke", "/token", "/me"] {
            server.send_basic(path, &pair, &[("token", &issued_key)]).await;
        }
        server.send_form("/revoke", &none, &[("token", &issued_key)]).await;

        let page = json!({ "title": "t", "body": "b" });
        let bad_password = json!({ "current_password": typo, "new_password": second });
        let static_key = Credential::Token(static_key.to_owned());
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
            ("GET", "/protected-route", &static_key, Value::Null),
            ("GET", "/authz", &static_key, Value::Null),
            ("GET", "/authz?scope=a:b", &ada, Value::Null),
            ("GET", "/audit", &static_key, Value::Null),
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
        let metrics = Request::new(server.http.get(&metrics)).send().await;
        assert!(metrics.text.contains("latchkey_sign_ins_total"), "{metrics:?}");
        server.answers.push(("GET /metrics".to_owned(), metrics));
        server.send("POST", "/password-reset", &none, json!({ "email": "root@example.org" })).await;
        smtp.wait_for_mail("root@example.org", "Set a new password").await;
        smtp.wait_for_mail("ada@example.org", "Verify your e-mail address").await;
        serving.signal("-TERM");
        // The SMTP server of this test must go on: the stop waits for a mail that is being sent.
        let stopped = tokio::task::spawn_blocking(move || (serving.child.wait().unwrap(), serving)).await.unwrap();
        let (status, mut serving) = stopped;
        assert!(status.success());
        let stdout = std::io::read_to_string(serving.child.stdout.take().unwrap()).unwrap();
        assert_eq!(stdout, "", "the server prints nothing to standard output");
        // Also those of mails that were sent during the stop.
        let links = smtp.mails().into_iter().flat_map(|mail| {
            let words = mail.text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            words.into_iter().filter_map(|word| word.split_once("lkm_").map(|(_, secret)| format!("lkm_{secret}")))
        });
        let links: Vec<String> = links.collect();
        assert!(links.len() >= 2, "mails with links were sent: {links:?}");
        secrets.extend(links.into_iter().map(|secret| (secret, 0)));
        let log = serving.remaining_lines().join("\n");
        assert!(log.contains("was not accepted at attempt 1"), "the refusal is in the log");
        assert!(log.contains("TRACE") && log.lines().count() > 100, "the log has the level trace");
        assert_eq!(log.starts_with('{'), format == "json");

        let mut stored = String::new();
        for table in database.tables().await {
            stored += &database.dump(&table).await.join("\n");
        }
        assert!(stored.contains("ada@example.org") || stored.contains("new@example.org"), "the dump contains the users");
        let trail = database.dump("audit_entries").await.join("\n");
        assert!(!trail.contains('@'), "the audit trail contains no e-mail address: {trail}");

        for (secret, deliveries) in &secrets {
            for encoding in encodings(secret) {
                assert!(!stored.contains(&encoding), "{secret} as {encoding} in the database");
                let line = log.lines().find(|line| line.contains(&encoding));
                assert_eq!(line, None, "{secret} as {encoding} in the log");
            }
            assert!(!log.contains(&Digest::of(secret).to_hex()), "the digest of {secret} in the log");
            let found_in: Vec<&str> = server.answers.iter()
                .filter(|(_, answer)| {
                    let headers = format!("{:?}", answer.headers);
                    encodings(secret).iter().any(|encoding| answer.text.contains(encoding) || headers.contains(encoding))
                })
                .map(|(request, _)| request.as_str())
                .collect();
            assert_eq!(found_in.len(), *deliveries, "{secret} is in the responses to {found_in:?}");
        }
    }
}
