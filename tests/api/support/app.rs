//! A running server.

use std::net::SocketAddr;
use std::ops::Deref;

use latchkey::clock::Clock;
use latchkey::config::{Settings, StatusProfile};
use latchkey::http::ServerHandle;
use latchkey::server::Server;
use serde_json::Value;

use super::client::{Client, Credential};
pub use super::client::{PASSWORD, registration};
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

pub struct App {
    pub address: SocketAddr,
    pub clock: Clock,
    pub expected: Expected,
    handle: ServerHandle,
    client: Client,
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
        let client = Client::new(&format!("http://{address}"));
        Some(Self { address, clock, expected: profile.expected(), handle, client, database })
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

    /// The entries of the audit trail that match, the newest first, as an admin reads them.
    pub async fn trail(&self, reader: &Credential, query: &str) -> Vec<Value> {
        let list = self.get(&format!("/audit?limit=500&{query}"), reader).await;
        assert_eq!(list.status, 200, "{list:?}");
        list.body["items"].as_array().unwrap().clone()
    }
}

/// Whoever has the server talks to it.
impl Deref for App {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The command is sent by the call; there is nobody to await its end.
        drop(self.handle.stop(false));
    }
}
