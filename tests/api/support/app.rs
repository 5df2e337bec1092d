//! A server in the process of the test, with its own database.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use latchkey::clock::Clock;
use latchkey::config::{Settings, StartTls, StatusProfile};
use latchkey::domain::audit::RequestContext;
use latchkey::domain::password::Password;
use latchkey::http::ServerHandle;
use latchkey::server::Server;
use latchkey::service::Service;
use latchkey::service::account::creation::Person;
use latchkey::service::account::registration::Registration;
use serde_json::Value;

use super::client::{Client, Credential};
pub use super::client::{PASSWORD, registration};
use super::database::{Backend, Database};

/// The setting `http.status_codes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Fastapi,
    Rfc,
}

/// The HTTP status codes that depend on the status profile.
pub struct Expected {
    pub no_credential: u16,
    pub bad_token_header: u16,
    pub bad_bearer: u16,
    pub bad_password: u16,
    pub missing_grant_type: u16,
}

impl Profile {
    /// The status codes that the server returns in this profile.
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

/// The setting `auth.api_key_token` of each server.
pub const STATIC_KEY: &str = "static-key-of-the-test-suite-0123456789";

/// The setting `links.url` of each server.
pub const LINK_PAGE: &str = "https://auth.example.org/console/";

/// Makes a server send its mails to the SMTP server at `address`, without encryption.
pub fn mail_to(address: &str, settings: &mut Settings) {
    settings.mail.url = format!("smtp://{address}").try_into().unwrap();
    settings.mail.starttls = StartTls::None;
    settings.mail.from = "Latchkey <no-reply@example.org>".to_owned().try_into().unwrap();
}

/// A running server. Dereferences to a [`Client`] of it; stops when dropped.
pub struct App {
    pub address: SocketAddr,
    pub clock: Clock,
    pub expected: Expected,
    /// The use cases of the server. A test can write what the server has counted.
    pub service: Arc<Service>,
    handle: ServerHandle,
    client: Client,
    // The last field, because the database must be dropped after the server.
    pub database: Database,
}

impl App {
    /// Starts a server with the default settings of tests; `None` if PostgreSQL is required and missing.
    pub async fn start(backend: Backend, profile: Profile) -> Option<Self> {
        Self::start_with(backend, profile, |_| ()).await
    }

    /// As [`App::start`], with an address in `mail.url` on which nothing listens: mails are requested and not sent.
    pub async fn start_mailing(backend: Backend, profile: Profile) -> Option<Self> {
        Self::start_with(backend, profile, |settings| mail_to("127.0.0.1:9", settings)).await
    }

    /// Starts a server after `change` has adjusted its settings; `None` if PostgreSQL is required and missing.
    pub async fn start_with(backend: Backend, profile: Profile, change: impl FnOnce(&mut Settings)) -> Option<Self> {
        Self::start_at(Clock::default(), backend, profile, change).await
    }

    /// As [`App::start_with`], with a clock that stands still, so that a slow machine changes no result.
    pub async fn start_with_stopped_clock(
        backend: Backend,
        profile: Profile,
        change: impl FnOnce(&mut Settings),
    ) -> Option<Self> {
        Self::start_at(Clock::stopped(), backend, profile, change).await
    }

    async fn start_at(
        clock: Clock,
        backend: Backend,
        profile: Profile,
        change: impl FnOnce(&mut Settings),
    ) -> Option<Self> {
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
        settings.auth.api_key_token = STATIC_KEY.into();
        // All tests share one client address.
        settings.limits.enabled = false;
        settings.links.url = LINK_PAGE.to_owned();
        change(&mut settings);
        let server = Server::start(&settings, clock.clone()).await.expect("the server starts");
        let (address, handle, service) = (server.address(), server.handle(), server.service());
        tokio::spawn(server.run());
        let client = Client::new(&format!("http://{address}")).with_database(&database.url);
        Some(Self { address, clock, expected: profile.expected(), service, handle, client, database })
    }

    /// Starts a server on each database and in each status profile, after `change` has adjusted its settings.
    pub async fn start_on_all(change: impl Fn(&mut Settings)) -> Vec<Self> {
        let mut apps = Vec::new();
        for backend in [Backend::Sqlite, Backend::Postgres] {
            for profile in [Profile::Fastapi, Profile::Rfc] {
                apps.extend(Self::start_with(backend, profile, &change).await);
            }
        }
        apps
    }

    /// Creates a user with [`PASSWORD`] and this role as the command line does, which every mode of registration allows.
    pub async fn create_user(&self, email: &str, role: &str) {
        let person = Person {
            name: "Adaline".to_owned(),
            surname: String::new(),
            website: String::new(),
            password: Password::new(PASSWORD.to_owned()),
        };
        let user = Registration { person, email: email.to_owned() };
        self.service.create_user(RequestContext::command_line(), user, Some(role)).await.unwrap();
    }

    /// Registers a user with this role; returns their access token as a `Token` header.
    pub async fn user_of_role(&self, email: &str, role: &str) -> Credential {
        self.register(email).await;
        // No admin exists yet who could set the role over HTTP.
        self.database.execute(format!("UPDATE users SET role = '{role}' WHERE email = '{email}'")).await;
        Credential::Token(self.new_token_of(email).await)
    }

    /// Registers an admin; returns their access token as a `Token` header.
    pub async fn admin(&self, email: &str) -> Credential {
        self.user_of_role(email, "admin").await
    }

    /// The audit entries that match `query`, newest first, read with the credential `reader`.
    pub async fn trail(&self, reader: &Credential, query: &str) -> Vec<Value> {
        let list = self.get(&format!("/audit?limit=500&{query}"), reader).await;
        assert_eq!(list.status, 200, "{list:?}");
        list.body["items"].as_array().unwrap().clone()
    }
}

impl Deref for App {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // `stop` sends the command when it is called; `drop` cannot await its future.
        drop(self.handle.stop(false));
    }
}
