//! The network between Latchkey and PostgreSQL fails: connections are closed, responses are delayed, or all data is
//! discarded, after which the affected connections never work again.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::client::{Client, RECOVERY};
use crate::command::without_limits;
use crate::server::Server;
use crate::support::program::Serving;

/// Maximum response time of `/health/live`, which does not wait for the database.
const MAX_LIVE: Duration = Duration::from_millis(500);
/// Rounds in a row that must succeed after a failure, so that no connection from before it is left.
const SETTLED: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Pass,
    /// All connections are closed, old and new ones.
    Cut,
    /// Responses are delayed.
    Delay(Duration),
    /// Data is accepted and discarded. Affected connections stay unusable.
    Discard,
}

pub struct Proxy {
    pub address: SocketAddr,
    pub mode: watch::Sender<Mode>,
    /// Counts the open connections.
    open: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts it on its own thread, because tests block theirs.
    pub fn start(upstream: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, mode) = (listener.local_addr().unwrap(), watch::Sender::new(Mode::Pass));
        let (modes, open) = (mode.subscribe(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&open);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(accept(listener, upstream, modes, count)));
        Self { address, mode, open }
    }

    /// Closes all connections, and forwards new ones.
    pub async fn cut_all(&self) {
        self.mode.send_replace(Mode::Cut);
        let began = Instant::now();
        while self.open.load(Ordering::Relaxed) > 0 {
            assert!(began.elapsed() < RECOVERY, "the proxy does not close its connections");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.mode.send_replace(Mode::Pass);
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }
}

async fn accept(
    listener: std::net::TcpListener,
    upstream: PathBuf,
    modes: watch::Receiver<Mode>,
    open: Arc<AtomicUsize>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let (modes, upstream, open) = (modes.clone(), upstream.clone(), Arc::clone(&open));
        open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            forward(client, upstream, modes).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Forwards a connection until either end closes.
async fn forward(client: TcpStream, upstream: PathBuf, modes: watch::Receiver<Mode>) {
    let Ok(server) = UnixStream::connect(upstream).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, modes.clone(), false) => {}
        () = pump(from_server, to_client, modes, true) => {}
    }
}

/// Forwards bytes as the mode says, until either end closes.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
    is_response: bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Cut => return,
            Mode::Discard => return discard(from, modes).await,
            Mode::Pass | Mode::Delay(_) => {}
        }
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            changed = modes.changed() => match changed {
                Ok(()) => continue,
                // The test has ended.
                Err(_) => return,
            },
        };
        let Ok(read @ 1..) = read else { return };
        let mode = *modes.borrow();
        match mode {
            Mode::Delay(delay) if is_response => tokio::time::sleep(delay).await,
            Mode::Discard => continue,
            _ => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Reads and discards all bytes until the other end closes, or all connections are closed.
async fn discard(mut from: impl AsyncReadExt + Unpin, mut modes: watch::Receiver<Mode>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let is_open = tokio::select! {
            read = from.read(&mut bytes) => read.is_ok_and(|read| read > 0),
            changed = modes.changed() => changed.is_ok() && *modes.borrow() != Mode::Cut,
        };
        if !is_open {
            return;
        }
    }
}

/// A kind of request.
#[derive(Clone, Copy, Debug)]
enum Request {
    Guarded,
    Read,
    Write,
    SignIn,
    Ready,
}

const REQUESTS: [Request; 5] = [Request::Guarded, Request::Read, Request::Write, Request::SignIn, Request::Ready];

/// A running server with a signed-in user.
struct Instance {
    name: &'static str,
    client: Client,
    token: String,
    /// Number of acknowledged pages.
    pages: Cell<u64>,
    _serving: Serving,
}

impl Instance {
    async fn start(name: &'static str, home: &Path, url: &str, cache_size: &str) -> Self {
        let mut command = without_limits(home, url);
        command.env("LATCHKEY__AUTH__CACHE_SIZE", cache_size);
        // With few connections, all of them are lost at once.
        let serving = Serving::start(command.env("LATCHKEY__DATABASE__POOL_SIZE", "2"));
        let client = Client::of(&serving);
        let token = client.new_user(&format!("{name}@example.org")).await;
        client.new_user(&format!("{name}-other@example.org")).await;
        Self { name, client, token, pages: Cell::new(0), _serving: serving }
    }

    /// Sends a request and checks that its response is allowed during an outage.
    ///
    /// Errors: the response is no success.
    async fn send(&self, request: Request, about: &str) -> Result<(), String> {
        let (client, token) = (&self.client, &self.token);
        let answer = match request {
            Request::Guarded => client.request("GET", "/protected-route", token, None).await,
            Request::Read => client.request("GET", "/page/", token, None).await,
            Request::Write => client.write_page(token, self.name).await,
            Request::SignIn => client.sign_in(&format!("{}-other@example.org", self.name)).await,
            Request::Ready => client.request("GET", "/health/ready", "", None).await,
        };
        let about = format!("{request:?} at {} {about}", self.name);
        let answer = answer.unwrap_or_else(|| panic!("{about}: no response"));
        let is_success = answer.assert_graceful(&about);
        if is_success && matches!(request, Request::Write) {
            self.pages.set(self.pages.get() + 1);
        }
        if is_success { Ok(()) } else { Err(format!("{about}: {answer:?}")) }
    }

    /// Checks that `/health/live` does not wait for the database.
    async fn assert_live(&self, about: &str) {
        let live = self.client.request("GET", "/health/live", "", None).await;
        let live = live.unwrap_or_else(|| panic!("{} {about}: no response", self.name));
        assert!(live.status == 200 && live.took < MAX_LIVE, "{} {about}: {live:?}", self.name);
    }

    /// Sends one request of each kind concurrently.
    ///
    /// Errors: the responses that are no success.
    async fn round(&self, about: &str) -> Result<(), Vec<String>> {
        let requests = join_all(REQUESTS.map(|request| self.send(request, about)));
        let ((), outcomes) = tokio::join!(self.assert_live(about), requests);
        let failed: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Repeats all kinds of requests until several rounds in a row succeed: a connection that was lost in the failure
    /// may be used last. The first of them must begin in time.
    async fn assert_recovery(&self, about: &str, restored: Instant) {
        let mut settled = 0;
        while settled < SETTLED {
            match self.round(about).await {
                Ok(()) => settled += 1,
                Err(failed) => {
                    assert!(restored.elapsed() < RECOVERY, "{} has not recovered in time: {failed:#?}", self.name);
                    settled = 0;
                }
            }
        }
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn when_the_network_to_the_database_fails_requests_end_in_time_and_recover() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let proxy = Proxy::start(server.socket());
    let places = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let instances = [
        Instance::start("cached", places[0].path(), &proxy.url(), "1000").await,
        Instance::start("uncached", places[1].path(), &proxy.url(), "0").await,
    ];
    for (mode, seconds) in [
        (Mode::Cut, 3),
        (Mode::Delay(Duration::from_millis(500)), 4),
        (Mode::Discard, 1),
        (Mode::Discard, 8),
        (Mode::Cut, 1),
    ] {
        let about = format!("during {mode:?} for {seconds} s");
        proxy.mode.send_replace(mode);
        let (began, mut rounds, mut successful) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            for instance in &instances {
                successful += u32::from(instance.round(&about).await.is_ok());
                rounds += 1;
            }
        }
        // Lasts for longer than a round, so that at least one is wholly within it.
        assert!(rounds > successful, "{about}: none of {rounds} rounds failed");
        proxy.mode.send_replace(Mode::Pass);
        let restored = Instant::now();
        join_all(instances.iter().map(|instance| instance.assert_recovery("after the failure", restored))).await;
        println!("{about}: {successful} of {rounds} rounds succeeded; recovered after {:?}", restored.elapsed());
    }
    // Without requests during the failure, Latchkey does not detect it.
    proxy.mode.send_replace(Mode::Discard);
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.mode.send_replace(Mode::Pass);
    let restored = Instant::now();
    join_all(instances.iter().map(|instance| instance.assert_recovery("after an undetected failure", restored))).await;
    println!("after an undetected failure: recovered after {:?}", restored.elapsed());
    for instance in &instances {
        let list = instance.client.request("GET", "/page/?size=1", &instance.token, None).await.unwrap();
        let (total, acknowledged) = (list.number("total"), instance.pages.get());
        assert!(total >= acknowledged, "{}: {acknowledged} were acknowledged, {total} are stored", instance.name);
    }
}
