//! Passwords: how many sign-ins of what the processor could hash, and what they leave to the guard.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use latchkey::domain::password::{Password, PasswordHash};

use crate::Extent;
use crate::database::Backend;
use crate::durable::Durable;
use crate::load::{Connection, millis, percentile, steady};
use crate::population::{COST, PASSWORD, Population};
use crate::process::Server;
use crate::report::{Report, Row};

/// Fewer than may wait, so that none is turned away.
const PATIENT: u64 = 32;
/// More than may wait.
const STORMING: u64 = 128;

/// Until all clients are under way.
const WARM_UP: Duration = Duration::from_secs(2);

/// Clients that sign in without pause, each as another user, until they are stopped.
struct Storm {
    done: Arc<AtomicU64>,
    /// How long each refusal took, in milliseconds.
    refusals: Arc<Mutex<Vec<f64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    fn start(server: SocketAddr, clients: u64) -> Self {
        let storm = Self { done: Arc::default(), refusals: Arc::default(), stop: Arc::default(), thread: None };
        let (done, refusals, stop) = (Arc::clone(&storm.done), Arc::clone(&storm.refusals), Arc::clone(&storm.stop));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = async |number| {
                let mut connection = Connection::open(server).await;
                let email = Population::email(number);
                loop {
                    let asked = Instant::now();
                    match connection.sign_in(&email, PASSWORD).await {
                        200 => drop(done.fetch_add(1, Ordering::Relaxed)),
                        503 => refusals.lock().unwrap().push(asked.elapsed().as_secs_f64() * 1e3),
                        status => panic!("sign-in answered {status}"),
                    }
                }
            };
            runtime.block_on(async {
                let clients = futures_util::future::join_all((1..=clients).map(client));
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
        Self { thread: Some(thread), ..storm }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Sign-ins a second, once all are under way.
    fn rate(&self, length: Duration) -> f64 {
        thread::sleep(WARM_UP.min(length / 2));
        let (before, began) = (self.done(), Instant::now());
        thread::sleep(length);
        (self.done() - before) as f64 / began.elapsed().as_secs_f64()
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the storm was one of sign-ins");
        }
    }
}

/// Hashes a second, by all cores at once, with nothing else to do.
fn raw(length: Duration) -> f64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let hashers: Vec<_> = (0..cores)
        .map(|_| {
            thread::spawn(move || {
                let password = Password::new(PASSWORD.to_owned());
                let hash = PasswordHash::create(&password, COST).unwrap();
                let (mut done, own) = (0.0, Instant::now());
                while began.elapsed() < length {
                    assert!(hash.verify(&password).unwrap());
                    done += 1.0;
                }
                done / own.elapsed().as_secs_f64()
            })
        })
        .collect();
    hashers.into_iter().map(|hasher| hasher.join().unwrap()).sum()
}

/// Sign-ins against what the processor could hash.
pub fn sign_ins(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, PATIENT, 1);
    let server = Server::start(&population.database, &[]);
    let before = raw(extent.hashing / 2);
    let storm = Storm::start(server.address, PATIENT);
    let rate = storm.rate(extent.hashing);
    storm.stop();
    drop(server);
    let raw = (before + raw(extent.hashing / 2)) / 2.0;
    report.add(
        Row::of("sign-ins against raw bcrypt on all cores", backend)
            .at_least(0.95, rate / raw)
            .showing(format!("{rate:.2} of {raw:.2} a second")),
    );
}

/// What a patient user of the guard waits while many sign in without pause.
pub fn storm(backend: Backend, extent: &Extent, report: &mut Report) {
    // Commits take what the disk takes.
    let durable = Durable::create(backend);
    let population = Population::fill(durable.database(), STORMING + 1, STORMING + 1);
    let server = Server::start_with_metrics(&population.database, &[]);
    // Of the one user who does not sign in anew.
    let token = population.tokens.last().unwrap();
    let wait = |length| percentile(&millis(&steady(server.address, "/protected-route", token, length)), 99);
    let idle = wait(extent.hashing);
    let storm = Storm::start(server.address, STORMING);
    thread::sleep(WARM_UP.min(extent.hashing / 2));
    let (done, uncertain, began) = (storm.done(), server.cache("uncertain"), Instant::now());
    let stormy = wait(extent.hashing);
    let rate = (storm.done() - done) as f64 / began.elapsed().as_secs_f64();
    let uncertain = server.cache("uncertain") - uncertain;
    let refusals = storm.refusals.lock().unwrap().clone();
    storm.stop();
    let name = format!("guard p99 while {STORMING} clients sign in without pause");
    report.add(
        Row::of(format!("{name}, against idle"), backend)
            .at_most(5.0, stormy / idle)
            .showing(format!("{stormy:.2} against {idle:.2} ms, with {rate:.1} sign-ins/s")),
    );
    report.add(Row::of(name, backend).at_most(20.0, stormy).unit("ms"));
    report.add(Row::of("lookups meanwhile because the change log was not read", backend).at_most(0.0, uncertain));
    report.add(
        Row::of("full queue: p99 of the 503 meanwhile", backend)
            .at_most(100.0, percentile(&refusals, 99))
            .unit("ms")
            .showing(format!("the slowest of {}: {:.0} ms", refusals.len(), percentile(&refusals, 100))),
    );
}
