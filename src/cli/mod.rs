//! The command line.

mod audit;
mod health;
mod key;
mod migrate;
mod openapi;
mod password;
mod scan_regex;
mod serve;
mod show_config;
mod token;
mod user;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::config::{ConfigError, Settings};
use crate::domain::email::EmailAddress;
use crate::domain::user::User;
use crate::error::AppError;
use crate::logging;
use crate::service::Service;

/// How long queries that nobody waits for are let go on at the end.
const LAST_QUERIES: Duration = Duration::from_millis(500);

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong arguments, 3 `user create --if-absent` found the \
    user in another role or disabled";
/// The exit code of `user create --if-absent` for a user who is there and is not as asked.
const DIFFERS: u8 = 3;

/// What a command answers: its own words on failure.
type Outcome = Result<(), Box<dyn Error>>;

/// A self-hosted authentication API in one process.
#[derive(Parser)]
#[command(name = "latchkey", version, after_help = EXIT_CODES)]
struct Arguments {
    /// Settings file (TOML). Environment variables override it
    #[arg(long, global = true, env = "LATCHKEY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (the default)
    Serve,
    /// Apply, revert or list migrations
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Manage users
    User(Operation<user::UserCommand>),
    /// Manage API keys
    Key(Operation<key::KeyCommand>),
    /// Manage sign-in tokens
    Token(Operation<token::TokenCommand>),
    /// Read the audit trail
    Audit(Operation<audit::AuditCommand>),
    /// Print the OpenAPI document
    Openapi,
    /// Print regular expressions that find Latchkey's secrets, one per line
    ScanRegex,
    /// Print the settings in force and where each was set, secrets masked
    Config,
    /// Check that the running server is ready. Exits with 0 if it is, with 1 if not
    Health,
}

/// A command on accounts, and how it answers.
#[derive(Args)]
struct Operation<C: Subcommand> {
    /// Print JSON, one object per line, as the API returns it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: C,
}

/// How a command answers.
#[derive(Clone, Copy)]
struct Output {
    json: bool,
}

impl Output {
    /// Prints `value` as a line of JSON, or else `line`.
    fn show(self, value: &impl Serialize, line: impl Display) -> Outcome {
        if self.json {
            print(format_args!("{}\n", serde_json::to_string(value)?))
        } else {
            print(format_args!("{line}\n"))
        }
    }
}

/// The user whom an operator means.
async fn user_named(service: &Service, email: &str) -> Result<User, String> {
    let address = EmailAddress::parse(email).ok_or_else(|| format!("{email:?} is not an e-mail address"))?;
    service.user_by_email(&address).await.map_err(explain)
}

/// On the command line each bad field gets its line.
fn explain(error: AppError) -> String {
    match error {
        AppError::Invalid(errors) => {
            let lines = errors.iter().map(|error| match error.field.as_str() {
                "" => error.message.clone(),
                field => format!("{field}: {}", error.message),
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        AppError::Conflict { detail, .. } => detail.to_owned(),
        error => error.to_string(),
    }
}

/// The number of a key.
fn id(text: &str) -> Result<i64, &'static str> {
    text.parse().ok().filter(|id| *id > 0).ok_or("use the number that `latchkey key list` shows first")
}

/// Prints to standard output. Whoever stopped reading has read enough.
fn print(text: impl Display) -> Outcome {
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    if std::env::var_os("LATCHKEY_CONFIG").is_some_and(|file| file.is_empty()) {
        eprintln!("latchkey: LATCHKEY_CONFIG is empty. Name a settings file, or unset the variable.");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // libpq ends its messages with a line break.
            eprintln!("latchkey: {}", error.to_string().trim_end());
            if error.is::<user::Differs>() { ExitCode::from(DIFFERS) } else { ExitCode::FAILURE }
        }
    }
}

fn execute(arguments: Arguments) -> Outcome {
    let settings = settings(arguments.config.as_deref())?;
    let _log = logging::start(settings.log.format)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => runtime.block_on(serve::serve(&settings)),
        Command::Migrate(command) => runtime.block_on(migrate::migrate(&settings, &command)),
        Command::User(Operation { json, command }) => runtime.block_on(user::user(&settings, command, Output { json })),
        Command::Key(Operation { json, command }) => runtime.block_on(key::key(&settings, command, Output { json })),
        Command::Token(Operation { json, command }) => {
            runtime.block_on(token::token(&settings, command, Output { json }))
        }
        Command::Audit(Operation { json, command }) => {
            runtime.block_on(audit::audit(&settings, command, Output { json }))
        }
        Command::Openapi => openapi::print(&settings),
        Command::ScanRegex => scan_regex::print(),
        Command::Config => show_config::print(&settings),
        Command::Health => health::ask(&settings),
    };
    // A query that a database never answers must not keep the process.
    runtime.shutdown_timeout(LAST_QUERIES);
    outcome
}

fn settings(file: Option<&Path>) -> Result<Settings, ConfigError> {
    // A name that is not UTF-8 is none of ours. A value that is not stays visible as an odd one.
    let readable =
        |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned()));
    Settings::load(file, std::env::vars_os().filter_map(readable))
}
