//! What stands between the program and PostgreSQL breaks: connections are refused and cut, answers come late, or nothing
//! is passed on at all, and what was connected meanwhile stays dead for ever.

use std::cell::Cell;
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
pub enum Mode {
    Pass,
    /// New connections are closed, and so are those that stand.
    Cut,
    /// Answers come late.
    Late(Duration),
    /// Everything is taken and nothing passed on. Connections that this happens to never come to life again.
    Swallow,
}

pub struct Proxy {
    address: SocketAddr,
    pub mode: watch::Sender<Mode>,
}

impl Proxy {
    /// On a thread of its own: tests block theirs.
    pub fn start(upstream: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), watch::Sender::new(Mode::Pass));
        let modes = mode.subscribe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(accept(listener, upstream, modes)));
        Self { address, mode }
    }

    pub fn url(&self) -> String {
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

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Request {
    Guarded,
    Read,
    Write,
    SignIn,
    Ready,
}

const REQUESTS: [Request; 5] = [Request::Guarded, Request::Read, Request::Write, Request::SignIn, Request::Ready];

/// A process, and somebody who has a token there.
struct Site {
    name: &'static str,
    client: Client,
    token: String,
    /// Pages that were acknowledged.
    pages: Cell<u64>,
    _serving: Serving,
}

impl Site {
    async fn open(name: &'static str, home: &Path, url: &str, cache_size: &str) -> Self {
        let mut command = latchkey(home, &[]);
        command.env("DATABASE_URL", url).env("LATCHKEY__AUTH__CACHE_SIZE", cache_size);
        // Few, so that all of them are lost at once.
        command.env("LATCHKEY__DATABASE__POOL_SIZE", "2");
        let serving = Serving::start(command.env("LATCHKEY__LIMITS__ENABLED", "false"));
        let client = Client::of(&serving);
        let token = client.new_user(&format!("{name}@example.org")).await;
        client.new_user(&format!("{name}-other@example.org")).await;
        Self { name, client, token, pages: Cell::new(0), _serving: serving }
    }

    /// Whether it is done, as clients may be told while there is trouble.
    async fn does(&self, request: Request, about: &str) -> bool {
        let (ask, token) = (&self.client, &self.token);
        let answer = match request {
            Request::Guarded => ask.ask("GET", "/protected-route", token, None).await,
            Request::Read => ask.ask("GET", "/page/", token, None).await,
            Request::Write => ask.write_page(token, self.name).await,
            Request::SignIn => ask.sign_in(&format!("{}-other@example.org", self.name)).await,
            Request::Ready => ask.ask("GET", "/health/ready", "", None).await,
        };
        let done = answer.unwrap().is_fair(&format!("{request:?} at {} {about}", self.name));
        if done && matches!(request, Request::Write) {
            self.pages.set(self.pages.get() + 1);
        }
        done
    }

    /// One request of each kind, all at once; whether all of them were done.
    async fn round(&self, about: &str) -> bool {
        let live = async {
            let live = self.client.ask("GET", "/health/live", "", None).await.unwrap();
            assert!(live.status == 200 && live.took < LIVE, "{} {about}: {live:?}", self.name);
        };
        let asked = join_all(REQUESTS.map(|request| self.does(request, about)));
        let ((), done) = tokio::join!(live, asked);
        done.into_iter().all(|done| done)
    }

    /// Asks for each of them until it is done.
    async fn recovers(&self, about: &str, healed: Instant) {
        let until_done = |request| async move {
            while !self.does(request, about).await {
                assert!(healed.elapsed() < RECOVERY, "{request:?} at {} {about}: not back yet", self.name);
            }
        };
        join_all(REQUESTS.map(until_done)).await;
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn whatever_becomes_of_the_way_to_the_database_clients_are_told_in_time_and_it_comes_back() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let proxy = Proxy::start(server.socket());
    let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let sites = [
        Site::open("cached", places[0].path(), &proxy.url(), "1000").await,
        Site::open("uncached", places[1].path(), &proxy.url(), "0").await,
    ];
    for (mode, seconds) in [
        (Mode::Cut, 3),
        (Mode::Late(Duration::from_millis(500)), 4),
        (Mode::Swallow, 1),
        (Mode::Swallow, 8),
        (Mode::Cut, 1),
    ] {
        let about = format!("while {mode:?} for {seconds} s");
        proxy.mode.send_replace(mode);
        let (began, mut rounds, mut done) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            for site in &sites {
                done += u32::from(site.round(&about).await);
                rounds += 1;
            }
        }
        assert!(rounds > done, "{about}: it was felt");
        proxy.mode.send_replace(Mode::Pass);
        let healed = Instant::now();
        join_all(sites.iter().map(|site| site.recovers("after the trouble", healed))).await;
        println!("{about}: {rounds} rounds, of which {done} whole; all is well {:?} later", healed.elapsed());
    }
    // Nobody asks meanwhile, so that nobody knows.
    proxy.mode.send_replace(Mode::Swallow);
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.mode.send_replace(Mode::Pass);
    let healed = Instant::now();
    join_all(sites.iter().map(|site| site.recovers("after what nobody noticed", healed))).await;
    println!("after what nobody noticed: all is well {:?} later", healed.elapsed());
    for site in &sites {
        let list = site.client.ask("GET", "/page/?size=1", &site.token, None).await.unwrap();
        let (total, acknowledged) = (list.body["total"].as_u64().unwrap(), site.pages.get());
        assert!(total >= acknowledged, "{}: {acknowledged} were acknowledged: {total}", site.name);
    }
}
