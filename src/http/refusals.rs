//! Which refusals have a log line: so many of each client in a minute. The others are counted, and their number is logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::network::Network;

/// Lines about the refusals of one client in a minute.
const PER_CLIENT: u64 = 100;
/// Clients that are told apart in a minute.
const CLIENTS: usize = 10_000;
/// How long is counted before the numbers are logged.
const MINUTE: Duration = Duration::from_secs(60);

/// Counts refusals by client.
pub struct Refusals {
    what: &'static str,
    counts: Mutex<Counts>,
}

struct Counts {
    since: Instant,
    clients: HashMap<Option<Network>, u64>,
    /// Refusals of clients beyond those that are told apart.
    others: u64,
}

impl Counts {
    fn new(since: Instant) -> Self {
        Self { since, clients: HashMap::new(), others: 0 }
    }

    /// Counts one. Whether it has a line.
    fn count(&mut self, client: Option<Network>) -> bool {
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            self.others += 1;
            return false;
        }
        let count = self.clients.entry(client).or_default();
        *count += 1;
        *count <= PER_CLIENT
    }

    /// How many of whom had no line.
    fn unlogged(&self) -> impl Iterator<Item = (String, u64)> {
        let name =
            |client: &Option<Network>| client.map_or_else(|| "unknown clients".to_owned(), |client| client.to_string());
        let clients = self.clients.iter().map(move |(client, count)| (name(client), count.saturating_sub(PER_CLIENT)));
        clients.chain([("other clients".to_owned(), self.others)]).filter(|(_, count)| *count > 0)
    }
}

/// What is counted while a server runs.
pub struct Samples {
    /// Access lines of requests that were refused or failed.
    pub refusals: Refusals,
    /// Lines about the causes of failures.
    pub failures: Refusals,
}

impl Samples {
    /// Begins to count, and logs the numbers every minute while anybody counts.
    pub fn start() -> Arc<Self> {
        let samples = Arc::new(Self { refusals: Refusals::new("refusals"), failures: Refusals::new("failures") });
        let counted = Arc::downgrade(&samples);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(MINUTE).await;
                let Some(samples) = counted.upgrade() else { break };
                samples.refusals.log_if_over(Instant::now());
                samples.failures.log_if_over(Instant::now());
            }
        });
        samples
    }

    /// Logs what has been counted and is not logged yet.
    pub fn finish(&self) {
        let end = Instant::now() + MINUTE;
        self.refusals.log_if_over(end);
        self.failures.log_if_over(end);
    }
}

impl Refusals {
    fn new(what: &'static str) -> Self {
        Self { what, counts: Mutex::new(Counts::new(Instant::now())) }
    }

    /// Counts a refusal of a client. Whether it has a line of its own.
    pub fn has_line(&self, client: Option<IpAddr>) -> bool {
        self.log_if_over(Instant::now());
        self.counts().count(client.map(Network::of))
    }

    /// The numbers of a minute that is over.
    fn turn(&self, now: Instant) -> Option<Counts> {
        let mut counts = self.counts();
        let is_over = now.saturating_duration_since(counts.since) >= MINUTE;
        is_over.then(|| std::mem::replace(&mut *counts, Counts::new(now)))
    }

    fn log_if_over(&self, now: Instant) {
        let counts = self.turn(now);
        for (client, count) in counts.iter().flat_map(Counts::unlogged) {
            let what = self.what;
            log::info!(
                target: "latchkey::access", client = client.as_str(), count = count;
                "{count} more {what} of {client} in the last 60 s"
            );
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Option<Network> {
        Some(Network::of(std::net::Ipv4Addr::from_bits(number).into()))
    }

    #[test]
    fn each_client_has_so_many_lines_a_minute_and_the_rest_is_counted() {
        let mut counts = Counts::new(Instant::now());
        let logged = (0..150).filter(|_| counts.count(client(1))).count();
        assert_eq!(logged, 100);
        assert!(counts.count(client(2)), "another client");
        assert_eq!(counts.unlogged().collect::<Vec<_>>(), [("0.0.0.1".to_owned(), 50)]);
    }

    #[test]
    fn clients_beyond_a_bound_share_one_count() {
        let mut counts = Counts::new(Instant::now());
        for number in 0..10_007 {
            counts.count(client(number));
        }
        assert_eq!(counts.clients.len(), 10_000);
        assert_eq!(counts.unlogged().collect::<Vec<_>>(), [("other clients".to_owned(), 7)]);
    }

    #[test]
    fn a_minute_begins_with_the_first_count_after_the_last_one() {
        let began = Instant::now();
        let refusals = Refusals { what: "refusals", counts: Mutex::new(Counts::new(began)) };
        let turn = |seconds| refusals.turn(began + Duration::from_secs(seconds));
        assert!(turn(59).is_none());
        assert!(turn(60).is_some());
        assert!(turn(60).is_none());
    }
}
