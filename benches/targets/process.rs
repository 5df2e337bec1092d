//! The servers under load: the release build of Latchkey, and a bare actix-web handler for comparison.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web::Bytes;
use actix_web::{App, HttpResponse, HttpServer, web};
use reqwest::header::{HeaderName, HeaderValue};
use tempfile::NamedTempFile;

use crate::database::Database;
use crate::load::Connection;

/// A response, without the header fields that every server adds.
#[derive(Clone)]
pub struct Answer {
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// A serving process, stopped when dropped.
pub struct Server {
    /// Address on which it listens.
    pub address: SocketAddr,
    /// Time from its start to its first 200.
    pub started_in: Duration,
    process: Child,
    /// Address of the metrics listener, which is off by default.
    metrics: Option<SocketAddr>,
    /// Removed with the server.
    _log: NamedTempFile,
}

impl Server {
    /// Starts a server on `database` with the default settings and these exceptions, and waits until it is ready. Its
    /// log is written to a file, as under a service manager.
    pub fn start(database: &Database, settings: &[(&str, &str)]) -> Self {
        Self::run(database, settings, None)
    }

    /// Like [`Self::start`], with metrics, which count cache lookups.
    pub fn start_with_metrics(database: &Database, settings: &[(&str, &str)]) -> Self {
        Self::run(database, settings, Some(free_address()))
    }

    fn run(database: &Database, settings: &[(&str, &str)], metrics: Option<SocketAddr>) -> Self {
        let address = free_address();
        let log = NamedTempFile::new().unwrap();
        let started = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_latchkey"))
            .env_remove("RUST_LOG")
            .env("LATCHKEY__SERVER__LISTEN", address.to_string())
            .envs(metrics.map(|metrics| ("LATCHKEY__METRICS__LISTEN", metrics.to_string())))
            .env("DATABASE_URL", &database.url)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .expect("the program runs");
        let mut server = Self { address, started_in: Duration::ZERO, process, metrics, _log: log };
        while TcpStream::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "the server does not start");
            thread::sleep(Duration::from_micros(200));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ready = runtime.block_on(async { Connection::open(address).await.get("/health/ready", "").await });
        server.started_in = started.elapsed();
        assert_eq!(ready, 200);
        server
    }

    /// Number of cache lookups with this outcome.
    pub fn cache_lookups(&self, outcome: &str) -> f64 {
        let mut stream = TcpStream::connect(self.metrics.expect("it was started with metrics")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let name = format!("latchkey_cache_total{{outcome=\"{outcome}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("the outcome is counted").parse().unwrap()
    }

    /// Returns the response to a `GET` with this token.
    pub fn answer(&self, path: &str, token: &str) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let request = reqwest::Client::new().get(format!("http://{}{path}", self.address)).header("Token", token);
            let answer = request.send().await.unwrap().error_for_status().unwrap();
            let mut headers = answer.headers().clone();
            headers.remove("date");
            headers.remove("content-length");
            let to_strings =
                |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
            let headers = headers.iter().map(to_strings).collect();
            Answer { headers, body: answer.bytes().await.unwrap() }
        })
    }

    /// Resident memory in megabytes.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A local address that is not in use.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A minimal actix-web server: one handler, no middleware, no log, and as many workers as Latchkey has by default. It
/// runs in this process and stops when dropped.
pub struct Bare {
    /// Address on which it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bare {
    /// The path of the same response, header fields included.
    pub const SAME_ANSWER: &str = "/same-answer";
    /// The path of the same body, with the necessary header fields only.
    pub const SAME_BODY: &str = "/same-body";

    /// Starts a server that sends the response of another server.
    pub fn start(answer: &Answer) -> Self {
        let (started, running) = std::sync::mpsc::channel();
        let Answer { headers, body } = answer.clone();
        let thread = thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = HttpServer::new(move || {
                    let (headers, body) = (headers.clone(), body.clone());
                    let same_body = body.clone();
                    let answer = move || {
                        let mut response = HttpResponse::Ok();
                        for (name, value) in &headers {
                            response.append_header((name.as_str(), value.as_str()));
                        }
                        let response = response.body(body.clone());
                        async move { response }
                    };
                    let only_body = move || {
                        let response = HttpResponse::Ok().content_type("application/json").body(same_body.clone());
                        async move { response }
                    };
                    App::new()
                        .route(Self::SAME_ANSWER, web::get().to(answer))
                        .route(Self::SAME_BODY, web::get().to(only_body))
                })
                .workers(thread::available_parallelism().map_or(1, usize::from))
                .disable_signals()
                .bind("127.0.0.1:0")
                .expect("a free port");
                let address = server.addrs()[0];
                let server = server.run();
                started.send((address, server.handle())).unwrap();
                server.await.expect("the bare handler serves");
            });
        });
        let (address, handle) = running.recv().expect("the bare handler starts");
        Self { address, handle, thread: Some(thread) }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
