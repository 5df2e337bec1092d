//! A running server.

use std::net::SocketAddr;

use latchkey::clock::Clock;
use latchkey::config::{Settings, StatusProfile};
use latchkey::http::ServerHandle;
use latchkey::server::Server;
use serde_json::{Value, json};

use super::client::{Answer, Credential, Request};
use super::database::{Backend, Database};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Fastapi,
    Rfc,
}

/// What the status profile says about callers whom nobody knows. The one table of expectations.
pub struct Expected {
    pub no_credential: u16,
    pub bad_token_header: u16,
    pub bad_bearer: u16,
    pub bad_password: u16,
    pub missing_grant_type: u16,
}

impl Profile {
    pub fn expected(self) -> Expected {
        match self {
            Self::Fastapi => Expected {
                no_credential: 403,
                bad_token_header: 403,
                bad_bearer: 401,
                bad_password: 401,
                missing_grant_type: 200,
            },
            Self::Rfc => Expected {
                no_credential: 401,
                bad_token_header: 401,
                bad_bearer: 401,
                bad_password: 400,
                missing_grant_type: 400,
            },
        }
    }
}

pub const CONSTANT_KEY: &str = "constant-key-of-the-test-suite-0123456789";
pub const PASSWORD: &str = "correct horse battery staple";

pub struct App {
    pub address: SocketAddr,
    pub clock: Clock,
    pub expected: Expected,
    handle: ServerHandle,
    http: reqwest::Client,
    // Last, so that it outlives the server.
    pub database: Database,
}

impl App {
    pub async fn start(backend: Backend, profile: Profile) -> Option<Self> {
        Self::start_with(backend, profile, |_| ()).await
    }

    /// A server whose settings differ from those of the others.
    pub async fn start_with(backend: Backend, profile: Profile, change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let database = Database::create(backend)?;
        let mut settings = Settings::defaults().unwrap();
        settings.server.listen = "127.0.0.1:0".parse().unwrap();
        settings.server.workers = 2;
        settings.server.shutdown_timeout = 0;
        settings.database = database.settings();
        settings.http.status_codes = match profile {
            Profile::Fastapi => StatusProfile::Fastapi,
            Profile::Rfc => StatusProfile::Rfc,
        };
        settings.auth.bcrypt_cost = 4;
        settings.auth.hash_threads = 1;
        settings.auth.api_key_token = CONSTANT_KEY.into();
        // All tests come from one address.
        settings.limits.enabled = false;
        change(&mut settings);
        let clock = Clock::default();
        let server = Server::start(&settings, clock.clone()).await.expect("the server starts");
        let (address, handle) = (server.address(), server.handle());
        tokio::spawn(server.run());
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Some(Self { address, clock, expected: profile.expected(), handle, http, database })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.http.request(method.parse().unwrap(), self.url(path)))
    }

    pub async fn get(&self, path: &str, credential: &Credential) -> Answer {
        self.request("GET", path).credential(credential).send().await
    }

    pub async fn post(&self, path: &str, credential: &Credential, body: &Value) -> Answer {
        self.request("POST", path).credential(credential).json(body).send().await
    }

    pub async fn delete(&self, path: &str, credential: &Credential) -> Answer {
        self.request("DELETE", path).credential(credential).send().await
    }

    pub async fn patch(&self, path: &str, credential: &Credential, body: &Value) -> Answer {
        self.request("PATCH", path).credential(credential).json(body).send().await
    }

    pub async fn put(&self, path: &str, credential: &Credential, body: &Value) -> Answer {
        self.request("PUT", path).credential(credential).json(body).send().await
    }

    /// Registers a user with [`PASSWORD`].
    pub async fn register(&self, email: &str) -> Answer {
        self.post("/register", &Credential::None, &registration(email)).await
    }

    /// Fills the password form.
    pub async fn sign_in(&self, email: &str, password: &str) -> Answer {
        let form = [("grant_type", "password"), ("username", email), ("password", password)];
        self.request("POST", "/token").form(&form).send().await
    }

    /// A registered user's live token.
    pub async fn token_of(&self, email: &str) -> String {
        let registered = self.register(email).await;
        assert_eq!(registered.status, 201, "{registered:?}");
        self.new_token_of(email).await
    }

    /// Signs in once more.
    pub async fn new_token_of(&self, email: &str) -> String {
        let signed_in = self.sign_in(email, PASSWORD).await;
        assert_eq!(signed_in.status, 200, "{signed_in:?}");
        signed_in.body["access_token"].as_str().unwrap().to_owned()
    }

    /// A registered user of this role, by the `Token` header.
    pub async fn user_of_role(&self, email: &str, role: &str) -> Credential {
        self.register(email).await;
        // The first admin has nobody above who could do it over HTTP.
        self.database.execute(format!("UPDATE users SET role = '{role}' WHERE email = '{email}'")).await;
        Credential::Token(self.new_token_of(email).await)
    }

    /// A registered admin, by the `Token` header.
    pub async fn admin(&self, email: &str) -> Credential {
        self.user_of_role(email, "admin").await
    }

    /// A new API key of the caller's own, by the `Token` header, and its id.
    pub async fn key_of(&self, owner: &Credential, scopes: &[&str]) -> (Credential, i64) {
        let created = self.post("/me/keys", owner, &json!({ "name": "a key", "scopes": scopes })).await;
        assert_eq!(created.status, 201, "{created:?}");
        (Credential::Token(created.text_of("key")), created.body["id"].as_i64().unwrap())
    }

    /// The entries of the audit trail that match, the newest first, as an admin reads them.
    pub async fn trail(&self, reader: &Credential, query: &str) -> Vec<Value> {
        let list = self.get(&format!("/audit?limit=500&{query}"), reader).await;
        assert_eq!(list.status, 200, "{list:?}");
        list.body["items"].as_array().unwrap().clone()
    }

    /// A registered user, by the `Token` header.
    pub async fn user(&self, email: &str) -> Credential {
        Credential::Token(self.token_of(email).await)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The command is sent by the call; there is nobody to await its end.
        drop(self.handle.stop(false));
    }
}

pub fn registration(email: &str) -> Value {
    json!({
        "name": "Adaline",
        "surname": "Lovelace",
        "email": email,
        "website": "https://example.org",
        "password": PASSWORD,
    })
}
