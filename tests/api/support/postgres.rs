//! PostgreSQL for tests: the server of `TEST_POSTGRES_URL`, or a throw-away cluster on a Unix socket that lives as long
//! as this process.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `nobody`: PostgreSQL refuses to run as root.
const UNPRIVILEGED: u32 = 65534;

/// Runs the server until this process ends, however it ends: then standard input closes.
const KEEPER: &str =
    r#"trap '' INT; "$@" & server=$!; cat > /dev/null; kill -QUIT $server; wait $server; rm -rf "$DATA""#;

/// The address of a server on which tests may create schemas. `None`, after one clear line, if there is none.
pub fn url() -> Option<&'static str> {
    // A failure is kept, too: every test then fails with it, and none tries again.
    static URL: OnceLock<Result<Option<String>, String>> = OnceLock::new();
    let find = || {
        if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
            return Ok(Some(url));
        }
        if let Some(binaries) = server_binaries() {
            return start(&binaries).map(Some);
        }
        if std::env::var("REQUIRE_POSTGRES").is_ok_and(|value| value == "1") {
            return Err(
                "REQUIRE_POSTGRES=1, but TEST_POSTGRES_URL is unset and no PostgreSQL server is installed".into()
            );
        }
        super::announce("PostgreSQL tests are skipped: set TEST_POSTGRES_URL or install a PostgreSQL server");
        Ok(None)
    };
    URL.get_or_init(find).as_ref().unwrap_or_else(|error| panic!("{error}")).as_deref()
}

/// The directory of the throw-away cluster's socket; `None` if the server is another one.
pub fn own_socket() -> Option<PathBuf> {
    let (_, home) = url()?.split_once("&host=")?;
    Path::new(home).join("data").is_dir().then(|| PathBuf::from(home))
}

fn server_binaries() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    let whole =
        |place: &PathBuf| ["initdb", "postgres", "pg_isready"].iter().all(|program| place.join(program).is_file());
    debian.chain(on_path.unwrap_or_default()).find(whole)
}

fn start(binaries: &Path) -> Result<String, String> {
    let home = TempDir::with_prefix("latchkey-postgres-").expect("a temporary directory").keep();
    let data = home.join("data");
    let as_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if as_root {
        chown(&home, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("the directory is ours");
    }
    let command = |program: &Path| {
        let mut command = Command::new(program);
        if as_root {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command
    };

    let made = command(&binaries.join("initdb"))
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
        .arg(&data)
        .stderr(Stdio::piped())
        .output()
        .expect("initdb runs");
    if !made.status.success() {
        return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
    }

    let mut keeper = command(Path::new("/bin/sh"))
        .env("DATA", &home)
        .args(["-c", KEEPER, "keeper"])
        .arg(binaries.join("postgres"))
        .args(["-F", "-c", "listen_addresses=", "-c", "max_connections=400", "-c", "shared_buffers=32MB", "-k"])
        .arg(&home)
        .arg("-D")
        .arg(&data)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell runs");

    let url = format!("postgres:///postgres?user=postgres&host={}", home.display());
    let ready = || {
        let asked = command(&binaries.join("pg_isready")).arg("--dbname").arg(&url).status();
        asked.is_ok_and(|status| status.success())
    };
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > Duration::from_secs(30) {
            // Without its standard input the keeper ends the server and removes the directory.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
            return Err("PostgreSQL did not start".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Standard input stays open until this process ends.
    std::mem::forget(keeper);
    Ok(url)
}
