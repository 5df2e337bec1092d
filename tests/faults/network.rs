//! What stands between the program and PostgreSQL breaks: connections are refused and cut, answers come late, or nothing
//! is passed on at all, and what was connected meanwhile stays dead for ever.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

use crate::client::{Client, RECOVERY};
use crate::server::Server;
use crate::support::program::{Serving, latchkey};

/// How long the process itself may take to say that it lives.
const LIVE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Pass,
    /// New connections are closed, and so are those that stand.
    Cut,
    /// Answers come late.
    Late(Duration),
    /// Everything is taken and nothing passed on. Connections that this happens to never come to life again.
    Swallow,
}

struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// On a thread of its own: tests block theirs.
    fn start(upstream: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), watch::Sender::new(Mode::Pass));
        let modes = mode.subscribe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(accept(listener, upstream, modes)));
        Self { address, mode }
    }

    fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }
}

async fn accept(listener: std::net::TcpListener, upstream: PathBuf, modes: watch::Receiver<Mode>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let (modes, upstream) = (modes.clone(), upstream.clone());
        tokio::spawn(async move {
            let Ok(server) = UnixStream::connect(upstream).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pump(from_client, to_server, modes.clone(), false) => {}
                () = pump(from_server, to_client, modes, true) => {}
            }
        });
    }
}

/// Passes bytes on until either end closes, as the mode has it.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
    is_answer: bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Cut => return,
            Mode::Swallow => {
                while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                return;
            }
            Mode::Pass | Mode::Late(_) => {}
        }
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = modes.changed() => continue,
        };
        let Ok(read @ 1..) = read else { return };
        let mode = *modes.borrow();
        match mode {
            Mode::Late(late) if is_answer => tokio::time::sleep(late).await,
            Mode::Swallow => continue,
            _ => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// A process, and somebody who has a token there.
struct Site {
    name: &'static str,
    client: Client,
    token: String,
    pages: Vec<String>,
    _serving: Serving,
}

impl Site {
    async fn open(name: &'static str, home: &Path, url: &str, cache_size: &str) -> Self {
        let mut command = latchkey(home, &[]);
        command.env("DATABASE_URL", url).env("LATCHKEY__AUTH__CACHE_SIZE", cache_size);
        let serving = Serving::start(command.env("LATCHKEY__LIMITS__ENABLED", "false"));
        let client = Client::of(&serving);
        let token = client.new_user(&format!("{name}@example.org")).await;
        Self { name, client, token, pages: Vec::new(), _serving: serving }
    }

    /// Asks until everything is done again.
    async fn recovers(&mut self, about: &str, healed: Instant) {
        while !self.round(about).await {
            assert!(healed.elapsed() < RECOVERY, "{} {about}: not back yet", self.name);
        }
    }

    /// One request of each kind, all at once; whether all of them were done.
    async fn round(&mut self, about: &str) -> bool {
        let about = format!("{} while {about}", self.name);
        let title = format!("{} {}", self.name, self.pages.len());
        let (ask, token, email) = (&self.client, &self.token, format!("{}-other@example.org", self.name));
        let (live, guard, read, write, sign_in, ready) = tokio::join!(
            ask.ask("GET", "/health/live", "", None),
            ask.ask("GET", "/protected-route", token, None),
            ask.ask("GET", "/page/", token, None),
            ask.write_page(token, &title),
            ask.sign_in(&email),
            ask.ask("GET", "/health/ready", "", None),
        );
        let live = live.unwrap();
        assert!(live.status == 200 && live.took < LIVE, "{about}: {live:?}");
        let written = write.unwrap().is_fair(&about);
        if written {
            self.pages.push(title);
        }
        [guard, read, sign_in, ready]
            .into_iter()
            .map(|answer| answer.unwrap().is_fair(&about))
            .fold(written, |all, one| all && one)
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn whatever_becomes_of_the_way_to_the_database_clients_are_told_in_time_and_it_comes_back() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let proxy = Proxy::start(server.socket());
    let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut sites = [
        Site::open("cached", places[0].path(), &proxy.url(), "1000").await,
        Site::open("uncached", places[1].path(), &proxy.url(), "0").await,
    ];
    for site in &sites {
        site.client.new_user(&format!("{}-other@example.org", site.name)).await;
    }
    for (mode, seconds) in [
        (Mode::Cut, 3),
        (Mode::Late(Duration::from_millis(500)), 4),
        (Mode::Swallow, 1),
        (Mode::Swallow, 8),
        (Mode::Cut, 1),
    ] {
        let about = format!("{mode:?} for {seconds} s");
        proxy.mode.send_replace(mode);
        let (began, mut rounds, mut done) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            for site in &mut sites {
                done += u32::from(site.round(&about).await);
                rounds += 1;
            }
        }
        assert!(rounds > done, "{about}: it was felt");
        proxy.mode.send_replace(Mode::Pass);
        let healed = Instant::now();
        join_all(sites.iter_mut().map(|site| site.recovers(&about, healed))).await;
        println!("{about}: {rounds} rounds, of which {done} whole; all is well {:?} later", healed.elapsed());
    }
    // Nobody asks meanwhile, so that nobody knows.
    proxy.mode.send_replace(Mode::Swallow);
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.mode.send_replace(Mode::Pass);
    let healed = Instant::now();
    join_all(sites.iter_mut().map(|site| site.recovers("after what nobody noticed", healed))).await;
    println!("after what nobody noticed: all is well {:?} later", healed.elapsed());
    for site in &sites {
        let list = site.client.ask("GET", "/page/?size=100", &site.token, None).await.unwrap();
        let total = usize::try_from(list.body["total"].as_u64().unwrap()).unwrap();
        assert!(total >= site.pages.len(), "{}: {} were acknowledged: {total}", site.name, site.pages.len());
    }
}
