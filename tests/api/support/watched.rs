//! Runs the program under strace, and lists the network addresses that it connects or sends to.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::installed;

/// The beginning of an IPv4 or IPv6 address in the output of strace.
pub const NETWORK: &str = "sa_family=AF_INET";
/// The longest time until strace has written its last line.
const TRACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks that strace is installed; otherwise returns `None` and lists the test as skipped.
pub fn require_strace() -> Option<()> {
    let found = Command::new("strace").arg("--version").output().ok();
    installed(found, "STRACE", "strace").map(drop)
}

/// The command under strace, which writes each system call with an address to `file`.
pub fn under_strace(command: &Command, file: &Path) -> Command {
    let mut strace = Command::new("strace");
    // With -D the program, not strace, is the child of this process.
    strace.args(["-D", "-f", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]).arg(file);
    strace.arg(command.get_program()).args(command.get_args()).env_clear();
    strace.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    strace.current_dir(command.get_current_dir().unwrap());
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    strace
}

/// The output of strace, after the program with this process id has ended.
pub fn trace_of(file: &Path, process: u32) -> String {
    let started = Instant::now();
    loop {
        let trace = fs::read_to_string(file).unwrap();
        let ended = |line: &str| line.starts_with(&format!("{process} ")) && line.contains("+++ exited with 0 +++");
        if trace.lines().any(ended) {
            return trace;
        }
        assert!(started.elapsed() < TRACE_TIMEOUT, "strace does not end: {trace}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The lines of a trace with a network address.
pub fn network_calls(trace: &str) -> Vec<&str> {
    trace.lines().filter(|line| line.contains(NETWORK)).collect()
}
