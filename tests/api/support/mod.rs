//! Test support: servers, databases, clients, and macros that run a test on both databases.

pub mod app;
pub mod client;
pub mod database;
pub mod documents;
pub mod links;
pub mod postgres;
pub mod program;
pub mod requests;
pub mod scopes;
mod skipped;
pub mod smtp;
pub mod tls;
pub mod tour;
pub mod warnings;
pub mod watched;

pub use app::{App, Profile};
pub use client::{Answer, Credential};
pub use database::Backend;
pub use skipped::skipped;

/// Returns `found`, a program that a test requires. If it is `None`, lists the test as skipped, or panics if
/// `REQUIRE_<name>=1`.
pub fn installed<T>(found: Option<T>, name: &str, what: &str) -> Option<T> {
    if found.is_none() {
        let required = format!("REQUIRE_{name}");
        let is_required = std::env::var(&required).is_ok_and(|value| value == "1");
        assert!(!is_required, "{required}=1, but {what} is not installed");
        skipped(&format!("install {what}"));
    }
    found
}

/// Runs each test on both databases and in both status profiles, each time with a new server.
macro_rules! specify {
    ($($tests:tt)*) => {
        $crate::support::specify_with! { start; $($tests)* }
    };
}
pub(crate) use specify;

/// As [`specify!`], with servers that have an SMTP server in their settings, so that every route works.
macro_rules! specify_mailing {
    ($($tests:tt)*) => {
        $crate::support::specify_with! { start_mailing; $($tests)* }
    };
}
pub(crate) use specify_mailing;

macro_rules! specify_with {
    ($start:ident; $($(#[$attribute:meta])* async fn $name:ident($app:ident: App) $body:block)*) => {
        $(
            mod $name {
                #[allow(unused_imports, reason = "not every test uses all imports")]
                use super::*;
                use crate::support::{App, Backend, Profile};

                $(#[$attribute])*
                async fn specified($app: App) $body

                #[tokio::test]
                async fn sqlite_fastapi() {
                    specified(App::$start(Backend::Sqlite, Profile::Fastapi).await.unwrap()).await;
                }

                #[tokio::test]
                async fn sqlite_rfc() {
                    specified(App::$start(Backend::Sqlite, Profile::Rfc).await.unwrap()).await;
                }

                #[tokio::test]
                async fn postgres_fastapi() {
                    if let Some(app) = App::$start(Backend::Postgres, Profile::Fastapi).await {
                        specified(app).await;
                    }
                }

                #[tokio::test]
                async fn postgres_rfc() {
                    if let Some(app) = App::$start(Backend::Postgres, Profile::Rfc).await {
                        specified(app).await;
                    }
                }
            }
        )*
    };
}
pub(crate) use specify_with;

/// Runs each test on both databases, each time with a new, empty database and without a server.
macro_rules! specify_database {
    ($($(#[$attribute:meta])* async fn $name:ident($database:ident: Database) $body:block)*) => {
        $(
            mod $name {
                #[allow(unused_imports, reason = "not every test uses all imports")]
                use super::*;
                use crate::support::{Backend, database::Database};

                $(#[$attribute])*
                async fn specified($database: Database) $body

                #[tokio::test]
                async fn sqlite() {
                    specified(Database::create(Backend::Sqlite).unwrap()).await;
                }

                #[tokio::test]
                async fn postgres() {
                    if let Some(database) = Database::create(Backend::Postgres) {
                        specified(database).await;
                    }
                }
            }
        )*
    };
}
pub(crate) use specify_database;
