//! Nobody is connected to but the database.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::program::{Serving, latchkey, out};
use crate::support::tour::tour;
use crate::support::{installed, postgres, specify_database};

/// An address of IPv4 or IPv6, as strace writes it.
const NETWORK: &str = "sa_family=AF_INET";
/// How long strace may take to write its last line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The command, watched: every address that it says to the system goes to `file`.
fn watched(command: &Command, file: &Path) -> Command {
    let mut strace = Command::new("strace");
    // The tracer is a process beside the program, which stays our child.
    strace.args(["-D", "-f", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]).arg(file);
    strace.arg(command.get_program()).args(command.get_args()).env_clear();
    strace.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    strace.current_dir(command.get_current_dir().unwrap());
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    strace
}

/// What strace saw, once the program has ended.
fn seen(file: &Path, process: u32) -> String {
    let started = Instant::now();
    loop {
        let seen = fs::read_to_string(file).unwrap();
        let ended = |line: &str| line.starts_with(&format!("{process} ")) && line.contains("+++ exited with 0 +++");
        if seen.lines().any(ended) {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "strace does not end: {seen}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

specify_database! {
    async fn from_start_to_stop_no_address_is_connected_to_but_the_databases(database: Database) {
        let strace = Command::new("strace").arg("--version").output().ok();
        let Some(_) = installed(strace, "STRACE", "strace") else { return };
        let database_socket = match database.backend {
            Backend::Sqlite => None,
            // A server of somebody else's may be anywhere.
            Backend::Postgres => match postgres::own_socket() {
                Some(socket) => Some(socket),
                None => return,
            },
        };
        let (home, watch) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (serves, asks) = (watch.path().join("serves"), watch.path().join("asks"));
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("LATCHKEY__HTTP__PUBLIC_URL", "https://auth.example.org");
            command
        };
        let mut serving = Serving::start(&mut watched(&command(&[]), &serves));
        let address = serving.address();
        tour(&Client::new(&format!("http://{address}")), command).await;
        let health = watched(command(&["health"]).env("LATCHKEY__SERVER__LISTEN", &address), &asks).spawn().unwrap();
        let asker = health.id();
        assert_eq!(out(&health.wait_with_output().unwrap()), "ready\n");
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());

        assert!(seen(&asks, asker).contains(NETWORK), "a connection would be seen");
        let seen = seen(&serves, serving.child.id());
        let outgoing: Vec<&str> = seen.lines().filter(|line| line.contains(NETWORK)).collect();
        assert!(outgoing.is_empty(), "{outgoing:?}");
        if let Some(socket) = database_socket {
            assert!(seen.contains(&format!("sun_path=\"{}", socket.display())), "{seen}");
        }
    }
}
