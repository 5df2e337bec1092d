//! The program itself, as its users run it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::client::Client;

/// The program in an empty directory and an empty environment.
pub fn latchkey(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.env_clear().env("LATCHKEY__AUTH__BCRYPT_COST", "10").current_dir(directory).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

pub fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command that must fail says on standard error.
pub fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A serving process, killed when dropped.
pub struct Serving {
    pub child: Child,
    lines: Receiver<String>,
    /// Whether every line must be a JSON object.
    json: bool,
}

impl Serving {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.env("LATCHKEY__SERVER__LISTEN", "127.0.0.1:0").spawn().expect("the program runs");
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let json =
            command.get_envs().any(|(key, value)| key == "LATCHKEY__LOG__FORMAT" && value == Some("json".as_ref()));
        Self { child, lines, json }
    }

    /// The next line of the log that contains `text`.
    pub fn line(&self, text: &str) -> String {
        loop {
            let line =
                self.lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no line with {text:?}"));
            if self.json {
                let object: serde_json::Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(object.is_object(), "{line}");
            }
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Every line of the log from now to the end, which is awaited.
    pub fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.recv_timeout(Duration::from_secs(20)).ok()).collect()
    }

    pub fn address(&self) -> String {
        let line = self.line("listening on http");
        let (_, address) = line.split_once("://").unwrap();
        address.trim_end_matches(['"', '}']).split('"').next().unwrap().to_owned()
    }

    /// Somebody who talks to it, over plain HTTP.
    pub fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address()))
    }

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
