//! PostgreSQL for tests: the server of `TEST_POSTGRES_URL`, or a throw-away cluster on a Unix socket that lives as long
//! as this process. Tests that do harm have clusters of their own.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `nobody`: PostgreSQL refuses to run as root.
const UNPRIVILEGED: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the server until standard input closes, as it does when this process ends, however that happens.
const KEEPER: &str = r#"trap '' INT; "$@" & server=$!; cat > /dev/null; kill -QUIT $server 2> /dev/null; wait $server; rm -rf "$REMOVE""#;

/// The address of a server on which tests may create schemas. `None`, after one clear line, if there is none.
pub fn url() -> Option<&'static str> {
    // A failure is kept, too: every test then fails with it, and none tries again.
    static URL: OnceLock<Result<Option<String>, String>> = OnceLock::new();
    let find = || {
        if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
            return Ok(Some(url));
        }
        if let Some(mut cluster) = Cluster::create(&TempDir::with_prefix("latchkey-postgres-").unwrap().keep())? {
            cluster.removed_at_end = true;
            cluster.start(&["-F", "-c", "max_connections=400", "-c", "shared_buffers=32MB"])?;
            let url = cluster.url();
            // It ends with this process.
            std::mem::forget(cluster);
            return Ok(Some(url));
        }
        if is_required() {
            return Err(
                "REQUIRE_POSTGRES=1, but TEST_POSTGRES_URL is unset and no PostgreSQL server is installed".into()
            );
        }
        super::announce("PostgreSQL tests are skipped: set TEST_POSTGRES_URL or install a PostgreSQL server");
        Ok(None)
    };
    URL.get_or_init(find).as_ref().unwrap_or_else(|error| panic!("{error}")).as_deref()
}

/// Whether it is a failure if there is no server.
fn is_required() -> bool {
    std::env::var("REQUIRE_POSTGRES").is_ok_and(|value| value == "1")
}

/// The directory of the throw-away cluster's socket; `None`, after a line that says so, if the server is another one.
pub fn own_socket() -> Option<PathBuf> {
    let home = url()?.split_once("&host=").map(|(_, home)| PathBuf::from(home));
    let own = home.filter(|home| home.join("data").is_dir());
    if own.is_none() {
        assert!(!is_required(), "REQUIRE_POSTGRES=1, but this test takes a server of its own: unset TEST_POSTGRES_URL");
        super::announce("a test is skipped: it takes a server of its own, so unset TEST_POSTGRES_URL");
    }
    own
}

fn server_binaries() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    let whole =
        |place: &PathBuf| ["initdb", "postgres", "pg_isready"].iter().all(|program| place.join(program).is_file());
    debian.chain(on_path.unwrap_or_default()).find(whole)
}

/// A cluster in a directory, and the server on it while that runs. It ends with this.
pub struct Cluster {
    binaries: PathBuf,
    home: PathBuf,
    /// The socket has it in its name.
    port: u16,
    keeper: Option<Child>,
    /// Whether its keeper removes the directory.
    removed_at_end: bool,
}

impl Cluster {
    /// Makes an empty one; `None` if no PostgreSQL server is installed.
    pub fn create(home: &Path) -> Result<Option<Self>, String> {
        let Some(binaries) = server_binaries() else { return Ok(None) };
        let cluster = Self { binaries, home: home.to_owned(), port: 5432, keeper: None, removed_at_end: false };
        if is_root() {
            chown(home, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("the directory is ours");
        }
        let made = cluster
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(cluster.data())
            .stderr(Stdio::piped())
            .output()
            .expect("initdb runs");
        match made.status.success() {
            true => Ok(Some(cluster)),
            false => Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr))),
        }
    }

    /// Runs the server, after an earlier one has ended, and waits until it takes connections.
    pub fn start(&mut self, options: &[&str]) -> Result<(), String> {
        self.end();
        let keeper = self
            .command("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(self.binaries.join("postgres"))
            .args(["-c", "listen_addresses=", "-p", &self.port.to_string(), "-k"])
            .arg(&self.home)
            .arg("-D")
            .arg(self.data())
            .args(options)
            .env("REMOVE", if self.removed_at_end { self.home.as_os_str() } else { "".as_ref() })
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        self.keeper = Some(keeper);
        let started = Instant::now();
        while !self.is_ready() {
            if started.elapsed() > PATIENCE {
                return Err("PostgreSQL did not start".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The same on the network of this machine, too.
    pub fn start_on(&mut self, port: u16, options: &[&str]) -> Result<(), String> {
        self.port = port;
        self.start(&[&["-c", "listen_addresses=127.0.0.1"], options].concat())
    }

    fn is_ready(&self) -> bool {
        let asked = self.command("pg_isready").arg("--dbname").arg(self.url()).status();
        asked.is_ok_and(|status| status.success())
    }

    /// Its address on the Unix socket.
    pub fn url(&self) -> String {
        format!("postgres:///postgres?user=postgres&port={}&host={}", self.port, self.home.display())
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Without its standard input the keeper ends the server.
    fn end(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// A program of PostgreSQL's, or of the system's, as the user who runs the server.
    pub fn command(&self, program: &str) -> Command {
        let own = self.binaries.join(program);
        let mut command = Command::new(if own.is_file() { own } else { program.into() });
        if is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
