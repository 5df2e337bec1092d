//! PostgreSQL for tests: the server of `TEST_POSTGRES_URL`, or a temporary cluster on a Unix socket that ends with this
//! process. Tests that stop or damage the server start clusters of their own.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use latchkey::config::DatabaseUrl;
use tempfile::TempDir;

use super::skipped;

/// The user id of `nobody`. PostgreSQL does not run as root.
const UNPRIVILEGED: u32 = 65534;
/// The longest time until a new server accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A shell script that runs the server until its standard input closes, at the latest when this process ends.
const SUPERVISOR: &str = r#"trap '' INT; "$@" & server=$!; cat > /dev/null; kill -QUIT $server 2> /dev/null; wait $server; rm -rf "$REMOVE""#;

/// The URL of a server on which tests can create schemas. Without one, returns `None` and lists the test as skipped.
pub fn url() -> Option<&'static str> {
    // An error is stored too: each test then fails with it, and none starts the cluster again.
    static URL: OnceLock<Result<Option<String>, String>> = OnceLock::new();
    let find = || {
        if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
            return Ok(Some(url));
        }
        if let Some(mut cluster) = Cluster::create(&TempDir::with_prefix("latchkey-postgres-").unwrap().keep())? {
            cluster.removed_at_end = true;
            cluster.start(&["-F", "-c", "max_connections=400", "-c", "shared_buffers=32MB"])?;
            let url = cluster.url();
            // The supervisor stops the server when this process ends.
            std::mem::forget(cluster);
            return Ok(Some(url));
        }
        if is_required() {
            return Err(
                "REQUIRE_POSTGRES=1, but TEST_POSTGRES_URL is unset and no PostgreSQL server is installed".into()
            );
        }
        Ok(None)
    };
    let url = URL.get_or_init(find).as_ref().unwrap_or_else(|error| panic!("{error}")).as_deref();
    if url.is_none() {
        skipped("set TEST_POSTGRES_URL or install a PostgreSQL server");
    }
    url
}

/// Whether tests fail, instead of being skipped, if there is no server.
fn is_required() -> bool {
    std::env::var("REQUIRE_POSTGRES").is_ok_and(|value| value == "1")
}

/// The directory of the temporary cluster and its socket. With another server, returns `None` and lists the test as
/// skipped.
pub fn own_socket() -> Option<PathBuf> {
    let directory = url()?.split_once("&host=").map(|(_, directory)| PathBuf::from(directory));
    let own = directory.filter(|directory| directory.join("data").is_dir());
    if own.is_none() {
        assert!(
            !is_required(),
            "REQUIRE_POSTGRES=1, but this test requires a server of its own: unset TEST_POSTGRES_URL"
        );
        skipped("unset TEST_POSTGRES_URL: the test requires a server of its own");
    }
    own
}

/// Names all sessions of a server, so that its test can end them.
pub fn set_application_name(url: &mut DatabaseUrl, name: &str) {
    let DatabaseUrl::Postgres(uri) = &*url else { panic!("{url:?} is not PostgreSQL") };
    *url = uri.with_defaults(&[("application_name", name)]).try_into().unwrap();
}

/// The directory of the PostgreSQL server programs, if they are installed.
fn server_binaries() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    let is_complete = |directory: &PathBuf| {
        ["initdb", "postgres", "pg_isready"].iter().all(|program| directory.join(program).is_file())
    };
    debian.chain(on_path.unwrap_or_default()).find(is_complete)
}

/// A cluster in a directory, and its server if it runs. The server stops when this is dropped.
pub struct Cluster {
    binaries: PathBuf,
    directory: PathBuf,
    /// Part of the name of the socket.
    port: u16,
    supervisor: Option<Child>,
    /// Whether the supervisor removes the directory after the server.
    removed_at_end: bool,
}

impl Cluster {
    /// Creates an empty cluster; `None` if no PostgreSQL server is installed.
    pub fn create(directory: &Path) -> Result<Option<Self>, String> {
        let Some(binaries) = server_binaries() else { return Ok(None) };
        let cluster =
            Self { binaries, directory: directory.to_owned(), port: 5432, supervisor: None, removed_at_end: false };
        if is_root() {
            chown(directory, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("this process owns the directory");
        }
        let output = cluster
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(cluster.data())
            .stderr(Stdio::piped())
            .output()
            .expect("initdb runs");
        match output.status.success() {
            true => Ok(Some(cluster)),
            false => Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// Stops the server if it runs, starts it with `options`, and waits until it accepts connections.
    pub fn start(&mut self, options: &[&str]) -> Result<(), String> {
        self.stop();
        let supervisor = self
            .command("/bin/sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(self.binaries.join("postgres"))
            .args(["-c", "listen_addresses=", "-p", &self.port.to_string(), "-k"])
            .arg(&self.directory)
            .arg("-D")
            .arg(self.data())
            .args(options)
            .env("REMOVE", if self.removed_at_end { self.directory.as_os_str() } else { "".as_ref() })
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        self.supervisor = Some(supervisor);
        let started = Instant::now();
        while !self.is_ready() {
            if started.elapsed() > START_TIMEOUT {
                return Err("PostgreSQL did not start".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Like `start`, and listens on 127.0.0.1 at `port` too.
    pub fn start_on(&mut self, port: u16, options: &[&str]) -> Result<(), String> {
        self.port = port;
        self.start(&[&["-c", "listen_addresses=127.0.0.1"], options].concat())
    }

    fn is_ready(&self) -> bool {
        let status = self.command("pg_isready").arg("--dbname").arg(self.url()).status();
        status.is_ok_and(|status| status.success())
    }

    /// The URL of the server on its Unix socket.
    pub fn url(&self) -> String {
        format!("postgres:///postgres?user=postgres&port={}&host={}", self.port, self.directory.display())
    }

    /// The directory with the data.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Stops the server, by closing the standard input of the supervisor.
    pub fn stop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
    }

    /// A program of PostgreSQL or of the system, which runs as the user of the server.
    pub fn command(&self, program: &str) -> Command {
        let installed = self.binaries.join(program);
        let mut command = Command::new(if installed.is_file() { installed } else { program.into() });
        if is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}
