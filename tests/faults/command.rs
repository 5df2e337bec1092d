//! The command that most fault tests run.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::support::program::latchkey;

/// `latchkey serve` in this directory, on this database, without limits per client, which a load would reach.
pub fn without_limits(directory: &Path, url: impl AsRef<OsStr>) -> Command {
    let mut command = latchkey(directory, &[]);
    command.env("DATABASE_URL", url).env("LATCHKEY__LIMITS__ENABLED", "false");
    command
}
