//! Runs the program under strace, and lists every address that it connects or sends to.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::installed;

/// An address of IPv4 or IPv6, as strace writes it.
pub const NETWORK: &str = "sa_family=AF_INET";
/// How long strace may take to write its last line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether there is strace; `None`, after one clear line, if not.
pub fn strace() -> Option<()> {
    let asked = Command::new("strace").arg("--version").output().ok();
    installed(asked, "STRACE", "strace").map(drop)
}

/// The command, watched: every address that it says to the system goes to `file`.
pub fn watched(command: &Command, file: &Path) -> Command {
    let mut strace = Command::new("strace");
    // The tracer is a process beside the program, which stays our child.
    strace.args(["-D", "-f", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]).arg(file);
    strace.arg(command.get_program()).args(command.get_args()).env_clear();
    strace.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    strace.current_dir(command.get_current_dir().unwrap());
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    strace
}

/// What strace saw, once the program has ended.
pub fn seen(file: &Path, process: u32) -> String {
    let started = Instant::now();
    loop {
        let seen = fs::read_to_string(file).unwrap();
        let ended = |line: &str| line.starts_with(&format!("{process} ")) && line.contains("+++ exited with 0 +++");
        if seen.lines().any(ended) {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "strace does not end: {seen}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What of it is an address on the network.
pub fn outgoing(seen: &str) -> Vec<&str> {
    seen.lines().filter(|line| line.contains(NETWORK)).collect()
}
