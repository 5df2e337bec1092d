//! The command line.

mod health;
mod migrate;
mod openapi;
mod serve;
mod show_config;
mod user;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Settings};
use crate::logging;

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
    #[command(subcommand)]
    User(user::UserCommand),
    /// Print the OpenAPI document
    Openapi,
    /// Print the settings in force, secrets masked
    Config,
    /// Ask a running server whether it is ready; the exit code tells
    Health,
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
    logging::start(settings.log.format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => runtime.block_on(serve::serve(&settings)),
        Command::Migrate(command) => runtime.block_on(migrate::migrate(&settings, &command)),
        Command::User(command) => runtime.block_on(user::user(&settings, command)),
        Command::Openapi => openapi::print(&settings),
        Command::Config => show_config::print(&settings),
        Command::Health => health::ask(&settings),
    }
}

fn settings(file: Option<&Path>) -> Result<Settings, ConfigError> {
    // A name that is not UTF-8 is none of ours. A value that is not stays visible as an odd one.
    let readable =
        |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned()));
    Settings::load(file, std::env::vars_os().filter_map(readable))
}
