//! Runs the program as a process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::client::Client;

/// The program with `directory` as the working directory and an empty environment except for a low bcrypt cost.
pub fn latchkey(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.env_clear().env("LATCHKEY__AUTH__BCRYPT_COST", "10").current_dir(directory).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command until it ends.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

/// Runs a command with `input` on standard input until it ends.
pub fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Asserts success; returns the standard output.
pub fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts failure; returns the standard error.
pub fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server process. It is killed when dropped.
pub struct Serving {
    pub child: Child,
    lines: Receiver<String>,
    /// Whether each log line must be a JSON object.
    json: bool,
}

impl Serving {
    /// Starts the server on a free port of 127.0.0.1.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.env("LATCHKEY__SERVER__LISTEN", "127.0.0.1:0").spawn().expect("the program runs");
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let json =
            command.get_envs().any(|(key, value)| key == "LATCHKEY__LOG__FORMAT" && value == Some("json".as_ref()));
        Self { child, lines, json }
    }

    /// Waits for the next log line that contains `text`; panics after 20 s without a line.
    pub fn line(&self, text: &str) -> String {
        self.line_within(text, Duration::from_secs(20))
    }

    /// Waits for the next log line that contains `text`; panics after this time without a line.
    pub fn line_within(&self, text: &str, limit: Duration) -> String {
        self.lines_until(text, limit).pop().unwrap_or_default()
    }

    /// The log lines up to the next one that contains `text`; panics after this time without a line.
    pub fn lines_until(&self, text: &str, limit: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.lines.recv_timeout(limit);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} after {lines:#?}"));
            if self.json {
                let object: serde_json::Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(object.is_object(), "{line}");
            }
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    /// The remaining log lines, up to the end of the process; stops after 20 s without a line.
    pub fn remaining_lines(&self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.recv_timeout(Duration::from_secs(20)).ok()).collect()
    }

    /// Waits for the address that the server listens on, such as `127.0.0.1:8080`.
    pub fn address(&self) -> String {
        let line = self.line("listening on http");
        let (_, address) = line.split_once("://").unwrap();
        address.trim_end_matches(['"', '}']).split('"').next().unwrap().to_owned()
    }

    /// Waits for the URL of the metrics. Call this before [`Self::address`].
    pub fn metrics_url(&self) -> String {
        let line = self.line("metrics on http://");
        line.split_once("metrics on ").unwrap().1.split('"').next().unwrap().trim().to_owned()
    }

    /// A client of the server, over plain HTTP. Waits for the address.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address()))
    }

    /// Sends a signal, named as an option of `kill`, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
