//! Settings: built-in defaults, then a file, then the environment. An unknown key or a value out of range is an error
//! that names the key.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

mod authz;
mod database;
mod limits;
mod postgres_uri;
mod proxies;
mod tls;

pub use self::authz::{AuthzSettings, ForwardAudit};
pub use self::database::{DatabaseSettings, DatabaseTls, DatabaseUrl};
pub use self::limits::{Limit, LimitSettings};
pub use self::postgres_uri::PostgresUri;
pub use self::proxies::{ClientHeader, Networks, Origins};
pub use self::tls::TlsSettings;

/// The documented defaults, which are the built-in ones.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

const PREFIX: &str = "LATCHKEY__";
/// Settings that may come from a file named by `<variable>_FILE`.
const SECRETS: [&str; 2] = ["LATCHKEY__DATABASE__URL", "LATCHKEY__AUTH__API_KEY_TOKEN"];

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
}

/// `[server]`: where and how to listen.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve requests; 0 means one per core.
    pub workers: usize,
    /// Connections at most.
    pub connections: usize,
    /// Connections at most from one client.
    pub connections_per_client: usize,
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
            _ => Err("use \"fastapi\" or \"rfc\""),
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
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "" => Ok(Self(None)),
            text => text.parse().map(|address| Self(Some(address))).map_err(|_wrong| "use ADDRESS:PORT, or nothing"),
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
            _ => Err("use \"text\" or \"json\""),
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

/// Why the settings were refused; names the key.
#[derive(Debug, thiserror::Error)]
#[error("settings: {0}")]
pub struct ConfigError(String);

impl Settings {
    /// The settings in force: defaults, `file`, then `environment` (variable → value).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut builder =
            config::Config::builder().add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(file) = file {
            builder = builder.add_source(config::File::from_str(&readable(file)?, config::FileFormat::Toml));
        }
        let environment: HashMap<String, String> = environment.into_iter().collect();
        if let Some(url) = environment.get("DATABASE_URL") {
            builder = builder.set_override("database.url", url.as_str()).map_err(refused)?;
        }
        for (key, value) in overrides(&environment)? {
            builder = builder.set_override(key, value).map_err(refused)?;
        }
        let settings: Self = builder.build().map_err(refused)?.try_deserialize().map_err(refused)?;
        settings.check()?;
        settings.database.check(&environment)?;
        Ok(settings)
    }

    /// The built-in defaults, unchecked by any environment: what tests start from.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(None, [])
    }

    fn check(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        within("server.workers", self.server.workers, 0, 1024)?;
        within("server.connections", self.server.connections, 16, 1_000_000)?;
        within("server.connections_per_client", self.server.connections_per_client, 1, self.server.connections)?;
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
        self.authz.check(&self.http)?;
        self.limits.check()?;
        within("log.access_every", self.log.access_every, 0, 1_000_000)?;
        let key = auth.api_key_token.get().unwrap_or("unset");
        if key.len() > 512 || !key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return Err(ConfigError(
                "auth.api_key_token: use 1 to 512 visible ASCII characters without comma".to_owned(),
            ));
        }
        let public_url = &self.http.public_url;
        let usable = public_url.is_empty()
            || url::Url::parse(public_url).is_ok_and(|url| {
                let has_credentials = !url.username().is_empty() || url.password().is_some();
                let has_more = has_credentials || url.query().is_some() || url.fragment().is_some();
                matches!(url.scheme(), "http" | "https") && !has_more
            });
        if !usable {
            return Err(ConfigError(
                "http.public_url: use http(s)://HOST[/PATH] without credentials, query and fragment".to_owned(),
            ));
        }
        Ok(())
    }
}

/// The text of a settings file that is TOML. A parser's own message would quote the line, and so, it may be, a secret.
fn readable(file: &Path) -> Result<String, ConfigError> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError(format!("cannot read {name}: {error}")))?;
    if let Err(error) = text.parse::<toml::Table>() {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        return Err(ConfigError(format!("{name}, line {line}: {}", error.message())));
    }
    Ok(text)
}

fn within<T: PartialOrd + fmt::Display + Copy>(key: &str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value < least || value > most {
        return Err(ConfigError(format!("{key}: {value} is out of range, use {least} to {most}")));
    }
    Ok(())
}

/// `LATCHKEY__SECTION__KEY` → (`section.key`, value), with `…_FILE` replaced by what the file holds.
fn overrides(environment: &HashMap<String, String>) -> Result<Vec<(String, String)>, ConfigError> {
    let key_of = |variable: &str| variable.strip_prefix(PREFIX).map(|path| path.to_lowercase().replace("__", "."));
    let mut found = Vec::new();
    for (variable, value) in environment {
        let secret = variable.strip_suffix("_FILE").filter(|secret| SECRETS.contains(secret));
        if let Some(secret) = secret {
            if environment.contains_key(secret) {
                return Err(ConfigError(format!("{secret} and {variable} are both set, keep one")));
            }
            let held = std::fs::read_to_string(value)
                // Somebody may have put the secret itself where its file should be named.
                .map_err(|error| ConfigError(format!("{variable}: cannot read the file that it names: {error}")))?;
            found.extend(key_of(secret).map(|key| (key, held.trim_end_matches(['\r', '\n']).to_owned())));
        } else {
            found.extend(key_of(variable).map(|key| (key, value.clone())));
        }
    }
    Ok(found)
}

/// Why the settings do not fit, without the value: it may be a secret that stands in the wrong place.
fn refused(error: config::ConfigError) -> ConfigError {
    use config::ConfigError::{At, Type};
    let must_be = |expected: &str| match expected.starts_with("struct ") {
        true => "this must be a section".to_owned(),
        false => format!("this must be {expected}"),
    };
    ConfigError(match error {
        Type { key: Some(key), expected, .. } => format!("{key}: {}", must_be(expected)),
        Type { expected, .. } => must_be(expected),
        At { key: Some(key), error, .. } => format!("{key}: {}", refused(*error).0),
        error => {
            let said = error.to_string();
            // serde's own words quote the value before they say what was expected.
            let expected = said.rsplit_once(", expected ").filter(|_| said.starts_with("invalid "));
            expected.map_or_else(|| said.clone(), |(_, expected)| must_be(expected))
        }
    })
}

/// The settings as TOML, secrets masked.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_unlikely| fmt::Error)?)
    }
}
