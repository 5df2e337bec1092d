//! The command line: arguments, output and exit codes.

mod audit;
mod backup;
mod copy;
mod health;
mod key;
mod mail;
mod migrate;
mod openapi;
mod packaging;
mod password;
mod progress;
mod role;
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

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::config::{ConfigError, Settings};
use crate::domain::email::EmailAddress;
use crate::domain::user::User;
use crate::error::AppError;
use crate::service::Service;
use crate::{logging, metrics};

/// How long the process waits for running queries before it exits.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong arguments, 3 `user create --if-absent` found the \
    user in another role or disabled";
/// Exit code of `user create --if-absent` if the user exists in another role or is disabled.
const EXIT_USER_DIFFERS: u8 = 3;

/// The result of a command. The error is its message.
type Outcome = Result<(), Box<dyn Error>>;

/// A self-hosted authentication API in one process.
#[derive(Parser)]
#[command(name = "latchkey", version, after_help = EXIT_CODES)]
struct Arguments {
    /// Settings file (TOML). Environment variables override it
    #[arg(long, global = true, env = "LATCHKEY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<AnyCommand>,
}

#[derive(Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    Operating(Command),
    #[command(flatten)]
    Packaging(packaging::PackagingCommand),
}

/// A command that reads the settings.
#[derive(Subcommand)]
enum Command {
    /// Serve the API (the default)
    Serve,
    /// Apply, revert or list migrations
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Manage users
    User(Operation<user::UserCommand>),
    /// Show roles
    Role(Operation<role::RoleCommand>),
    /// Manage API keys
    Key(Operation<key::KeyCommand>),
    /// Manage sign-in tokens
    Token(Operation<token::TokenCommand>),
    /// Test the settings of mails, and write the templates
    Mail(Operation<mail::MailCommand>),
    /// Read, export and prune the audit trail
    Audit(Operation<audit::AuditCommand>),
    /// Make, verify and restore backups
    Backup(Operation<backup::BackupCommand>),
    /// Copy the database to another one: from SQLite to PostgreSQL, or back
    Copy(copy::Copy),
    /// Print the OpenAPI document
    Openapi,
    /// Print regular expressions that find Latchkey's secrets, one per line
    ScanRegex,
    /// Print the settings in force and where each was set, with secrets masked
    Config,
    /// Check that the running server is ready. Exits with 0 if it is, with 1 if not
    Health,
}

/// A command on stored data, with the option `--json`.
#[derive(Args)]
struct Operation<C: Subcommand> {
    /// Print JSON, one object per line. Objects that the API also returns have the same members
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: C,
}

/// The output format of a command.
#[derive(Clone, Copy)]
struct Output {
    json: bool,
}

impl Output {
    /// Prints `value` as a line of JSON with `--json`, and `line` without.
    fn show(self, value: &impl Serialize, line: impl Display) -> Outcome {
        if self.json {
            print(format_args!("{}\n", serde_json::to_string(value)?))
        } else {
            print(format_args!("{line}\n"))
        }
    }
}

/// Finds the user with an e-mail address. Errors: the message for an invalid or unknown address.
async fn user_by_email(service: &Service, email: &str) -> Result<User, String> {
    let address = EmailAddress::parse(email).ok_or_else(|| format!("{email:?} is not an e-mail address"))?;
    service.user_by_email(&address).await.map_err(explain)
}

/// Formats an error for the command line, with one line for each bad field.
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
        AppError::TooMany { limit, retry_after } => {
            format!("the limit of {limit} is reached. Try again in {retry_after} s")
        }
        error => error.to_string(),
    }
}

/// Parses the id of a key.
fn key_id(text: &str) -> Result<i64, &'static str> {
    text.parse().ok().filter(|id| *id > 0).ok_or("use the id in the first column of `latchkey key list`")
}

/// Prints to standard output. A reader that has closed the pipe is not an error.
fn print(text: impl Display) -> Outcome {
    match write!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Runs the command from the arguments of the process, and returns its exit code.
pub fn run() -> ExitCode {
    metrics::process::record_start();
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
            if error.is::<user::UserDiffers>() { ExitCode::from(EXIT_USER_DIFFERS) } else { ExitCode::FAILURE }
        }
    }
}

fn execute(arguments: Arguments) -> Outcome {
    let command = match arguments.command {
        None => Command::Serve,
        Some(AnyCommand::Operating(command)) => command,
        Some(AnyCommand::Packaging(command)) => return packaging::package(command, Arguments::command()),
    };
    let settings = settings(arguments.config.as_deref())?;
    let _log = logging::start(settings.log.format)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = match command {
        Command::Serve => runtime.block_on(serve::serve(&settings)),
        Command::Migrate(command) => runtime.block_on(migrate::migrate(&settings, &command)),
        Command::User(Operation { json, command }) => runtime.block_on(user::user(&settings, command, Output { json })),
        Command::Role(Operation { json, command }) => runtime.block_on(role::role(&settings, command, Output { json })),
        Command::Key(Operation { json, command }) => runtime.block_on(key::key(&settings, command, Output { json })),
        Command::Token(Operation { json, command }) => {
            runtime.block_on(token::token(&settings, command, Output { json }))
        }
        Command::Mail(Operation { json, command }) => runtime.block_on(mail::mail(&settings, command, Output { json })),
        Command::Audit(Operation { json, command }) => {
            runtime.block_on(audit::audit(&settings, command, Output { json }))
        }
        Command::Backup(Operation { json, command }) => backup::backup(&settings, command, Output { json }),
        Command::Copy(command) => copy::copy(&settings, &command),
        Command::Openapi => openapi::print(&settings),
        Command::ScanRegex => scan_regex::print(),
        Command::Config => show_config::print(&settings),
        Command::Health => health::check(&settings),
    };
    // A query without a response must not block the end of the process.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    outcome
}

fn settings(file: Option<&Path>) -> Result<Settings, ConfigError> {
    // A variable whose name is not UTF-8 is not one of Latchkey's. Invalid bytes of a value are replaced, so that the
    // error message shows them.
    let to_utf8 =
        |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned()));
    Settings::load(file, std::env::vars_os().filter_map(to_utf8))
}
