//! Load generators: wrk for throughput, and a client with a constant request rate for response times.

use std::ffi::OsStr;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that wrk keeps busy.
const CONNECTIONS: u32 = 16;
/// Requests per second of the client with a constant rate.
const REQUEST_RATE: u32 = 50;

/// Connections that wrk keeps busy with changes.
const WRITERS: u32 = 32;

/// A wrk script that presents one token or session after another and prints the outcome as JSON.
const SCRIPT: &str = r#"
local requests, current = {}, 0
function init(arguments)
    local method, body = arguments[2], arguments[3]
    for token in io.lines(arguments[1]) do
        local headers = { ["Content-Type"] = body and "application/json" }
        if token:sub(1, 4) == "lks_" then
            headers["Cookie"], headers["Sec-Fetch-Site"] = "__Host-latchkey=" .. token, "same-origin"
        else
            headers["Token"] = token
        end
        requests[#requests + 1] = wrk.format(method, nil, headers, body)
    end
end
function request()
    current = current % #requests + 1
    return requests[current]
end
function done(summary, latency)
    io.write(string.format('{"requests":%d,"micros":%d,"p99":%d,"failed":%d}\n', summary.requests, summary.duration,
        latency:percentile(99), summary.errors.status + summary.errors.read + summary.errors.timeout + summary.errors.connect))
end
"#;

/// The outcome of a run of wrk.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Outcome {
    requests: f64,
    /// Duration in microseconds.
    micros: f64,
    /// In microseconds.
    pub p99: f64,
    failed: f64,
}

impl Outcome {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests / self.micros * 1e6
    }

    /// Total number of requests.
    pub fn requests(&self) -> f64 {
        self.requests
    }
}

/// Sends `GET` requests as fast as possible, with the tokens or sessions of a file. Panics if a response is an error.
pub fn wrk(server: SocketAddr, path: &str, tokens: &Path, seconds: u64) -> Outcome {
    run_wrk(server, path, CONNECTIONS, seconds, &[tokens.as_os_str()])
}

/// Sends `PATCH` requests with this body as fast as possible.
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
    let output = String::from_utf8_lossy(&ran.stdout);
    let json = output.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("wrk failed: {output}"));
    let outcome: Outcome = serde_json::from_str(json).unwrap();
    assert!(outcome.failed == 0.0, "{path} failed: {output}");
    outcome
}

/// Sends requests at a constant rate for `length`, and returns their response times. The time of a request that starts
/// late counts from when it was due.
pub fn response_times(server: SocketAddr, path: &str, token: &str, length: Duration) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(server).await;
        let began = Instant::now();
        let mut took = Vec::new();
        for number in 0.. {
            let due = began + Duration::from_secs(1) / REQUEST_RATE * number;
            if due > began + length {
                break;
            }
            let is_late = due <= Instant::now();
            tokio::time::sleep_until(due.into()).await;
            let sent = if is_late { due } else { Instant::now() };
            assert_eq!(connection.get(path, token).await, 200);
            took.push(sent.elapsed());
        }
        took
    })
}

/// A persistent connection with a minimal HTTP client, which uses very little processor time.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects.
    pub async fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.expect("the server listens");
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connects from this address.
    pub async fn open_from(source: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(server).await.expect("the server listens");
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends a `GET` request and returns the status.
    pub async fn get(&mut self, path: &str, token: &str) -> u16 {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: bench\r\nToken: {token}\r\n\r\n")).await
    }

    /// Signs out and returns the status.
    pub async fn sign_out(&mut self, token: &str) -> u16 {
        self.ask(&format!("DELETE /token HTTP/1.1\r\nHost: bench\r\nToken: {token}\r\n\r\n")).await
    }

    /// Sends a request and returns the status.
    pub async fn send(&mut self, request: &str) -> u16 {
        self.ask(request).await
    }

    async fn ask(&mut self, request: &str) -> u16 {
        self.0.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let mut part = [0; 4096];
            let length = self.0.read(&mut part).await.expect("the server responds");
            assert!(length > 0, "the server closed the connection");
            answer.extend_from_slice(&part[..length]);
        }
        std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
    }
}

/// Whether the response has been received completely.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    answer.len() >= head + 4 + length
}

/// A percentile of the values; NaN if there are none.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Converts durations to milliseconds.
pub fn millis(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
}
