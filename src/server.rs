//! Builds the state and starts the server.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Settings;
use crate::db::Db;
use crate::error::AppError;
use crate::http;
use crate::service::Service;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database is not there, or is not what this program needs.
    #[error("cannot use the database {url}: {cause}")]
    Database {
        /// With its password masked.
        url: String,
        /// What it said.
        cause: AppError,
    },
    /// The schema is old and may not be touched.
    #[error("the database schema is not up to date: run `latchkey migrate up`, or set database.migrate_on_start")]
    NotMigrated,
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// From the settings.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something else that the process needs.
    #[error(transparent)]
    Other(AppError),
}

/// A server that listens, and serves once it is run.
pub struct Server {
    address: SocketAddr,
    running: http::RunningServer,
    metrics: Option<http::RunningServer>,
    service: Arc<Service>,
}

impl Server {
    /// Connects, migrates if it should, and listens.
    pub async fn start(settings: &Settings, clock: Clock) -> Result<Self, StartError> {
        let service = Arc::new(open_service(settings, clock).await?);
        let address = settings.server.listen;
        service.follow_changes().map_err(StartError::Other)?;
        let started = http::serve(Arc::clone(&service), settings);
        let (address, running) = started.map_err(|cause| StartError::Listen { address, cause })?;
        let metrics = match settings.metrics.listen.address() {
            Some(address) => {
                let started = http::metrics::serve(Arc::clone(&service), address);
                let (address, running) = started.map_err(|cause| StartError::Listen { address, cause })?;
                log::info!("metrics on http://{address}/metrics");
                Some(running)
            }
            None => None,
        };
        log::info!("listening on http://{address}");
        log::info!("database {}", settings.database.url);
        log::info!("documentation on http://{address}/docs/");
        Ok(Self { address, running, metrics, service })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that stops it from elsewhere.
    pub fn handle(&self) -> http::ServerHandle {
        self.running.handle()
    }

    /// Serves until SIGTERM or SIGINT.
    pub async fn run(self) -> std::io::Result<()> {
        let Self { running, metrics, service, .. } = self;
        let metrics_handle = metrics.as_ref().map(http::RunningServer::handle);
        let measured = async {
            match metrics {
                Some(metrics) => metrics.await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = running => ended,
            ended = measured => ended,
            () = service.keep_key_usage() => Ok(()),
            () = service.keep_purging() => Ok(()),
        };
        if let Some(handle) = metrics_handle {
            handle.stop(false).await;
        }
        service.flush_key_usage().await;
        ended
    }
}

/// The use cases on a database whose schema is up to date.
pub async fn open_service(settings: &Settings, clock: Clock) -> Result<Service, StartError> {
    let refused = |cause| StartError::Database { url: settings.database.url.to_string(), cause };
    let db = Db::open(&settings.database).map_err(refused)?;
    if settings.database.migrate_on_start {
        for name in db.migrate_up().await.map_err(refused)? {
            log::info!("applied migration {name}");
        }
    } else if !db.is_migrated().await.map_err(refused)? {
        return Err(StartError::NotMigrated);
    }
    if settings.auth.api_key_token.get().is_some_and(|key| key.len() < 32) {
        log::warn!("auth.api_key_token has fewer than 32 characters: a short constant key can be guessed");
    }
    Service::new(db, clock, settings.auth.clone(), &settings.limits).map_err(StartError::Other)
}
