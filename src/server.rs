//! Builds the state and starts the server.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{ConfigError, ServerSettings, Settings};
use crate::db::Db;
use crate::db::migrate::{SchemaState, newer_schema};
use crate::error::AppError;
use crate::http;
use crate::http::refusals::Samples;
use crate::service::Service;
use crate::signals::{Signals, Stop};
use crate::tls::{Certificate, TlsError};

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
    /// The schema is another program's.
    #[error("{0}")]
    NewerSchema(String),
    /// A setting names something that is not there, or that cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The certificate cannot be shown.
    #[error(transparent)]
    Tls(TlsError),
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
    samples: Arc<Samples>,
    certificate: Option<Arc<Certificate>>,
    settings: ServerSettings,
}

impl Server {
    /// Takes the addresses, connects, migrates if it should, and listens.
    pub async fn start(settings: &Settings, clock: Clock) -> Result<Self, StartError> {
        let unusable = |error| unusable_tls(settings, error);
        let certificate = Certificate::load(&settings.tls).map_err(unusable)?;
        let tls = certificate.as_ref().map(Certificate::acceptor).transpose().map_err(unusable)?;
        // A start that must fail because of an address leaves the database as it is.
        let bind = |setting, address| {
            let bound = http::connections::bind(address);
            bound.map_err(|cause| not_listening(settings, setting, address, &cause)).map(|socket| (address, socket))
        };
        let (address, socket) = bind("server.listen", settings.server.listen)?;
        let metrics = settings.metrics.listen.address().map(|address| bind("metrics.listen", address)).transpose()?;
        let service = Arc::new(service_for_serving(settings, clock).await?);
        let settings = &within_file_limit(settings.clone());
        service.follow_changes().map_err(StartError::Other)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let samples = Samples::start();
        let started = http::serve(Arc::clone(&service), settings, socket, tls, Arc::clone(&samples));
        let (address, running) = started.map_err(|cause| not_listening(settings, "server.listen", address, &cause))?;
        let metrics = match metrics {
            Some((address, socket)) => {
                let started = http::metrics::serve(Arc::clone(&service), settings, socket, Arc::clone(&samples));
                let (address, running) =
                    started.map_err(|cause| not_listening(settings, "metrics.listen", address, &cause))?;
                log::info!("metrics on http://{address}/metrics");
                Some(running)
            }
            None => None,
        };
        log::info!("listening on {scheme}://{address}");
        log::info!("database {}", settings.database.url);
        log::info!("documentation on {scheme}://{address}/docs/");
        Ok(Self { address, running, metrics, service, samples, certificate, settings: settings.server.clone() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that stops it from elsewhere.
    pub fn handle(&self) -> http::ServerHandle {
        self.running.handle()
    }

    /// Serves until a signal says to stop.
    pub async fn run(self) -> std::io::Result<()> {
        self.run_until(Signals::listen()?).await
    }

    /// Serves until one of these signals says to stop.
    pub async fn run_until(self, mut signals: Signals) -> std::io::Result<()> {
        let Self { running, metrics, service, samples, certificate, settings, .. } = self;
        let handle = running.handle();
        let metrics_handle = metrics.as_ref().map(http::RunningServer::handle);
        let measured = async {
            match metrics {
                Some(metrics) => metrics.await,
                None => std::future::pending().await,
            }
        };
        let certified = async {
            match certificate {
                Some(certificate) => certificate.keep_fresh().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = running => ended,
            ended = measured => ended,
            () = stop_when_told(&service, &handle, &settings, &mut signals) => Ok(()),
            () = certified => Ok(()),
            () = service.keep_key_usage() => Ok(()),
            () = service.keep_purging() => Ok(()),
            () = service.keep_cleaning_up() => Ok(()),
            () = service.keep_refusals_summed() => Ok(()),
        };
        if let Some(handle) = metrics_handle {
            handle.stop(false).await;
        }
        // A database that is away must not keep the process.
        let last_writes = async {
            service.flush_refusals().await;
            service.flush_key_usage().await;
        };
        if tokio::time::timeout(LAST_WRITES, last_writes).await.is_err() {
            log::warn!("could not write how many requests were refused and when keys were last used");
        }
        samples.finish();
        ended
    }
}

/// What is left of the time to stop for the last writes.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Waits for a signal, then stops step by step; at once if the signal says so, or another one comes.
async fn stop_when_told(
    service: &Service,
    handle: &http::ServerHandle,
    settings: &ServerSettings,
    signals: &mut Signals,
) {
    if signals.stop().await == Stop::AtOnce {
        log::info!("stopping at once");
        return;
    }
    log::info!("stopping, for at most {} s", settings.shutdown_timeout);
    tokio::select! {
        () = stop(service, handle, settings) => {}
        _ = signals.stop() => log::info!("told again: stopping at once"),
    }
}

/// First it is not ready, so that nobody sends more; then it takes no more connections; at half-time it waits for no
/// body any longer. When the time is over, so is this.
async fn stop(service: &Service, handle: &http::ServerHandle, settings: &ServerSettings) {
    let delay = Duration::from_secs(settings.shutdown_delay);
    let rest = Duration::from_secs(settings.shutdown_timeout).saturating_sub(delay).saturating_sub(LAST_WRITES);
    service.leave();
    tokio::time::sleep(delay).await;
    let finished = handle.stop(true);
    let hurried = async {
        tokio::time::sleep(rest / 2).await;
        service.close();
        tokio::time::sleep(rest / 2).await;
        log::warn!("requests under way are cut off");
    };
    tokio::select! {
        () = finished => {}
        () = hurried => {}
    }
}

/// Files that are open beside the connections of clients and of the pool.
const OTHER_FILES: usize = 128;

/// With as many connections as the system lets the process have files, after it was asked for more.
fn within_file_limit(mut settings: Settings) -> Settings {
    let others = OTHER_FILES + usize::try_from(settings.database.pool_size).unwrap_or_default();
    let wanted = settings.server.connections + others;
    let granted = rlimit::increase_nofile_limit(wanted.try_into().unwrap_or(u64::MAX));
    let granted = granted.map_or(wanted, |granted| granted.try_into().unwrap_or(usize::MAX));
    if granted < wanted {
        settings.server.connections = granted.saturating_sub(others).max(1);
        let most = settings.server.connections;
        log::warn!(
            "the system allows {granted} open files, so there are {most} connections at most: raise `ulimit -n`"
        );
    }
    settings
}

/// Why an address cannot be listened on, and what to do.
fn not_listening(settings: &Settings, setting: &str, address: SocketAddr, cause: &std::io::Error) -> StartError {
    let advice = match cause.kind() {
        ErrorKind::AddrInUse => "Another program listens there. Stop it, or choose another port.",
        ErrorKind::AddrNotAvailable => "This machine has no such address. 0.0.0.0 stands for all that it has.",
        ErrorKind::PermissionDenied => "Ports below 1024 need a privilege. Choose a higher one.",
        _ => "Choose another address.",
    };
    settings.places.error(setting, format!("cannot listen on {address}: {cause}. {advice}")).into()
}

fn unusable_tls(settings: &Settings, error: TlsError) -> StartError {
    match error.setting() {
        Some(setting) => settings.places.error(setting, error.to_string()).into(),
        None => StartError::Tls(error),
    }
}

/// The use cases on a database whose schema is up to date. The database must be there.
pub async fn open_service(settings: &Settings, clock: Clock) -> Result<Service, StartError> {
    let db = open_database(settings, Duration::ZERO).await?;
    Service::new(db, clock, settings).map_err(StartError::Other)
}

/// The same, after a database that is not there yet was waited for; and it must take all that serving does.
async fn service_for_serving(settings: &Settings, clock: Clock) -> Result<Service, StartError> {
    let db = open_database(settings, Duration::from_secs(settings.database.start_timeout)).await?;
    db.check_for_serving().await.map_err(|cause| refused(settings, cause))?;
    Service::new(db, clock, settings).map_err(StartError::Other)
}

fn refused(settings: &Settings, cause: AppError) -> StartError {
    let place = settings.places.of("database.url").map(|place| format!(" ({place})")).unwrap_or_default();
    StartError::Database { url: format!("{}{place}", settings.database.url), cause }
}

async fn open_database(settings: &Settings, wait: Duration) -> Result<Db, StartError> {
    settings.check_database_file()?;
    let refused = |cause| refused(settings, cause);
    let db = Db::open_within(&settings.database, wait).await.map_err(refused)?;
    if settings.database.migrate_on_start {
        for name in db.migrate_up().await.map_err(refused)? {
            log::info!("applied migration {name}");
        }
    }
    match db.schema_state().await.map_err(refused)? {
        SchemaState::Current => {}
        SchemaState::Outdated(_) => return Err(StartError::NotMigrated),
        SchemaState::Unknown(unknown) => return Err(StartError::NewerSchema(newer_schema(&unknown))),
    }
    if settings.auth.api_key_token.get().is_some_and(|key| key.len() < 32) {
        log::warn!("auth.api_key_token has fewer than 32 characters: a short constant key can be guessed");
    }
    Ok(db)
}
