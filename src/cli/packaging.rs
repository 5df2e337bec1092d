//! The commands `latchkey completions` and `latchkey man`, for packages of the program. They read no settings.

use std::path::PathBuf;

use clap::{Command, Subcommand};
use clap_complete::Shell;

use super::{Outcome, print};

#[derive(Subcommand)]
pub(super) enum PackagingCommand {
    /// Print a script that completes commands and options in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages of all commands to a directory
    Man {
        /// The directory. It is created if it does not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// Runs a command. `program` describes the whole command line.
pub(super) fn package(command: PackagingCommand, mut program: Command) -> Outcome {
    match command {
        PackagingCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, "latchkey", &mut script);
            print(String::from_utf8(script)?)
        }
        PackagingCommand::Man { directory } => {
            let written =
                std::fs::create_dir_all(&directory).and_then(|()| clap_mangen::generate_to(program, &directory));
            written.map_err(|error| format!("cannot write to {}: {error}", directory.display()))?;
            Ok(())
        }
    }
}
