//! The program as it ships, serving.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::database::Database;
use crate::load::Connection;

/// A serving process, stopped when dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first 200.
    pub started_in: Duration,
    process: Child,
}

impl Server {
    /// Starts one on `database` and waits until it is ready.
    pub fn start(database: &Database, settings: &[(&str, &str)]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let started = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_latchkey"))
            .env("RUST_LOG", "warn")
            .env("LATCHKEY__SERVER__LISTEN", address.to_string())
            .env("DATABASE_URL", &database.url)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program runs");
        let mut server = Self { address, started_in: Duration::ZERO, process };
        while std::net::TcpStream::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "the server does not start");
            std::thread::sleep(Duration::from_micros(200));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ready = runtime.block_on(async { Connection::open(address).await.get("/health/ready", "").await });
        server.started_in = started.elapsed();
        assert_eq!(ready, 200);
        server
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
