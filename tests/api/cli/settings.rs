//! Error messages about invalid settings. A message states the error, the variable or line, and the correction. It does
//! not quote the value, which may be a secret.

use std::path::Path;

use latchkey::config::Settings;
use tempfile::TempDir;

use crate::support::program::{Serving, failure, latchkey, out, run};

/// The error about these environment variables, if any.
fn load_error(variables: &[(&str, &str)]) -> Option<String> {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(None, environment).err().map(|error| error.to_string())
}

/// Whether the message is as expected. An expectation that ends with `…` is a prefix; a list of settings follows.
fn matches(message: &str, expected: &str) -> bool {
    match expected.strip_suffix('…') {
        Some(prefix) => message.starts_with(prefix.trim_end()),
        None => message == expected,
    }
}

/// Variable, value, and error message.
const VARIABLES: &[(&str, &str, &str)] = &[
    (
        "LATCHKEY__SERVER__LISTEN",
        "localhost:8080",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write an IP address and a port, not a host name: 127.0.0.1:8080 for this machine, or 0.0.0.0:8080 for all.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "0.0.0.0",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The port is missing. Write 0.0.0.0:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "8080",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The IP address is missing. Write 127.0.0.1:8080 for this machine, or 0.0.0.0:8080 for all.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        ":8080",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The IP address is missing. Write 127.0.0.1:8080 for this machine, or 0.0.0.0:8080 for all.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "http://0.0.0.0:8080",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write the address without a scheme: 0.0.0.0:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "::1",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write an IPv6 address in brackets, and its port, such as [::1]:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "[::1]",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write an IPv6 address in brackets, and its port, such as [::1]:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "::1:8080",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write an IPv6 address in brackets, and its port, such as [::1]:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "[::1:80",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write an IPv6 address in brackets, and its port, such as [::1]:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "0.0.0.0:99999",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The port must be a number from 0 to 65535.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "0.0.0.0:http",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The port must be a number from 0 to 65535.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The address is empty. Write an IP address and a port, such as 127.0.0.1:8080.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "nowhere",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): Write an IP address and a port, not a host name: 127.0.0.1:8080 for this machine, or 0.0.0.0:8080 for all.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "127.0.0.1:80\u{200b}80",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The value contains the invisible character U+200B. Remove it.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN",
        "127.0.0.1\t:80",
        "settings: server.listen (LATCHKEY__SERVER__LISTEN): The value contains the invisible character U+0009. Remove it.",
    ),
    (
        "LATCHKEY__AUTH__TOKEN_TTL",
        "24h",
        "settings: auth.token_ttl (LATCHKEY__AUTH__TOKEN_TTL): Write a whole number of seconds without a unit, such as the default 86400.",
    ),
    (
        "LATCHKEY__AUTH__TOKEN_TTL",
        "",
        "settings: auth.token_ttl (LATCHKEY__AUTH__TOKEN_TTL): The value is empty. Write a whole number of seconds without a unit, such as the default 86400, or remove the setting to use the default.",
    ),
    (
        "LATCHKEY__AUDIT__RETENTION_DAYS",
        "-1",
        "settings: audit.retention_days (LATCHKEY__AUDIT__RETENTION_DAYS): -1 is out of range. Write 0 to 36500.",
    ),
    (
        "LATCHKEY__AUDIT__RETENTION_DAYS",
        "1y",
        "settings: audit.retention_days (LATCHKEY__AUDIT__RETENTION_DAYS): Write a whole number, such as the default 0.",
    ),
    (
        "LATCHKEY__AUDIT__ANONYMOUS_FAILURES_KEPT",
        "0",
        "settings: audit.anonymous_failures_kept (LATCHKEY__AUDIT__ANONYMOUS_FAILURES_KEPT): 0 is out of range. Write 1000 to 1000000000.",
    ),
    (
        "LATCHKEY__AUTH__TOKEN_TTL",
        "0",
        "settings: auth.token_ttl (LATCHKEY__AUTH__TOKEN_TTL): 0 is out of range. Write 1 to 31536000.",
    ),
    (
        "LATCHKEY__AUTH__TOKEN_TTL",
        "1.5",
        "settings: auth.token_ttl (LATCHKEY__AUTH__TOKEN_TTL): Write a whole number of seconds without a unit, such as the default 86400.",
    ),
    (
        "LATCHKEY__AUTH__TOKEN_TTL",
        "a day",
        "settings: auth.token_ttl (LATCHKEY__AUTH__TOKEN_TTL): Write a whole number of seconds without a unit, such as the default 86400.",
    ),
    (
        "LATCHKEY__AUTH__TOKEN_TTL",
        "18446744073709551615",
        "settings: auth.token_ttl (LATCHKEY__AUTH__TOKEN_TTL): Write a whole number of seconds without a unit, such as the default 86400.",
    ),
    (
        "LATCHKEY__SERVER__SHUTDOWN_TIMEOUT",
        "10s",
        "settings: server.shutdown_timeout (LATCHKEY__SERVER__SHUTDOWN_TIMEOUT): Write a whole number of seconds without a unit, such as the default 8.",
    ),
    (
        "LATCHKEY__SERVER__SHUTDOWN_DELAY",
        "9",
        "settings: server.shutdown_delay (LATCHKEY__SERVER__SHUTDOWN_DELAY): 9 is out of range. Write 0 to 6.",
    ),
    (
        "LATCHKEY__SERVER__WORKERS",
        "-1",
        "settings: server.workers (LATCHKEY__SERVER__WORKERS): This number is negative or too large. config/default.toml states its range.",
    ),
    (
        "LATCHKEY__SERVER__WORKERS",
        "100000",
        "settings: server.workers (LATCHKEY__SERVER__WORKERS): 100000 is out of range. Write 0 to 512.",
    ),
    (
        "LATCHKEY__SERVER__WORKERS",
        "many",
        "settings: server.workers (LATCHKEY__SERVER__WORKERS): Write a whole number, such as the default 0.",
    ),
    (
        "LATCHKEY__SERVER__CONNECTIONS",
        "1",
        "settings: server.connections (LATCHKEY__SERVER__CONNECTIONS): 1 is out of range. Write 16 to 1000000.",
    ),
    (
        "LATCHKEY__SERVER__CONNECTIONS_PER_CLIENT",
        "5000",
        "settings: server.connections_per_client (LATCHKEY__SERVER__CONNECTIONS_PER_CLIENT): 5000 is out of range. Write 1 to 4096.",
    ),
    (
        "LATCHKEY__AUTH__BCRYPT_COST",
        "9",
        "settings: auth.bcrypt_cost (LATCHKEY__AUTH__BCRYPT_COST): 9 is out of range. Write 10 to 31.",
    ),
    (
        "LATCHKEY__AUTH__BCRYPT_COST",
        "32",
        "settings: auth.bcrypt_cost (LATCHKEY__AUTH__BCRYPT_COST): 32 is out of range. Write 10 to 31.",
    ),
    (
        "LATCHKEY__AUTH__HASH_LANES",
        "0",
        "settings: auth.hash_lanes (LATCHKEY__AUTH__HASH_LANES): 0 is out of range. Write 1 to 8.",
    ),
    (
        "LATCHKEY__AUTH__HASH_LANES",
        "9",
        "settings: auth.hash_lanes (LATCHKEY__AUTH__HASH_LANES): 9 is out of range. Write 1 to 8.",
    ),
    (
        "LATCHKEY__AUTH__PASSWORD_MIN_LENGTH",
        "7",
        "settings: auth.password_min_length (LATCHKEY__AUTH__PASSWORD_MIN_LENGTH): 7 is out of range. Write 8 to 512.",
    ),
    (
        "LATCHKEY__AUTH__PASSWORD_MAX_LENGTH",
        "7",
        "settings: auth.password_max_length (LATCHKEY__AUTH__PASSWORD_MAX_LENGTH): 7 is out of range. Write 8 to 512.",
    ),
    (
        "LATCHKEY__LIMITS__REGISTRATIONS__BURST",
        "0",
        "settings: limits.registrations.burst (LATCHKEY__LIMITS__REGISTRATIONS__BURST): 0 is out of range. Write 1 to 1000000.",
    ),
    (
        "LATCHKEY__LIMITS__NEW_KEYS__PER_HOUR",
        "many",
        "settings: limits.new_keys.per_hour (LATCHKEY__LIMITS__NEW_KEYS__PER_HOUR): Write a whole number, such as the default 3600.",
    ),
    (
        "LATCHKEY__LIMITS__ACCOUNT_STOP",
        "4",
        "settings: limits.account_stop (LATCHKEY__LIMITS__ACCOUNT_STOP): 4 is out of range. Write 5 to 1000000.",
    ),
    (
        "LATCHKEY__LOG__ACCESS_EVERY",
        "-1",
        "settings: log.access_every (LATCHKEY__LOG__ACCESS_EVERY): This number is negative or too large. config/default.toml states its range.",
    ),
    (
        "LATCHKEY__DATABASE__POOL_SIZE",
        "1",
        "settings: database.pool_size (LATCHKEY__DATABASE__POOL_SIZE): 1 is out of range. Write 2 to 1024.",
    ),
    (
        "LATCHKEY__DATABASE__POOL_SIZE",
        "5000000000",
        "settings: database.pool_size (LATCHKEY__DATABASE__POOL_SIZE): This number is negative or too large. config/default.toml states its range.",
    ),
    (
        "LATCHKEY__DATABASE__MIGRATE_ON_START",
        "maybe",
        "settings: database.migrate_on_start (LATCHKEY__DATABASE__MIGRATE_ON_START): Write true or false.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "",
        "settings: database.url (LATCHKEY__DATABASE__URL): The address is empty. Write sqlite://latchkey.db or postgres://USER@HOST/NAME.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "mysql://localhost/x",
        "settings: database.url (LATCHKEY__DATABASE__URL): Write sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "postgres://db.example.org/latchkey?sslmode=require",
        "settings: database.url (LATCHKEY__DATABASE__URL): The connection to PostgreSQL on another machine would not be verified. Add ?sslmode=verify-full (and sslrootcert=FILE for a certificate of your own) to the address; or set database.tls = \"any\" (LATCHKEY__DATABASE__TLS=any) if you trust the network.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "postgres://ada:p@ss@db/x",
        "settings: database.url (LATCHKEY__DATABASE__URL): Write postgres://USER:PASSWORD@HOST:PORT/NAME?PARAMETER=VALUE&…, and within each part @ as %40, / as %2F, ? as %3F, & as %26, = as %3D, % as %25.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "sqlite://:memory:",
        "settings: database.url (LATCHKEY__DATABASE__URL): An in-memory database is not possible: each connection would have its own. Name a file.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "file:x.db",
        "settings: database.url (LATCHKEY__DATABASE__URL): Write sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME.",
    ),
    (
        "LATCHKEY__DATABASE__URL",
        "x.db?mode=ro",
        "settings: database.url (LATCHKEY__DATABASE__URL): Write sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME.",
    ),
    (
        "LATCHKEY__DATABASE__TLS",
        "none",
        "settings: database.tls (LATCHKEY__DATABASE__TLS): Write \"verify\" or \"any\".",
    ),
    (
        "LATCHKEY__DATABASE",
        "x",
        "settings: LATCHKEY__DATABASE: This names a whole section. Write one of LATCHKEY__DATABASE__ …",
    ),
    (
        "LATCHKEY__LIMITS__NEW_KEYS",
        "5",
        "settings: LATCHKEY__LIMITS__NEW_KEYS: This names a whole section. Write one of LATCHKEY__LIMITS__NEW_KEYS__BURST, LATCHKEY__LIMITS__NEW_KEYS__PER_HOUR.",
    ),
    (
        "LATCHKEY__HTTP__CORS_ORIGINS",
        "https://*.example.com",
        "settings: http.cors_origins (LATCHKEY__HTTP__CORS_ORIGINS): Entry 1: Patterns are not supported. Name each origin, such as https://app.example.com.",
    ),
    (
        "LATCHKEY__HTTP__CORS_ORIGINS",
        "https://a.example.com,https://app.example.com/",
        "settings: http.cors_origins (LATCHKEY__HTTP__CORS_ORIGINS): Entry 2: Browsers send this origin as https://app.example.com. Write it in this form, without a path.",
    ),
    (
        "LATCHKEY__HTTP__CORS_ORIGINS",
        "*",
        "settings: http.cors_origins (LATCHKEY__HTTP__CORS_ORIGINS): Entry 1: Patterns are not supported. Name each origin, such as https://app.example.com.",
    ),
    (
        "LATCHKEY__HTTP__CORS_ORIGINS",
        "app.example.com",
        "settings: http.cors_origins (LATCHKEY__HTTP__CORS_ORIGINS): Entry 1: This is not an origin. Write scheme and host, such as https://app.example.com.",
    ),
    (
        "LATCHKEY__HTTP__TRUSTED_PROXIES",
        "10.0.0.0/8, proxy",
        "settings: http.trusted_proxies (LATCHKEY__HTTP__TRUSTED_PROXIES): Entry 2 is neither an address nor a network. Write, for example, 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32.",
    ),
    (
        "LATCHKEY__HTTP__PUBLIC_URL",
        "auth.example.com",
        "settings: http.public_url (LATCHKEY__HTTP__PUBLIC_URL): Write http(s)://HOST[/PATH], such as https://auth.example.com, without credentials, query and fragment.",
    ),
    (
        "LATCHKEY__HTTP__PUBLIC_URL",
        "https://*.example.com",
        "settings: http.public_url (LATCHKEY__HTTP__PUBLIC_URL): Write http(s)://HOST[/PATH], such as https://auth.example.com, without credentials, query and fragment.",
    ),
    (
        "LATCHKEY__HTTP__STATUS_CODES",
        "teapot",
        "settings: http.status_codes (LATCHKEY__HTTP__STATUS_CODES): Write \"fastapi\" or \"rfc\".",
    ),
    (
        "LATCHKEY__HTTP__CLIENT_HEADER",
        "x-real-ip",
        "settings: http.client_header (LATCHKEY__HTTP__CLIENT_HEADER): Write \"x-forwarded-for\" or \"forwarded\".",
    ),
    ("LATCHKEY__LOG__FORMAT", "xml", "settings: log.format (LATCHKEY__LOG__FORMAT): Write \"text\" or \"json\"."),
    (
        "LATCHKEY__AUTH__API_KEY_TOKEN",
        "two words",
        "settings: auth.api_key_token (LATCHKEY__AUTH__API_KEY_TOKEN): Use 1 to 512 visible ASCII characters, without a comma.",
    ),
    (
        "LATCHKEY__AUTHZ__RULES",
        "x",
        "settings: authz.rules (LATCHKEY__AUTHZ__RULES): Rules can be set in a settings file only, as [[authz.rules]].",
    ),
    (
        "LATCHKEY__AUTHZ__AUDIT",
        "writes",
        "settings: authz.audit (LATCHKEY__AUTHZ__AUDIT): This setting requires a trusted proxy that states the original request. Name the proxy in http.trusted_proxies.",
    ),
    ("LATCHKEY__AUTHZ__AUDIT", "all", "settings: authz.audit (LATCHKEY__AUTHZ__AUDIT): Write \"off\" or \"writes\"."),
    (
        "LATCHKEY__TLS__KEY",
        "x.pem",
        "settings: tls.key (LATCHKEY__TLS__KEY): TLS requires two files. Set tls.certificate too, or remove tls.key.",
    ),
    (
        "LATCHKEY__TLS__CERTIFICATE",
        "x.pem",
        "settings: tls.certificate (LATCHKEY__TLS__CERTIFICATE): TLS requires two files. Set tls.key too, or remove tls.certificate.",
    ),
    (
        "LATCHKEY__METRICS__LISTEN",
        "9090",
        "settings: metrics.listen (LATCHKEY__METRICS__LISTEN): The IP address is missing. Write 127.0.0.1:9090 for this machine, or 0.0.0.0:9090 for all.",
    ),
    (
        "LATCHKEY__METRICS__LISTEN",
        "127.0.0.1:8080",
        "settings: metrics.listen (LATCHKEY__METRICS__LISTEN): server.listen uses the same address and port. Choose another port.",
    ),
    (
        "LATCHKEY__SERVER__LISTN",
        "x",
        "settings: LATCHKEY__SERVER__LISTN: There is no such setting. Did you mean LATCHKEY__SERVER__LISTEN?",
    ),
    (
        "LATCHKEY__SERVE__LISTEN",
        "x",
        "settings: LATCHKEY__SERVE__LISTEN: There is no such setting. Did you mean LATCHKEY__SERVER__LISTEN?",
    ),
    (
        "LATCHKEY__SERVER_LISTEN",
        "x",
        "settings: LATCHKEY__SERVER_LISTEN: This variable is not read. Write LATCHKEY__SERVER__LISTEN: upper case, and two underscores before each part.",
    ),
    (
        "LATCHKEY__SERVER__LISTEN_FILE",
        "x",
        "settings: LATCHKEY__SERVER__LISTEN_FILE: This setting cannot be read from a file. Set LATCHKEY__SERVER__LISTEN itself. Files can hold: DATABASE_URL_FILE, LATCHKEY__DATABASE__URL_FILE, LATCHKEY__AUTH__API_KEY_TOKEN_FILE, LATCHKEY__MAIL__URL_FILE.",
    ),
    (
        "LATCHKEY__NONSENSE",
        "x",
        "settings: LATCHKEY__NONSENSE: There is no such setting. `latchkey config` shows all. Write LATCHKEY__SECTION__KEY, such as LATCHKEY__SERVER__LISTEN, or unset the variable.",
    ),
    (
        "LATCHKEY_LISTEN",
        "0.0.0.0:8080",
        "settings: LATCHKEY_LISTEN: There is no such setting. Did you mean LATCHKEY__METRICS__LISTEN or LATCHKEY__SERVER__LISTEN?",
    ),
    (
        "LATCHKEY_POOL_SIZE",
        "8",
        "settings: LATCHKEY_POOL_SIZE: There is no such setting. Did you mean LATCHKEY__DATABASE__POOL_SIZE?",
    ),
    (
        "LATCHKEY_SERVER_LISTEN",
        "x",
        "settings: LATCHKEY_SERVER_LISTEN: This variable is not read. Write LATCHKEY__SERVER__LISTEN: upper case, and two underscores before each part.",
    ),
    (
        "latchkey__server__listen",
        "x",
        "settings: latchkey__server__listen: This variable is not read. Write LATCHKEY__SERVER__LISTEN: upper case, and two underscores before each part.",
    ),
    (
        "LATCHKEY_DATABASE_URL",
        "x",
        "settings: LATCHKEY_DATABASE_URL: This variable is not read. Write LATCHKEY__DATABASE__URL: upper case, and two underscores before each part.",
    ),
    (
        "LATCHKEY_VERSION",
        "1",
        "settings: LATCHKEY_VERSION: There is no such setting. `latchkey config` shows all. Write LATCHKEY__SECTION__KEY, such as LATCHKEY__SERVER__LISTEN, or unset the variable.",
    ),
    (
        "LATCHKEY_PORT",
        "8080",
        "settings: LATCHKEY_PORT: There is no such setting. `latchkey config` shows all. Write LATCHKEY__SECTION__KEY, such as LATCHKEY__SERVER__LISTEN, or unset the variable.",
    ),
    (
        "LATCHKEY_CONFIG_FILE",
        "x",
        "settings: LATCHKEY_CONFIG_FILE: This variable is not read. Write LATCHKEY_CONFIG, with the name of the file.",
    ),
    (
        "RUST_LOG",
        "info//token",
        "settings: RUST_LOG: Only one slash is allowed. It begins a text that messages must contain.",
    ),
    (
        "LATCHKEY__HTTP__PROXY_KEEP_ALIVE",
        "150s",
        "settings: http.proxy_keep_alive (LATCHKEY__HTTP__PROXY_KEEP_ALIVE): Write a whole number of seconds without a unit, such as the default 150.",
    ),
    (
        "LATCHKEY__SERVER__KEEP_ALIVE",
        "1m",
        "settings: server.keep_alive (LATCHKEY__SERVER__KEEP_ALIVE): Write a whole number of seconds without a unit, such as the default 5.",
    ),
    (
        "RUST_LOG",
        "verbose",
        "settings: RUST_LOG: \"verbose\" is not understood. Write a level (off, error, warn, info, debug, trace), or TARGET=LEVEL, such as info,latchkey::access=warn.",
    ),
    (
        "LATCHKEY__REGISTRATION__MODE",
        "off",
        "settings: registration.mode (LATCHKEY__REGISTRATION__MODE): Write \"open\" or \"verified\" or \"invited\" or \"closed\".",
    ),
    (
        "LATCHKEY__REGISTRATION__NAME_MIN_LENGTH",
        "0",
        "settings: registration.name_min_length (LATCHKEY__REGISTRATION__NAME_MIN_LENGTH): 0 is out of range. Write 1 to 100.",
    ),
    (
        "LATCHKEY__REGISTRATION__NAME_MIN_LENGTH",
        "101",
        "settings: registration.name_min_length (LATCHKEY__REGISTRATION__NAME_MIN_LENGTH): 101 is out of range. Write 1 to 100.",
    ),
    (
        "LATCHKEY__REGISTRATION__EMAIL_DOMAINS",
        "example.org,*.example.com",
        "settings: registration.email_domains (LATCHKEY__REGISTRATION__EMAIL_DOMAINS): Entry 2 is not a domain. Write it without @ and without patterns, such as example.org.",
    ),
    (
        "RUST_LOG",
        "latchkey::access=loud",
        "settings: RUST_LOG: \"latchkey::access=loud\" is not understood. Write a level (off, error, warn, info, debug, trace), or TARGET=LEVEL, such as info,latchkey::access=warn.",
    ),
    (
        "RUST_LOG",
        "info;latchkey=debug",
        "settings: RUST_LOG: \"info;latchkey=debug\" is not understood. Write a level (off, error, warn, info, debug, trace), or TARGET=LEVEL, such as info,latchkey::access=warn.",
    ),
    (
        "DATABASE_URL",
        "host=localhost",
        "settings: database.url (DATABASE_URL): Write sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME.",
    ),
    ("DATABASE_URL", "\u{fffd}", "settings: database.url (DATABASE_URL): The value is not text in UTF-8."),
];

#[test]
fn an_invalid_variable_is_rejected_with_a_correction() {
    for (variable, value, expected) in VARIABLES {
        let message = load_error(&[(variable, value)]).unwrap_or_else(|| panic!("{variable}={value} is accepted"));
        assert!(matches(&message, expected), "{variable}={value}: {message}");
    }
}

/// Settings file and error message.
const FILES: &[(&str, &str)] = &[
    (
        "listen = 127.0.0.1:8080",
        "settings: latchkey.toml, line 1: This is not TOML. Write text in quotes (listen = \"…\"), a number without a unit, and true or false in lower case.",
    ),
    (
        "[server]\nlisten = 127.0.0.1:8080",
        "settings: latchkey.toml, line 2: This is not TOML. Write text in quotes (listen = \"…\"), a number without a unit, and true or false in lower case.",
    ),
    (
        "[auth]\n\ntoken_ttl = 24h",
        "settings: latchkey.toml, line 3: This is not TOML. Write text in quotes (token_ttl = \"…\"), a number without a unit, and true or false in lower case.",
    ),
    (
        "[auth]\ntoken_ttl = \"24h\"",
        "settings: auth.token_ttl (latchkey.toml, line 2): Write a whole number of seconds without a unit, such as the default 86400.",
    ),
    (
        "[auth]\ntoken_ttl = 1.5",
        "settings: auth.token_ttl (latchkey.toml, line 2): Write a whole number of seconds without a unit, such as the default 86400.",
    ),
    (
        "[auth]\ntoken_ttl =",
        "settings: latchkey.toml, line 2: The value is missing. Write it after the =, or remove the line.",
    ),
    ("[server]\nlisten = 8080", "settings: server.listen (latchkey.toml, line 2): Write text in quotes: \"…\"."),
    (
        "[server]\nlisten = \"localhost:8080\"",
        "settings: server.listen (latchkey.toml, line 2): Write an IP address and a port, not a host name: 127.0.0.1:8080 for this machine, or 0.0.0.0:8080 for all.",
    ),
    (
        "[server]\nlisten = [\"127.0.0.1:8080\"]",
        "settings: server.listen (latchkey.toml, line 2): Write text in quotes: \"…\".",
    ),
    (
        "[serve]\nlisten = \"x\"",
        "settings: serve (latchkey.toml, line 1): There is no such section. Did you mean [server]?",
    ),
    (
        "[server]\nlistn = \"x\"",
        "settings: server.listn (latchkey.toml, line 2): There is no such setting. Did you mean `listen` in [server]?",
    ),
    (
        "[server]\nport = 8080",
        "settings: server.port (latchkey.toml, line 2): There is no such setting. Settings of [server]: …",
    ),
    (
        "[http]\nlisten = \"x\"",
        "settings: http.listen (latchkey.toml, line 2): [http] has no such setting. `listen` is a setting of [metrics] and [server].",
    ),
    (
        "[server]\nListen = \"127.0.0.1:1\"",
        "settings: server.Listen (latchkey.toml, line 2): There is no such setting. Did you mean `listen` in [server]?",
    ),
    ("[server\nlisten=\"x\"", "settings: latchkey.toml, line 1: This is not TOML: unclosed table, expected `]`."),
    (
        "[server]\nlisten = \"a\nb\"",
        "settings: latchkey.toml, line 3: This is not TOML: key with no value, expected `=`.",
    ),
    ("[auth]\ntoken_ttl = 1\ntoken_ttl = 2", "settings: latchkey.toml, line 3: This is not TOML: duplicate key."),
    ("[auth]\n[server]\n[auth]", "settings: latchkey.toml, line 3: This is not TOML: duplicate key."),
    (
        "[auth]\ntoken_ttl = 0",
        "settings: auth.token_ttl (latchkey.toml, line 2): 0 is out of range. Write 1 to 31536000.",
    ),
    (
        "server = 1",
        "settings: server (latchkey.toml, line 1): This is a section. Write [server], and below it its settings: connections …",
    ),
    (
        "[server.listen]\nx = 1",
        "settings: server.listen (latchkey.toml, line 1): This is a setting, not a section. Write it as NAME = VALUE.",
    ),
    (
        "[http]\ntrusted_proxies = [1]",
        "settings: http.trusted_proxies (latchkey.toml, line 2): Write a list of strings: [\"…\", \"…\"].",
    ),
    (
        "[http]\ntrusted_proxies = 1",
        "settings: http.trusted_proxies (latchkey.toml, line 2): Write a list of strings: [\"…\", \"…\"].",
    ),
    (
        "[http]\ncors_origins = [\"https://app.example.com\", \"https://*.example.com\"]",
        "settings: http.cors_origins (latchkey.toml, line 2): Entry 2: Patterns are not supported. Name each origin, such as https://app.example.com.",
    ),
    (
        "[limits.failed_signins]\nburst = 1",
        "settings: limits.failed_signins (latchkey.toml, line 1): There is no such section. Did you mean [limits.failed_sign_ins]?",
    ),
    (
        "[limits.new_keys]\nburst = 0",
        "settings: limits.new_keys.burst (latchkey.toml, line 2): 0 is out of range. Write 1 to 1000000.",
    ),
    (
        "[limits]\nnew_keys = 5",
        "settings: limits.new_keys (latchkey.toml, line 2): This is a section. Write [limits.new_keys], and below it its settings: burst, per_hour.",
    ),
    (
        "[tls]\ncertificate = \"x.pem\"",
        "settings: tls.certificate (latchkey.toml, line 2): TLS requires two files. Set tls.key too, or remove tls.certificate.",
    ),
    (
        "[[authz.rules]]\npath = \"/a/*\"\npublic = true",
        "settings: authz.rules (latchkey.toml, line 1): rule 1: path: patterns are not supported; a path also matches all paths below it.",
    ),
    (
        "[[authz.rules]]\npublic = true",
        "settings: authz.rules (latchkey.toml, line 1): This setting requires a trusted proxy that states the original request. Name the proxy in http.trusted_proxies.",
    ),
    (
        "[log]\nformat = json",
        "settings: latchkey.toml, line 2: This is not TOML. Write text in quotes (format = \"…\"), a number without a unit, and true or false in lower case.",
    ),
    (
        "[database]\nmigrate_on_start = True",
        "settings: latchkey.toml, line 2: This is not TOML. Write text in quotes (migrate_on_start = \"…\"), a number without a unit, and true or false in lower case.",
    ),
    (
        "[database]\nurl = \"sqlite://a\u{200b}.db\"",
        "settings: database.url (latchkey.toml, line 2): The value contains the invisible character U+200B. Remove it.",
    ),
    (
        "nonsense = 1",
        "settings: nonsense (latchkey.toml, line 1): There is no such section. There are [audit], [auth], …",
    ),
    (
        "[registration]\nmode = \"closed\"\nemail_domains = [\"@example.org\"]",
        "settings: registration.email_domains (latchkey.toml, line 3): Entry 1 is not a domain. Write it without @ and without patterns, such as example.org.",
    ),
    (
        "[registration]\nname_min_length = 5000",
        "settings: registration.name_min_length (latchkey.toml, line 2): 5000 is out of range. Write 1 to 100.",
    ),
    (
        "[auth]\napi_key_token = \"a b\"",
        "settings: auth.api_key_token (latchkey.toml, line 2): Use 1 to 512 visible ASCII characters, without a comma.",
    ),
];

#[test]
fn an_invalid_file_is_rejected_with_the_line_and_a_correction() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("latchkey.toml");
    let load = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        let message = Settings::load(Some(&file), []).err().map(|error| error.to_string());
        message.map(|message| message.replace(file.to_str().unwrap(), "latchkey.toml"))
    };
    for (text, expected) in FILES {
        let message = load(text.as_bytes()).unwrap_or_else(|| panic!("{text} is accepted"));
        assert!(matches(&message, expected), "{text}: {message}");
    }
    assert_eq!(load(b"\xff\xfe[\0").unwrap(), file_error("The file is in UTF-16. Save it as UTF-8."));
    assert_eq!(load(b"[auth]\n# caf\xe9\n").unwrap(), file_error("The file is not text in UTF-8."));
    assert_eq!(load(&vec![b'#'; 1024 * 1024 + 1]).unwrap(), file_error("The file is larger than 1048576 bytes."));
    for valid in ["\u{feff}[auth]\r\ntoken_ttl = 60\r\n", "auth.token_ttl = 60", "[auth]\ntoken_ttl = \" 60 \""] {
        assert_eq!(load(valid.as_bytes()), None, "{valid:?}");
        assert_eq!(Settings::load(Some(&file), []).unwrap().auth.token_ttl, 60, "{valid:?}");
    }
    for missing in [home.path().join("missing.toml"), home.path().to_owned()] {
        let message = Settings::load(Some(&missing), []).unwrap_err().to_string();
        assert!(message.contains("--config or LATCHKEY_CONFIG"), "{message}");
    }
}

/// An error message about the settings file as a whole.
fn file_error(message: &str) -> String {
    format!("settings: latchkey.toml: {message} The file is the one that --config or LATCHKEY_CONFIG names.")
}

/// Contents of a file with a secret, and error message.
const SECRETS: &[(&[u8], &str)] = &[
    (b"", "The file is empty. Write the value into it, or unset the variable."),
    (b" \r\n\t\n", "The file is empty. Write the value into it, or unset the variable."),
    (b"sqlite://a.db\nsqlite://b.db\n", "The file contains 2 lines. It must contain one line with the value."),
    (b"sqlite://a.db\r\n\r\nsqlite://b.db", "The file contains 3 lines. It must contain one line with the value."),
];

#[test]
fn a_secret_file_must_contain_one_line_of_text() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("secret");
    for variable in ["DATABASE_URL_FILE", "LATCHKEY__DATABASE__URL_FILE", "LATCHKEY__AUTH__API_KEY_TOKEN_FILE"] {
        let error_for = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            load_error(&[(variable, file.to_str().unwrap())])
        };
        for (bytes, expected) in SECRETS {
            assert_eq!(error_for(bytes), Some(format!("settings: {variable}: {expected}")), "{bytes:?}");
        }
        for (bytes, expected) in [
            (&b"\xff\xfea\0"[..], "UTF-16"),
            (b"caf\xe9", "UTF-8"),
            (b"sqlite\0.db", "U+0000"),
            ("sqlite\u{200b}.db".as_bytes(), "U+200B"),
            (&[b'a'; 65 * 1024], "65536 bytes"),
        ] {
            let message = error_for(bytes).unwrap();
            assert!(message.contains(expected) && message.contains(variable), "{message}");
        }
        for valid in ["sqlite.db", "sqlite.db\n", "sqlite.db\r\n", "\u{feff}sqlite.db\r\n\r\n", "\nsqlite.db "] {
            assert_eq!(error_for(valid.as_bytes()), None, "{valid:?}");
        }
        for invalid in ["", home.path().to_str().unwrap(), "/nonexistent/file"] {
            let message = load_error(&[(variable, invalid)]).unwrap();
            assert!(message.starts_with(&format!("settings: {variable}: ")), "{message}");
            assert!(!message.contains("nonexistent"), "the value may be a secret by mistake: {message}");
        }
        let (error, name) = (error_for(b"sqlite.db"), variable.strip_suffix("_FILE").unwrap());
        assert_eq!(error, None);
        let both = load_error(&[(variable, file.to_str().unwrap()), (name, "sqlite.db")]).unwrap();
        assert!(both.contains(&format!("{name} is also set")), "{both}");
    }
    std::fs::write(&file, "sqlite.db\n").unwrap();
    let settings = Settings::load(None, [("DATABASE_URL_FILE".to_owned(), file.to_str().unwrap().to_owned())]).unwrap();
    assert_eq!(settings.database.url.to_string(), "sqlite://sqlite.db");
}

#[test]
fn blanks_around_a_value_are_ignored() {
    let environment = [
        ("LATCHKEY__SERVER__LISTEN", " 127.0.0.1:9000\r"),
        ("LATCHKEY__AUTH__TOKEN_TTL", "60 "),
        ("LATCHKEY__DATABASE__MIGRATE_ON_START", " Off\n"),
        ("LATCHKEY__HTTP__CORS_ORIGINS", " https://a.example.com , https://b.example.com,"),
        ("LATCHKEY__AUTH__API_KEY_TOKEN", "a-key\n"),
        ("DATABASE_URL", " sqlite://a.db\r\n"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::load(None, environment).unwrap();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:9000");
    assert_eq!((settings.auth.token_ttl, settings.database.migrate_on_start), (60, false));
    assert_eq!(settings.http.cors_origins.all(), ["https://a.example.com", "https://b.example.com"]);
    assert_eq!(settings.auth.api_key_token.get(), Some("a-key"));
    assert_eq!(settings.database.url.to_string(), "sqlite://a.db");
}

#[test]
fn mails_require_a_sender_a_page_and_an_encrypted_password() {
    let from = ("LATCHKEY__MAIL__FROM", "no-reply@example.org");
    let page = ("LATCHKEY__HTTP__PUBLIC_URL", "https://auth.example.org");
    let clear = ("LATCHKEY__MAIL__STARTTLS", "none");
    let url = |url| ("LATCHKEY__MAIL__URL", url);
    let (open, secret) = (url("smtp://mail.example.org"), url("smtp://ada:secret@mail.example.org"));
    for valid in [
        vec![open, from, page],
        vec![open, from, page, clear],
        vec![secret, from, page],
        vec![url("smtps://ada:secret@mail.example.org"), from, page, clear],
        vec![url("smtp://ada:secret@localhost"), from, page, clear],
        vec![url("smtp://ada:secret@127.0.0.1:2525"), from, page, clear],
        vec![open, from, ("LATCHKEY__LINKS__URL", "https://app.example.org/account")],
    ] {
        assert_eq!(load_error(&valid), None, "{valid:?}");
    }
    for (variables, expected) in [
        (vec![open, page], "settings: mail.from: mail.url is set, so this is required. "),
        (
            vec![secret, from, page, clear],
            "settings: mail.starttls (LATCHKEY__MAIL__STARTTLS): This would send the password of mail.url over the \
             network in clear. ",
        ),
        (
            vec![open, from],
            "settings: mail.url (LATCHKEY__MAIL__URL): Mails contain links. Set http.public_url with console.enabled, ",
        ),
        (
            vec![open, from, page, ("LATCHKEY__CONSOLE__ENABLED", "false")],
            "settings: mail.url (LATCHKEY__MAIL__URL): Mails contain links. ",
        ),
        (
            vec![("LATCHKEY__MAIL__TEMPLATES", "/nonexistent")],
            "settings: mail.templates (LATCHKEY__MAIL__TEMPLATES): This is not a directory. ",
        ),
        (
            vec![("LATCHKEY__MAIL__CONNECT_TIMEOUT", "20")],
            "settings: mail.send_timeout: 15 is out of range. Write 20 to 300.",
        ),
    ] {
        let message = load_error(&variables).unwrap_or_else(|| panic!("{variables:?} is accepted"));
        assert!(message.starts_with(expected), "{variables:?}: {message}");
    }
    for (name, low, high) in [
        ("MAIL__CONNECT_TIMEOUT", "0", "61"),
        ("MAIL__SEND_TIMEOUT", "9", "301"),
        ("MAIL__ANSWER_TIMEOUT", "0", "601"),
        ("LINKS__PASSWORD_RESET_MINUTES", "4", "1441"),
        ("LINKS__VERIFICATION_HOURS", "0", "169"),
        ("LINKS__EMAIL_CHANGE_MINUTES", "4", "1441"),
        ("LINKS__INVITATION_HOURS", "0", "337"),
    ] {
        for value in [low, high] {
            let message = load_error(&[(&format!("LATCHKEY__{name}"), value)]).unwrap_or_default();
            assert!(message.contains(&format!("{value} is out of range. Write ")), "{name}={value}: {message}");
        }
    }
}

#[test]
fn two_listeners_cannot_have_one_port_on_the_same_address() {
    for (server, metrics, is_allowed) in [
        ("127.0.0.1:9090", "127.0.0.1:9090", false),
        ("0.0.0.0:9090", "127.0.0.1:9090", false),
        ("127.0.0.1:9090", "0.0.0.0:9090", false),
        ("[::]:9090", "127.0.0.1:9090", false),
        ("[::ffff:127.0.0.1]:9090", "127.0.0.1:9090", false),
        ("127.0.0.2:9090", "127.0.0.1:9090", true),
        ("0.0.0.0:8080", "127.0.0.1:9090", true),
        ("0.0.0.0:0", "127.0.0.1:0", true),
        ("0.0.0.0:9090", "", true),
    ] {
        let error = load_error(&[("LATCHKEY__SERVER__LISTEN", server), ("LATCHKEY__METRICS__LISTEN", metrics)]);
        let is_refused = error.as_ref().is_some_and(|error| error.contains("server.listen uses the same address"));
        assert_eq!(error.is_none(), is_allowed, "{server} {metrics}: {error:?}");
        assert_eq!(is_refused, !is_allowed, "{server} {metrics}: {error:?}");
    }
}

#[test]
fn variables_of_other_programs_are_ignored() {
    for (variable, value) in [
        // Kubernetes sets these for services named latchkey or latchkey-metrics.
        ("LATCHKEY_SERVICE_HOST", "10.0.0.1"),
        ("LATCHKEY_SERVICE_PORT", "8080"),
        ("LATCHKEY_SERVICE_PORT_HTTP", "8080"),
        ("LATCHKEY_PORT", "tcp://10.0.0.1:8080"),
        ("LATCHKEY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("LATCHKEY_PORT_8080_TCP_PROTO", "tcp"),
        ("LATCHKEY_PORT_8080_TCP_PORT", "8080"),
        ("LATCHKEY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("LATCHKEY_METRICS_SERVICE_HOST", "10.0.0.1"),
        // The client of docs/clients.md reads it.
        ("LATCHKEY_URL", "http://127.0.0.1:8080"),
        ("GITEA__SERVER__LISTEN", "x"),
        ("RUST_LOG", ""),
        ("RUST_LOG", "info,actix_server=warn,latchkey::access=off"),
        ("RUST_LOG", "latchkey=debug,WARN"),
        ("RUST_LOG", "latchkey::audit"),
    ] {
        assert_eq!(load_error(&[(variable, value)]), None, "{variable}={value}");
    }
}

#[test]
fn files_and_addresses_named_by_settings_must_exist() {
    let home = TempDir::new().unwrap();
    let error_of = |variables: &[(&str, &str)], command: &str| {
        let mut command = latchkey(home.path(), &[command]);
        command.env("LATCHKEY__SERVER__LISTEN", "127.0.0.1:0").envs(variables.iter().copied());
        failure(&run(&mut command)).replace(home.path().to_str().unwrap(), "HOME")
    };
    let working_directory = |path: &Path| path.canonicalize().unwrap();
    assert_eq!(working_directory(home.path()), home.path(), "the messages contain this path");
    for (variables, command, expected) in [
        (
            &[("DATABASE_URL", "sqlite://var/lib/latchkey.db")][..],
            "serve",
            "settings: database.url (DATABASE_URL): The directory var/lib does not exist. Create it, or name another. \
             It is relative to HOME. For an absolute path write a third slash: sqlite:///var/lib/latchkey.db.",
        ),
        (
            &[("DATABASE_URL", "/nonexistent/latchkey.db")],
            "serve",
            "settings: database.url (DATABASE_URL): The directory /nonexistent does not exist. Create it, or name \
             another.",
        ),
        (
            &[("DATABASE_URL", "/")],
            "serve",
            "settings: database.url (DATABASE_URL): / is a directory. Name a file in it, such as /latchkey.db.",
        ),
        (
            &[("LATCHKEY__TLS__CERTIFICATE", "/nonexistent/a.pem"), ("LATCHKEY__TLS__KEY", "b.pem")],
            "serve",
            "settings: tls.certificate (LATCHKEY__TLS__CERTIFICATE): cannot read /nonexistent/a.pem: No such file or \
             directory (os error 2). Name a file in PEM that this process may read.",
        ),
        (
            &[("LATCHKEY__SERVER__LISTEN", "192.0.2.1:80")],
            "serve",
            "settings: server.listen (LATCHKEY__SERVER__LISTEN): cannot listen on 192.0.2.1:80: Cannot assign requested \
             address (os error 99). This machine does not have this address. 0.0.0.0 means all its addresses.",
        ),
        (
            &[("LATCHKEY__SERVER__LISTEN", "127.0.0.1:1")],
            "health",
            "http://127.0.0.1:1/health/ready: Connection refused (os error 111). Is the server running? The address is \
             server.listen (LATCHKEY__SERVER__LISTEN).",
        ),
        (
            &[],
            "health",
            "http://127.0.0.1:0/health/ready: port 0 cannot be checked. Set the port of the running server: \
             server.listen (LATCHKEY__SERVER__LISTEN).",
        ),
        (
            &[("LATCHKEY__AUTH__SERVE_STALE_SECONDS", "30"), ("LATCHKEY__AUTH__CACHE_SIZE", "0")],
            "serve",
            "settings: auth.serve_stale_seconds (LATCHKEY__AUTH__SERVE_STALE_SECONDS): This serves cached credentials, but \
             auth.cache_size is 0. Set auth.cache_size, or set this to 0.",
        ),
        (
            &[("LATCHKEY_CONFIG", "")],
            "config",
            "LATCHKEY_CONFIG is empty. Name a settings file, or unset the variable.",
        ),
    ] {
        assert_eq!(error_of(variables, command), format!("latchkey: {expected}\n"), "{variables:?} {command}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was created");
}

#[test]
fn swapped_or_encrypted_tls_files_are_reported_as_such() {
    let home = TempDir::new().unwrap();
    let file = |name: &str, label: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")).unwrap();
        path
    };
    let (certificate, key) = (file("a.pem", "CERTIFICATE"), file("b.pem", "PRIVATE KEY"));
    let encrypted = file("c.pem", "ENCRYPTED PRIVATE KEY");
    for (first, second, expected) in [
        (&key, &certificate, "tls.certificate (LATCHKEY__TLS__CERTIFICATE)"),
        (&key, &certificate, "which belongs in tls.key"),
        (&certificate, &certificate, "which belongs in tls.certificate"),
        (&certificate, &encrypted, "openssl pkey -in FILE -out NEW"),
    ] {
        let mut command = latchkey(home.path(), &["serve"]);
        command.env("LATCHKEY__TLS__CERTIFICATE", first).env("LATCHKEY__TLS__KEY", second);
        let message = failure(&run(command.env("LATCHKEY__SERVER__LISTEN", "127.0.0.1:0")));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_config_command_prints_a_valid_settings_file() {
    let home = TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &["config"]);
    command.env("LATCHKEY__HTTP__CORS_ORIGINS", "https://a.example.com,https://b.example.com");
    let shown = out(&run(&mut command));
    let line = "cors_origins = [\"https://a.example.com\", \"https://b.example.com\"] # LATCHKEY__HTTP__CORS_ORIGINS";
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
    let file = home.path().join("latchkey.toml");
    std::fs::write(&file, &shown).unwrap();
    assert_eq!(Settings::load(Some(&file), []).unwrap().http.cors_origins.all().len(), 2);
}

#[test]
fn an_empty_log_filter_is_ignored() {
    let home = TempDir::new().unwrap();
    Serving::start(latchkey(home.path(), &[]).env("RUST_LOG", " ")).line("listening on http");
}
