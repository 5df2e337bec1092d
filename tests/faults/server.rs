//! A PostgreSQL server that tests stop, restart and slow down.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::postgres::Cluster;

pub struct Server {
    cluster: Cluster,
    home: PathBuf,
    options: &'static [&'static str],
}

impl Server {
    /// Starts a server in `home` with these options. Returns `None` if PostgreSQL is not installed.
    pub fn start(home: &Path, options: &'static [&'static str]) -> Option<Self> {
        let mut cluster = Cluster::create(home).unwrap()?;
        cluster.start(options).unwrap();
        Some(Self { cluster, home: home.to_owned(), options })
    }

    /// URL of the Unix socket.
    pub fn url(&self) -> String {
        self.cluster.url()
    }

    /// Path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join(".s.PGSQL.5432")
    }

    /// Stops the server with `-INT` (fast) or `-QUIT` (immediate), and starts it again after a pause.
    pub fn restart_after(&mut self, signal: &str, pause: Duration) {
        kill(signal, &[&self.postmaster().expect("the server runs")]);
        while self.postmaster().is_some() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(pause);
        self.cluster.start(self.options).unwrap();
    }

    /// Starts a synchronous receiver of the write-ahead log. Commits wait until it confirms what it has written.
    pub fn receiver(&self) -> Receiver {
        let directory = self.home.join("received");
        let mut mkdir = self.cluster.command("mkdir");
        let created = mkdir.arg(&directory).status().expect("mkdir runs");
        assert!(created.success());
        let mut receive = self.cluster.command("pg_receivewal");
        receive.arg("--synchronous").arg("-D").arg(directory).arg("-d").arg(self.url());
        Receiver(receive.spawn().expect("pg_receivewal runs"))
    }

    /// Sends this signal to all processes of the server.
    pub fn signal(&self, signal: &str) {
        let postmaster = self.postmaster().expect("the server runs");
        // First, so that a stopped server starts no further processes.
        kill(signal, &[&postmaster]);
        let children = Command::new("pgrep").args(["-P", &postmaster]).output().expect("pgrep runs");
        let children = String::from_utf8(children.stdout).unwrap();
        kill(signal, &children.split_whitespace().collect::<Vec<_>>());
    }

    fn postmaster(&self) -> Option<String> {
        let file = std::fs::read_to_string(self.home.join("data/postmaster.pid")).ok()?;
        file.lines().next().map(str::to_owned)
    }
}

/// A process that commits wait for. It is killed when dropped.
pub struct Receiver(Child);

impl Receiver {
    /// Sends `-STOP` or `-CONT`.
    pub fn signal(&self, signal: &str) {
        kill(signal, &[&self.0.id().to_string()]);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal. Processes that no longer exist are ignored.
fn kill(signal: &str, processes: &[&str]) {
    let mut kill = Command::new("kill");
    kill.arg(signal).args(processes).stderr(Stdio::null()).status().expect("kill runs");
}
