//! The program as it ships, serving.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use crate::database::Database;
use crate::load::Connection;

/// A serving process, stopped when dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first 200.
    pub started_in: Duration,
    process: Child,
    metrics: SocketAddr,
    /// The log lies on the same disk as the database.
    _log: NamedTempFile,
}

impl Server {
    /// Starts one on `database` and waits until it is ready.
    pub fn start(database: &Database, settings: &[(&str, &str)]) -> Self {
        let [address, metrics] = free_addresses();
        let log = NamedTempFile::new().unwrap();
        let started = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_latchkey"))
            .env("LATCHKEY__SERVER__LISTEN", address.to_string())
            .env("LATCHKEY__METRICS__LISTEN", metrics.to_string())
            .env("DATABASE_URL", &database.url)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .expect("the program runs");
        let mut server = Self { address, started_in: Duration::ZERO, process, metrics, _log: log };
        while TcpStream::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "the server does not start");
            std::thread::sleep(Duration::from_micros(200));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ready = runtime.block_on(async { Connection::open(address).await.get("/health/ready", "").await });
        server.started_in = started.elapsed();
        assert_eq!(ready, 200);
        server
    }

    /// How often the cache was looked at with this outcome.
    pub fn cache(&self, outcome: &str) -> f64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let name = format!("latchkey_cache_total{{outcome=\"{outcome}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("the outcome is counted").parse().unwrap()
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

/// Two that nobody listens on.
fn free_addresses() -> [SocketAddr; 2] {
    [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|listener| listener.local_addr().unwrap())
}
