//! Settings: built-in defaults, then a file, then environment variables.
//!
//! An unknown key or an invalid value is an error. The message states the setting, where it was set, and what to write
//! instead. It never quotes text, except for `RUST_LOG`, because a secret may have been written to the wrong setting.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

mod audit;
mod auth;
mod authz;
mod choice;
mod database;
mod files;
mod limits;
mod log_filter;
mod mail;
mod proxies;
mod registration;
mod roles;
mod session;
mod sources;
mod stats;
mod tls;
mod values;

pub use self::audit::AuditSettings;
pub use self::auth::{AuthSettings, StaticKey};
pub use self::authz::{AuthzSettings, ForwardAudit};
use self::choice::choice;
pub use self::database::{DatabaseSettings, DatabaseTls, DatabaseUrl, PostgresUri, SQLITE_SIDE_FILES};
pub use self::limits::{Limit, LimitSettings};
pub use self::mail::{LinkSettings, MailSettings, Sender, SmtpServer, SmtpUrl, StartTls};
pub use self::proxies::{ClientHeader, Networks, Origins};
pub use self::registration::{EmailDomains, RegistrationMode, RegistrationSettings};
pub use self::roles::RoleSettings;
pub use self::session::SessionSettings;
pub use self::sources::Places;
use self::sources::Sources;
pub use self::stats::StatsSettings;
pub use self::tls::TlsSettings;

/// The default settings with their documentation: the text of `config/default.toml`.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Least number of seconds between the end of `shutdown_delay` and that of the shutdown: the last connections are
/// accepted, requests in progress finish, and pending writes are stored.
const MIN_DRAIN_SECONDS: u64 = 2;

/// All settings. `config/default.toml` describes each of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `[server]`
    pub server: ServerSettings,
    /// `[tls]`
    pub tls: TlsSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[http]`
    pub http: HttpSettings,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[session]`
    pub session: SessionSettings,
    /// `[registration]`
    pub registration: RegistrationSettings,
    /// `[mail]`
    pub mail: MailSettings,
    /// `[links]`
    pub links: LinkSettings,
    /// `[console]`
    pub console: ConsoleSettings,
    /// `[roles.<name>]`
    pub roles: RoleSettings,
    /// `[authz]`
    pub authz: AuthzSettings,
    /// `[audit]`
    pub audit: AuditSettings,
    /// `[stats]`
    pub stats: StatsSettings,
    /// `[limits]`
    pub limits: LimitSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[metrics]`
    pub metrics: MetricsSettings,
    /// Where each setting was set.
    #[serde(skip)]
    pub places: Places,
}

/// `[server]`: listener and shutdown.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// IP address and port to listen on. Port 0 selects a free port.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// Threads that serve requests. 0 means one per processor core.
    pub workers: usize,
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of connections of one client.
    pub connections_per_client: usize,
    /// Seconds after which an idle connection is closed.
    pub keep_alive: u64,
    /// Maximum seconds from SIGTERM to the end of the process.
    pub shutdown_timeout: u64,
    /// Seconds of them during which new connections are still accepted.
    pub shutdown_delay: u64,
}

impl ServerSettings {
    /// The number of threads that serve requests, with 0 resolved to the number of processor cores.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

/// `[http]`: status codes, proxies and origins.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// The status codes for callers that are not authenticated.
    pub status_codes: StatusProfile,
    /// The URL at which clients reach this server. Empty if unknown.
    pub public_url: String,
    /// Reverse proxies whose headers about the client are accepted.
    pub trusted_proxies: Networks,
    /// Seconds after which an idle connection of a trusted proxy is closed.
    pub proxy_keep_alive: u64,
    /// The header in which trusted proxies report the client.
    pub client_header: ClientHeader,
    /// Origins whose web pages may read responses (CORS; ASVS 5.0, 3.4.2).
    pub cors_origins: Origins,
}

choice! {
    /// The status profile: the status codes for callers that are not authenticated.
    pub enum StatusProfile {
        /// As FastAPI's security helpers respond: 403 without a credential.
        Fastapi = "fastapi",
        /// As RFC 6749, 6750 and 9110 require: 401 without a credential.
        Rfc = "rfc",
    }
}

/// `[console]`: the web console.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSettings {
    /// Whether `/console/` is served.
    pub enabled: bool,
}

/// `[log]`: format and selection of log lines.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// The format of log lines.
    pub format: LogFormat,
    /// Successful requests per access line. 0 logs none of them.
    pub access_every: u32,
}

/// `[metrics]`: the listener for metrics.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// Address and port of the listener. Empty if there is none.
    pub listen: OptionalAddress,
}

/// An optional IP address and port. The empty string means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalAddress(Option<SocketAddr>);

impl OptionalAddress {
    /// The address and port, if set.
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }
}

impl TryFrom<String> for OptionalAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "" => Ok(Self(None)),
            text => values::read_address(text).map(|address| Self(Some(address))),
        }
    }
}

impl From<OptionalAddress> for String {
    fn from(address: OptionalAddress) -> Self {
        address.0.map(|address| address.to_string()).unwrap_or_default()
    }
}

choice! {
    /// The format of log lines.
    pub enum LogFormat {
        /// One line of text.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

/// An error in the settings.
#[derive(Debug, thiserror::Error)]
#[error("settings: {subject}: {message}")]
pub struct ConfigError {
    /// The key of the setting and where it was set, or the variable or file.
    subject: String,
    /// What is wrong, and what to write instead.
    message: String,
}

impl ConfigError {
    fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), message: message.into() }
    }
}

impl Settings {
    /// Loads the settings: defaults, then `file`, then `environment` (pairs of variable and value). Later sources
    /// override earlier ones.
    ///
    /// Errors: a source cannot be read, or a key, variable or value is invalid.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: HashMap<String, String> = environment.into_iter().collect();
        let mut sources = Sources::defaults()?;
        if let Some(file) = file {
            sources.read_file(file)?;
        }
        sources.read_environment(&environment)?;
        let settings = sources.settings()?;
        let checked = settings.check().and_then(|()| settings.database.check(&environment));
        checked.map_err(|error| settings.places.locate(error))?;
        log_filter::check(environment.get(log_filter::VARIABLE).map_or("", String::as_str))?;
        Ok(settings)
    }

    /// Loads the defaults, without a file and without environment variables.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(None, [])
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("server.workers", self.server.workers, 0, 512)?;
        within("server.connections", self.server.connections, 16, 1_000_000)?;
        within("server.connections_per_client", self.server.connections_per_client, 1, self.server.connections)?;
        within("server.keep_alive", self.server.keep_alive, 1, 3600)?;
        within("http.proxy_keep_alive", self.http.proxy_keep_alive, 1, 3600)?;
        within("server.shutdown_timeout", self.server.shutdown_timeout, 0, 300)?;
        let longest_delay = self.server.shutdown_timeout.saturating_sub(MIN_DRAIN_SECONDS);
        within("server.shutdown_delay", self.server.shutdown_delay, 0, longest_delay)?;
        self.tls.check()?;
        self.auth.check()?;
        self.session.check()?;
        self.registration.check()?;
        self.links.check()?;
        self.mail.check(self)?;
        self.roles.check()?;
        self.authz.check(&self.http)?;
        self.audit.check()?;
        self.stats.check()?;
        self.limits.check()?;
        within("log.access_every", self.log.access_every, 0, 1_000_000)?;
        if self.metrics.listen.address().is_some_and(|address| overlap(address, self.server.listen)) {
            return Err(ConfigError::new(
                "metrics.listen",
                "server.listen uses the same address and port. Choose another port.",
            ));
        }
        proxies::check_public_url(&self.http.public_url)
    }
}

/// Whether two listeners could not both listen. An unspecified address such as 0.0.0.0 includes all others. Port 0 means
/// any free port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let [one_ip, other_ip] = [one, other].map(|address| address.ip().to_canonical());
    let share_address = one_ip == other_ip || one_ip.is_unspecified() || other_ip.is_unspecified();
    one.port() != 0 && one.port() == other.port() && share_address
}

fn within<T: PartialOrd + fmt::Display + Copy>(key: &str, value: T, min: T, max: T) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(ConfigError::new(key, format!("{value} is out of range. Write {min} to {max}.")));
    }
    Ok(())
}

/// The settings as TOML with masked secrets. A comment after each setting that is not a default states where it was
/// set.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = toml::to_string(self).map_err(|_unlikely| fmt::Error)?;
        let mut section = "";
        for line in text.lines() {
            section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(section);
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            match self.places.of(&format!("{section}.{name}")) {
                Some(place) => writeln!(f, "{line} # {place}")?,
                None => writeln!(f, "{line}")?,
            }
        }
        Ok(())
    }
}
