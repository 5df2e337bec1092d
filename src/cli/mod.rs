//! The command line.

mod audit;
mod health;
mod key;
mod migrate;
mod openapi;
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

/// What a command answers: its own words on failure.
type Outcome = Result<(), Box<dyn Error>>;

/// A self-hosted authentication API in one process.
#[derive(Parser)]
#[command(name = "latchkey", version)]
struct Arguments {
    /// Settings file (TOML); the environment comes on top of it
    #[arg(long, global = true, env = "LATCHKEY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (the default)
    Serve,
    /// Change or show the database schema
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
    /// Print patterns that find secrets of Latchkey in other people's files, one to a line
    ScanRegex,
    /// Print the settings in force, secrets masked
    Config,
    /// Ask a running server whether it is ready; the exit code tells
    Health,
}

/// A command on accounts, and how it answers.
#[derive(Args)]
struct Operation<C: Subcommand> {
    /// Answer JSON, one object per line, as the API does
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

/// Prints to standard output. Whoever stopped reading has read enough.
fn print(text: impl Display) -> Outcome {
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // libpq ends its messages with a line break.
            eprintln!("latchkey: {}", error.to_string().trim_end());
            ExitCode::FAILURE
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
