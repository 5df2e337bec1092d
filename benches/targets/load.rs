//! Load: wrk for throughput, and a client that asks at a steady pace for what a patient user waits.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections that wrk keeps busy.
const CONNECTIONS: u32 = 16;
/// Requests a second of the steady client.
const PACE: u32 = 50;

/// Connections that wrk keeps busy with changes.
const WRITERS: u32 = 32;

/// Presents one token after the other and tells the outcome as JSON.
const SCRIPT: &str = r#"
local requests, turn = {}, 0
function init(arguments)
    local method, body = arguments[2], arguments[3]
    for token in io.lines(arguments[1]) do
        local headers = { ["Token"] = token, ["Content-Type"] = body and "application/json" }
        requests[#requests + 1] = wrk.format(method, nil, headers, body)
    end
end
function request()
    turn = turn % #requests + 1
    return requests[turn]
end
function done(summary, latency)
    io.write(string.format('{"requests":%d,"micros":%d,"p99":%d,"wrong":%d}\n', summary.requests, summary.duration,
        latency:percentile(99), summary.errors.status + summary.errors.read + summary.errors.timeout + summary.errors.connect))
end
"#;

/// What wrk found.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Outcome {
    requests: f64,
    micros: f64,
    /// In microseconds.
    pub p99: f64,
    wrong: f64,
}

impl Outcome {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests / self.micros * 1e6
    }

    /// Requests in all.
    pub fn requests(&self) -> f64 {
        self.requests
    }
}

/// As many requests as the server takes, with the tokens of a file. No answer may be an error.
pub fn wrk(server: SocketAddr, path: &str, tokens: &Path, seconds: u64) -> Outcome {
    run_wrk(server, path, CONNECTIONS, seconds, &[tokens.as_os_str()])
}

/// As many changes as the server takes, by `PATCH` with this body.
pub fn wrk_changes(server: SocketAddr, path: &str, body: &str, tokens: &Path, seconds: u64) -> Outcome {
    run_wrk(server, path, WRITERS, seconds, &[tokens.as_os_str(), "PATCH".as_ref(), body.as_ref()])
}

fn run_wrk(server: SocketAddr, path: &str, connections: u32, seconds: u64, arguments: &[&OsStr]) -> Outcome {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all(SCRIPT.as_bytes()).unwrap();
    let ran = Command::new("wrk")
        .args(["--threads", "1", "--connections", &connections.to_string(), "--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(script.path())
        .args([&format!("http://{server}{path}"), "--"])
        .args(arguments)
        .output()
        .expect("wrk is installed");
    let said = String::from_utf8_lossy(&ran.stdout);
    let json = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("wrk failed: {said}"));
    let outcome: Outcome = serde_json::from_str(json).unwrap();
    assert!(outcome.wrong == 0.0, "{path} failed: {said}");
    outcome
}

/// How long each of the requests took that were sent at a steady pace for `length`. One that had to wait for the one
/// before counts from when it was due.
pub fn steady(server: SocketAddr, path: &str, token: &str, length: Duration) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(server).await;
        let began = Instant::now();
        let mut took = Vec::new();
        for turn in 0.. {
            let due = began + Duration::from_secs(1) / PACE * turn;
            if due > began + length {
                break;
            }
            let is_late = due <= Instant::now();
            tokio::time::sleep_until(due.into()).await;
            let asked = if is_late { due } else { Instant::now() };
            assert_eq!(connection.get(path, token).await, 200);
            took.push(asked.elapsed());
        }
        took
    })
}

/// A connection that is kept, by hand, so that the client costs next to nothing.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects.
    pub async fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.expect("the server listens");
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Asks for `path` and answers the status.
    pub async fn get(&mut self, path: &str, token: &str) -> u16 {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: bench\r\nToken: {token}\r\n\r\n")).await
    }

    /// Ends the token.
    pub async fn sign_out(&mut self, token: &str) -> u16 {
        self.ask(&format!("DELETE /token HTTP/1.1\r\nHost: bench\r\nToken: {token}\r\n\r\n")).await
    }

    /// Signs in.
    pub async fn sign_in(&mut self, email: &str, password: &str) -> u16 {
        let form = format!("username={email}&password={password}");
        let head = "POST /token HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded";
        self.ask(&format!("{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len())).await
    }

    async fn ask(&mut self, request: &str) -> u16 {
        self.0.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let mut part = [0; 4096];
            let length = self.0.read(&mut part).await.expect("the server answers");
            assert!(length > 0, "the server hung up");
            answer.extend_from_slice(&part[..length]);
        }
        std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
    }
}

/// Whether head and body of an answer are there.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    answer.len() >= head + 4 + length
}

/// The value below which `percent` of 100 lie; not a number if there are none.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// In milliseconds.
pub fn millis(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
}
