//! Settings: built-in defaults, then a file, then the environment. An unknown key or a value that is not possible is an
//! error that says what is wrong, where it was written, and what to write instead. Except for that of `RUST_LOG` it quotes no text,
//! which may be a secret in the wrong place.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

mod authz;
mod database;
mod files;
mod limits;
mod log_filter;
mod names;
mod postgres_uri;
mod proxies;
mod sources;
mod tls;
mod values;

pub use self::authz::{AuthzSettings, ForwardAudit};
pub use self::database::{DatabaseSettings, DatabaseTls, DatabaseUrl};
pub use self::limits::{Limit, LimitSettings};
pub use self::postgres_uri::PostgresUri;
pub use self::proxies::{ClientHeader, Networks, Origins};
pub use self::sources::Places;
use self::sources::Sources;
pub use self::tls::TlsSettings;

/// The documented defaults, which are the built-in ones.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// All settings. `config/default.toml` says what each means.
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
    /// `[authz]`
    pub authz: AuthzSettings,
    /// `[limits]`
    pub limits: LimitSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[metrics]`
    pub metrics: MetricsSettings,
    /// Where each of them was written.
    #[serde(skip)]
    pub places: Places,
}

/// `[server]`: where and how to listen.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address and port; port 0 takes a free one.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// Threads that serve requests; 0 means one per core.
    pub workers: usize,
    /// Connections at most.
    pub connections: usize,
    /// Connections at most from one client.
    pub connections_per_client: usize,
    /// Seconds that a connection may be idle.
    pub keep_alive: u64,
    /// Seconds from SIGTERM to the end at most.
    pub shutdown_timeout: u64,
    /// Seconds of them in which new connections are still taken.
    pub shutdown_delay: u64,
}

impl ServerSettings {
    /// Threads that serve requests.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

/// `[http]`: how answers look.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Which status an unknown caller gets.
    pub status_codes: StatusProfile,
    /// Where clients reach this server; empty if unknown.
    pub public_url: String,
    /// Proxies whose word on the client is taken.
    pub trusted_proxies: Networks,
    /// Seconds that a connection of theirs may be idle.
    pub proxy_keep_alive: u64,
    /// In which header they say it.
    pub client_header: ClientHeader,
    /// Web pages of which origins may read answers.
    pub cors_origins: Origins,
}

/// Which status codes an unknown caller gets (DESIGN: the status profile).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum StatusProfile {
    /// As FastAPI's security helpers answered for years: 403 without a credential.
    Fastapi,
    /// As RFC 6749, 6750 and 9110 say.
    Rfc,
}

impl TryFrom<String> for StatusProfile {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "fastapi" => Ok(Self::Fastapi),
            "rfc" => Ok(Self::Rfc),
            _ => Err("Write \"fastapi\" or \"rfc\"."),
        }
    }
}

/// `[auth]`: passwords and tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// Seconds that a sign-in token lives.
    pub token_ttl: i64,
    /// bcrypt cost of new hashes.
    pub bcrypt_cost: u32,
    /// Threads that hash passwords; 0 means one per core.
    pub hash_threads: usize,
    /// Hashes that may wait for a thread.
    pub hash_queue: usize,
    /// Shortest new password in characters.
    pub password_min_length: usize,
    /// Longest new password in characters.
    pub password_max_length: usize,
    /// Tokens and keys that are remembered; 0 for none.
    pub cache_size: usize,
    /// Seconds that a remembered one passes reads while the database does not answer.
    pub serve_stale_seconds: u64,
    /// The constant key, if there is one.
    #[serde(default)]
    pub api_key_token: ConstantKey,
}

/// `[log]`: how log lines look.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// For people or for programs.
    pub format: LogFormat,
    /// Requests that succeed for one access line; 0 for no lines about them.
    pub access_every: u32,
}

/// `[metrics]`: what operators may count.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// Where to listen for whoever asks for them; nowhere if empty.
    pub listen: OptionalAddress,
}

/// An address and port, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalAddress(Option<SocketAddr>);

impl OptionalAddress {
    /// The address, if there is one.
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

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object per line.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("Write \"text\" or \"json\"."),
        }
    }
}

/// The constant key of C6. It prints as `***`; an empty one is none.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct ConstantKey(String);

impl ConstantKey {
    /// The key, if one is set.
    pub fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

impl From<&str> for ConstantKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl fmt::Debug for ConstantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl Serialize for ConstantKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

/// Why the settings are refused.
#[derive(Debug, thiserror::Error)]
#[error("settings: {subject}: {message}")]
pub struct ConfigError {
    /// The key of the setting, the variable or the file, and where it was written.
    subject: String,
    /// What is wrong with it, and what to write instead.
    message: String,
}

impl ConfigError {
    fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), message: message.into() }
    }
}

impl Settings {
    /// The settings in force: defaults, `file`, then `environment` (variable → value).
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

    /// The built-in defaults, unchecked by any environment: what tests start from.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(None, [])
    }

    fn check(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        within("server.workers", self.server.workers, 0, 512)?;
        within("server.connections", self.server.connections, 16, 1_000_000)?;
        within("server.connections_per_client", self.server.connections_per_client, 1, self.server.connections)?;
        within("server.keep_alive", self.server.keep_alive, 1, 3600)?;
        within("http.proxy_keep_alive", self.http.proxy_keep_alive, 1, 3600)?;
        within("server.shutdown_timeout", self.server.shutdown_timeout, 0, 300)?;
        within("server.shutdown_delay", self.server.shutdown_delay, 0, self.server.shutdown_timeout)?;
        self.tls.check()?;
        within("auth.token_ttl", auth.token_ttl, 1, 31_536_000)?;
        within("auth.bcrypt_cost", auth.bcrypt_cost, 10, 31)?;
        within("auth.hash_threads", auth.hash_threads, 0, 256)?;
        within("auth.hash_queue", auth.hash_queue, 1, 100_000)?;
        within("auth.password_min_length", auth.password_min_length, 8, 512)?;
        within("auth.password_max_length", auth.password_max_length, auth.password_min_length, 512)?;
        within("auth.cache_size", auth.cache_size, 0, 10_000_000)?;
        within("auth.serve_stale_seconds", auth.serve_stale_seconds, 0, 3_600)?;
        self.authz.check(&self.http)?;
        self.limits.check()?;
        within("log.access_every", self.log.access_every, 0, 1_000_000)?;
        let key = auth.api_key_token.get().unwrap_or("unset");
        if key.len() > 512 || !key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            let rule = "Use 1 to 512 visible ASCII characters, without a comma.";
            return Err(ConfigError::new("auth.api_key_token", rule));
        }
        if self.metrics.listen.address().is_some_and(|address| address == self.server.listen && address.port() != 0) {
            return Err(ConfigError::new(
                "metrics.listen",
                "server.listen has this address, too. Choose another port.",
            ));
        }
        proxies::check_public_url(&self.http.public_url)
    }
}

fn within<T: PartialOrd + fmt::Display + Copy>(key: &str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(ConfigError::new(key, format!("{value} is out of range. Write {least} to {most}.")));
    }
    Ok(())
}

/// The settings as TOML, secrets masked, each that is not the default with the place where it was written.
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
