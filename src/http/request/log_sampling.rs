//! Limits the log lines about rejected and failed requests per client and minute. The number of the omitted lines is
//! logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::network::Network;

/// The limit of lines per client and minute.
const PER_CLIENT: u64 = 100;
/// The limit of clients that are counted separately in a minute.
const MAX_CLIENTS: usize = 10_000;
/// The interval in which lines are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// Counts events by client, and decides which of them are logged.
pub struct ClientCounter {
    /// The name of the events in the log.
    events: &'static str,
    counts: Mutex<Counts>,
}

struct Counts {
    since: Instant,
    clients: HashMap<Option<Network>, u64>,
    /// Events of clients beyond [`MAX_CLIENTS`].
    others: u64,
}

impl Counts {
    fn new(since: Instant) -> Self {
        Self { since, clients: HashMap::new(), others: 0 }
    }

    /// Counts one event. Returns whether to log it.
    fn count(&mut self, client: Option<Network>) -> bool {
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            self.others += 1;
            return false;
        }
        let count = self.clients.entry(client).or_default();
        *count += 1;
        *count <= PER_CLIENT
    }

    /// The clients with events that were not logged, and the number of these events.
    fn unlogged(&self) -> impl Iterator<Item = (String, u64)> {
        let name =
            |client: &Option<Network>| client.map_or_else(|| "unknown clients".to_owned(), |client| client.to_string());
        let clients = self.clients.iter().map(move |(client, count)| (name(client), count.saturating_sub(PER_CLIENT)));
        clients.chain([("other clients".to_owned(), self.others)]).filter(|(_, count)| *count > 0)
    }
}

/// The counters of a running server.
pub struct LogSamples {
    /// Access lines of requests that were rejected or failed.
    pub refusals: ClientCounter,
    /// Lines about the causes of failures.
    pub failures: ClientCounter,
    /// Lines about rejected preflight requests (CORS).
    pub preflights: ClientCounter,
}

impl LogSamples {
    /// Starts to count, and logs the numbers every minute until the last reference is dropped.
    pub fn start() -> Arc<Self> {
        let samples = Arc::new(Self {
            refusals: ClientCounter::new("refusals"),
            failures: ClientCounter::new("failures"),
            preflights: ClientCounter::new("rejected preflight requests"),
        });
        let counted = Arc::downgrade(&samples);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(MINUTE).await;
                let Some(samples) = counted.upgrade() else { break };
                samples.log_if_over(Instant::now());
            }
        });
        samples
    }

    /// Logs the numbers of the current minute, at shutdown.
    pub fn finish(&self) {
        self.log_if_over(Instant::now() + MINUTE);
    }

    fn log_if_over(&self, now: Instant) {
        for counter in [&self.refusals, &self.failures, &self.preflights] {
            counter.log_if_over(now);
        }
    }
}

impl ClientCounter {
    fn new(events: &'static str) -> Self {
        Self { events, counts: Mutex::new(Counts::new(Instant::now())) }
    }

    /// Counts an event of a client. Returns whether to log it.
    pub fn should_log(&self, client: Option<IpAddr>) -> bool {
        self.log_if_over(Instant::now());
        self.counts().count(client.map(Network::of))
    }

    /// Returns the counts and starts new ones, if the minute is over.
    fn take_if_over(&self, now: Instant) -> Option<Counts> {
        let mut counts = self.counts();
        let is_over = now.saturating_duration_since(counts.since) >= MINUTE;
        is_over.then(|| std::mem::replace(&mut *counts, Counts::new(now)))
    }

    fn log_if_over(&self, now: Instant) {
        let counts = self.take_if_over(now);
        for (client, count) in counts.iter().flat_map(Counts::unlogged) {
            let events = self.events;
            log::info!(
                target: "latchkey::access", client = client.as_str(), count = count;
                "{count} more {events} of {client} in the last 60 s"
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
    fn each_client_has_100_lines_a_minute_and_the_others_are_counted() {
        let mut counts = Counts::new(Instant::now());
        let logged = (0..150).filter(|_| counts.count(client(1))).count();
        assert_eq!(logged, 100);
        assert!(counts.count(client(2)), "another client");
        assert_eq!(counts.unlogged().collect::<Vec<_>>(), [("0.0.0.1".to_owned(), 50)]);
    }

    #[test]
    fn clients_beyond_the_limit_share_one_count() {
        let mut counts = Counts::new(Instant::now());
        for number in 0..10_007 {
            counts.count(client(number));
        }
        assert_eq!(counts.clients.len(), 10_000);
        assert_eq!(counts.unlogged().collect::<Vec<_>>(), [("other clients".to_owned(), 7)]);
    }

    #[test]
    fn a_minute_begins_with_the_first_event_after_the_last_minute() {
        let began = Instant::now();
        let counter = ClientCounter { events: "refusals", counts: Mutex::new(Counts::new(began)) };
        let take = |seconds| counter.take_if_over(began + Duration::from_secs(seconds));
        assert!(take(59).is_none());
        assert!(take(60).is_some());
        assert!(take(60).is_none());
    }
}
