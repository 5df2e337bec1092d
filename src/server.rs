//! Start and shutdown of the server. `docs/architecture.md` lists the phases.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{ConfigError, ServerSettings, Settings};
use crate::db::Db;
use crate::db::engine::migrate::{SchemaState, newer_schema};
use crate::error::AppError;
use crate::http;
use crate::http::request::log_sampling::LogSamples;
use crate::http::transport::connections::ListeningSocket;
use crate::service::Service;
use crate::service::account::roles::UndefinedRole;
use crate::service::identity::follow::Follower;
use crate::service::mail::outgoing::Outgoing;
use crate::signals::{Signals, Stop};
use crate::tls::{Certificate, TlsError};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database is not available, or not suitable.
    #[error("cannot use the database {url}: {cause}")]
    Database {
        /// The address with a masked password, and where it was set.
        url: String,
        /// The error.
        cause: AppError,
    },
    /// Migrations are pending. Only `migrate up`, and the server with `database.migrate_on_start`, apply them.
    #[error(
        "the database schema is not up to date: run `latchkey migrate up`, or start the server with \
         database.migrate_on_start"
    )]
    NotMigrated,
    /// The schema contains migrations that this version does not know.
    #[error("{0}")]
    NewerSchema(String),
    /// A setting names something that does not exist or cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// Any other error at start.
    #[error(transparent)]
    Other(AppError),
}

/// A server that listens. It processes requests while it runs.
pub struct Server {
    address: SocketAddr,
    socket: ListeningSocket,
    running: http::RunningServer,
    metrics: Option<http::RunningServer>,
    service: Arc<Service>,
    follower: Option<Follower>,
    samples: Arc<LogSamples>,
    certificate: Option<Arc<Certificate>>,
    settings: ServerSettings,
}

impl Server {
    /// Starts the server: loads the certificate and the templates of mails, binds the addresses, connects to the database, applies pending
    /// migrations if the settings allow it, and listens.
    ///
    /// Errors: see [`StartError`].
    pub async fn start(settings: &Settings, clock: Clock) -> Result<Self, StartError> {
        let tls_error = |error| tls_error(settings, error);
        let certificate = Certificate::load(&settings.tls).map_err(tls_error)?;
        let tls = certificate.as_ref().map(Certificate::acceptor).transpose().map_err(tls_error)?;
        // Before anything is changed, as everything else that can be wrong in the settings.
        let outgoing = Outgoing::load(settings)?;
        let mails = outgoing.as_ref().map(|outgoing| (outgoing.server(), outgoing.sender()));
        // The addresses are bound first, so that one on which another program listens does not leave a migrated database
        // behind. Sockets that only are bound do not exclude each other: the settings are checked for that.
        let bind = |setting, address| {
            let bound = http::transport::connections::bind(address);
            bound.map_err(|cause| listen_error(settings, setting, address, &cause)).map(|socket| (address, socket))
        };
        let (address, socket) = bind("server.listen", settings.server.listen)?;
        let metrics = settings.metrics.listen.address().map(|address| bind("metrics.listen", address)).transpose()?;
        let service = Arc::new(service_for_server(settings, clock, outgoing).await?);
        let settings = &within_file_limit(settings.clone());
        let follower = service.follow_changes().map_err(StartError::Other)?;
        let listening = socket.listening_socket();
        let listening = listening.map_err(|cause| listen_error(settings, "server.listen", address, &cause))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let samples = LogSamples::start();
        let started = http::serve(Arc::clone(&service), settings, socket, tls, Arc::clone(&samples));
        let (address, running) = started.map_err(|cause| listen_error(settings, "server.listen", address, &cause))?;
        let metrics = match metrics {
            Some((address, socket)) => {
                let started =
                    http::operations::metrics::serve(Arc::clone(&service), settings, socket, Arc::clone(&samples));
                let (address, running) =
                    started.map_err(|cause| listen_error(settings, "metrics.listen", address, &cause))?;
                log::info!("metrics on http://{address}/metrics");
                Some(running)
            }
            None => None,
        };
        log::info!("listening on {scheme}://{address}");
        log::info!("database {}", settings.database.url);
        if let Some((server, sender)) = mails {
            log::info!("mails are sent by {server} as {sender}");
        }
        log::info!("documentation on {scheme}://{address}/docs/");
        let settings = settings.server.clone();
        Ok(Self { address, socket: listening, running, metrics, service, follower, samples, certificate, settings })
    }

    /// The address on which the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The use cases, and the background work.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// A handle that can stop the server.
    pub fn handle(&self) -> http::ServerHandle {
        self.running.handle()
    }

    /// Serves until a signal requests a shutdown.
    ///
    /// Errors: the handlers of signals cannot be installed, or a server fails.
    pub async fn run(self) -> std::io::Result<()> {
        self.run_until(Signals::listen()?).await
    }

    /// Serves until one of these signals requests a shutdown.
    ///
    /// Errors: a server fails.
    pub async fn run_until(self, mut signals: Signals) -> std::io::Result<()> {
        let Self { socket, running, metrics, service, follower, samples, certificate, settings, .. } = self;
        let handle = running.handle();
        let metrics_handle = metrics.as_ref().map(http::RunningServer::handle);
        let metrics_server = async {
            match metrics {
                Some(metrics) => metrics.await,
                None => std::future::pending().await,
            }
        };
        let certificate_reload = async {
            match certificate {
                Some(certificate) => certificate.reload_changed_files().await,
                None => std::future::pending().await,
            }
        };
        let requests = async {
            let ended = running.await;
            if ended.is_ok() && service.lifecycle().shutdown().is_draining() {
                // The shutdown also waits for mails.
                std::future::pending::<()>().await;
            }
            ended
        };
        let ended = tokio::select! {
            ended = requests => ended,
            ended = metrics_server => ended,
            () = stop_on_signal(&service, socket, &handle, &settings, &mut signals) => Ok(()),
            () = certificate_reload => Ok(()),
            () = service.identities().last_uses().run() => Ok(()),
            () = service.lifecycle().purge().run() => Ok(()),
            () = service.lifecycle().cleanups().run() => Ok(()),
            () = service.trail().refusals().run() => Ok(()),
            () = service.stats_writer().run() => Ok(()),
            () = service.mail_delivery().run() => Ok(()),
        };
        if let Some(handle) = metrics_handle {
            handle.stop(false).await;
        }
        // A database that is not available must not delay the end of the process.
        let deadline = Instant::now() + LAST_WRITES_TIMEOUT;
        let last_writes = async {
            service.trail().refusals().flush().await;
            service.identities().last_uses().flush().await;
            service.stats_writer().flush().await;
        };
        if tokio::time::timeout_at(deadline, last_writes).await.is_err() {
            log::warn!(
                "could not write the counts of refused requests, the last use of keys and sessions, and statistics"
            );
        }
        match tokio::time::timeout_at(deadline, close_database(&service, follower)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("could not close the database: {error}"),
            Err(_) => log::warn!("could not close the database in time"),
        }
        samples.finish();
        ended
    }
}

/// The time in which established connections are accepted and send their first request, before the socket closes.
const LAST_ACCEPTS: Duration = Duration::from_millis(250);
/// The part of the shutdown time-out that is reserved for the last writes and for closing the database.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(1);

async fn close_database(service: &Service, follower: Option<Follower>) -> Result<(), AppError> {
    if let Some(follower) = follower {
        follower.stop().await;
    }
    service.close_database().await
}

/// Waits for a signal and shuts down in phases. Returns at once after SIGQUIT or a second signal.
async fn stop_on_signal(
    service: &Service,
    socket: ListeningSocket,
    handle: &http::ServerHandle,
    settings: &ServerSettings,
    signals: &mut Signals,
) {
    if signals.stop().await == Stop::Immediate {
        log::info!("stopping immediately");
        return;
    }
    log::info!("stopping within {} s", settings.shutdown_timeout);
    tokio::select! {
        () = stop(service, socket, handle, settings) => {}
        _ = signals.stop() => log::info!("second signal: stopping immediately"),
    }
}

/// Shuts down in phases. During the delay, the server is not ready and still accepts connections. It then refuses new
/// ones, accepts those that are established, and closes the socket. After half of the drain time it no longer waits for
/// request bodies. At the end of the drain time, requests that are still in progress are dropped. No further mail is
/// sent from the start of the delay on, and those that are being sent have until the end of the drain time.
async fn stop(service: &Service, socket: ListeningSocket, handle: &http::ServerHandle, settings: &ServerSettings) {
    let delay = Duration::from_secs(settings.shutdown_delay);
    let timeout = Duration::from_secs(settings.shutdown_timeout);
    let drain_time = timeout.saturating_sub(delay).saturating_sub(LAST_ACCEPTS + LAST_WRITES_TIMEOUT);
    service.lifecycle().shutdown().begin_drain();
    service.mail_delivery().stop();
    tokio::time::sleep(delay).await;
    match socket.refuse_new_connections() {
        Ok(()) => wait_for_last_accepts(LAST_ACCEPTS.min(timeout.saturating_sub(delay))).await,
        Err(error) => log::warn!("new connections cannot be refused, so some may be reset: {error}"),
    }
    drop(socket);
    let finished = handle.stop(true);
    let deadline = async {
        tokio::time::sleep(drain_time / 2).await;
        service.lifecycle().shutdown().stop_reading_bodies();
        tokio::time::sleep(drain_time / 2).await;
        log::warn!("requests in progress are dropped");
    };
    let requests = async {
        tokio::select! {
            () = finished => {}
            () = deadline => {}
        }
    };
    let mails = async {
        if tokio::time::timeout(drain_time, service.mail_delivery().finished()).await.is_err() {
            log::warn!("mails that are being sent are dropped, and will be sent again");
        }
    };
    tokio::join!(requests, mails);
}

/// Waits at least for this time. It passes in steps, so that the wait is longer in a process that gets little processor
/// time, whose other threads need longer, too.
async fn wait_for_last_accepts(time: Duration) {
    const STEPS: u32 = 25;
    for _ in 0..STEPS {
        tokio::time::sleep(time / STEPS).await;
    }
}

/// Number of open files besides the connections of clients and of the pool.
const OTHER_FILES: usize = 128;

/// Raises the limit of open files as far as needed and possible. If it stays too low, reduces `server.connections`.
fn within_file_limit(mut settings: Settings) -> Settings {
    let others = OTHER_FILES + usize::try_from(settings.database.pool_size).unwrap_or_default();
    let wanted = settings.server.connections + others;
    let granted = rlimit::increase_nofile_limit(wanted.try_into().unwrap_or(u64::MAX));
    let granted = granted.map_or(wanted, |granted| granted.try_into().unwrap_or(usize::MAX));
    if granted < wanted {
        settings.server.connections = granted.saturating_sub(others).max(1);
        let connections = settings.server.connections;
        log::warn!(
            "the system allows {granted} open files, so at most {connections} connections are possible: raise \
             `ulimit -n`"
        );
    }
    settings
}

/// The error for an address on which the server cannot listen, with what to do.
fn listen_error(settings: &Settings, setting: &str, address: SocketAddr, cause: &std::io::Error) -> StartError {
    let advice = match cause.kind() {
        ErrorKind::AddrInUse => "Another program listens on this address. Stop it, or choose another port.",
        ErrorKind::AddrNotAvailable => "This machine does not have this address. 0.0.0.0 means all its addresses.",
        ErrorKind::PermissionDenied => "Ports below 1024 require a privilege. Choose a higher port.",
        _ => "Choose another address.",
    };
    settings.places.error(setting, format!("cannot listen on {address}: {cause}. {advice}")).into()
}

fn tls_error(settings: &Settings, error: TlsError) -> StartError {
    match error.setting() {
        Some(setting) => settings.places.error(setting, error.to_string()).into(),
        None => StartError::Tls(error),
    }
}

/// Opens the existing database, without waiting for it and without changing its schema, and creates the service.
///
/// Errors: the database does not exist, is not available, or its schema is not current.
pub async fn open_service(settings: &Settings, clock: Clock) -> Result<Service, StartError> {
    settings.check_database_exists()?;
    let outgoing = Outgoing::load(settings)?;
    let db = connect(settings, Duration::ZERO).await?;
    check_schema(&db, settings).await?;
    Service::new(db, clock, settings, outgoing).map_err(StartError::Other)
}

/// As [`open_service`], but creates a missing SQLite file, waits up to `database.start_timeout` for the database,
/// applies pending migrations if the settings allow it, and checks that the database accepts everything that serving
/// requires.
async fn service_for_server(
    settings: &Settings,
    clock: Clock,
    outgoing: Option<Outgoing>,
) -> Result<Service, StartError> {
    let db = connect(settings, Duration::from_secs(settings.database.start_timeout)).await?;
    if settings.database.migrate_on_start {
        for name in db.migrate_up().await.map_err(|cause| database_error(settings, cause))? {
            log::info!("applied migration {name}");
        }
    }
    check_schema(&db, settings).await?;
    db.check_for_serving().await.map_err(|cause| database_error(settings, cause))?;
    let service = Service::new(db, clock, settings, outgoing).map_err(StartError::Other)?;
    match service.undefined_roles().await {
        Ok(roles) => roles.iter().for_each(|UndefinedRole { name, users }| {
            log::warn!("role {name:?} is not defined, so it grants nothing; users with this role: {users}");
        }),
        Err(error) => log::warn!("cannot look for undefined roles: {error}"),
    }
    Ok(service)
}

fn database_error(settings: &Settings, cause: AppError) -> StartError {
    let place = settings.places.of("database.url").map(|place| format!(" ({place})")).unwrap_or_default();
    StartError::Database { url: format!("{}{place}", settings.database.url), cause }
}

async fn connect(settings: &Settings, wait: Duration) -> Result<Db, StartError> {
    settings.check_database_file()?;
    if settings.auth.api_key_token.get().is_some_and(|key| key.len() < 32) {
        log::warn!("auth.api_key_token has fewer than 32 characters: a short static key can be guessed");
    }
    Db::open_within(&settings.database, wait).await.map_err(|cause| database_error(settings, cause))
}

async fn check_schema(db: &Db, settings: &Settings) -> Result<(), StartError> {
    match db.schema_state().await.map_err(|cause| database_error(settings, cause))? {
        SchemaState::Current => Ok(()),
        SchemaState::Outdated(_) => Err(StartError::NotMigrated),
        SchemaState::Unknown(unknown) => Err(StartError::NewerSchema(newer_schema(&unknown))),
    }
}
