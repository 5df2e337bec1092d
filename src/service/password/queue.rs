//! The queue of hashing jobs. It serves clients in turn.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::domain::network::Network;
use crate::domain::password::checksum::{Checksum, Input};
use crate::metrics::Durations;

/// A job that needs a checksum.
pub(crate) trait Job: Send + 'static {
    /// Whether its request has been cancelled.
    fn is_abandoned(&self) -> bool;
    /// Completes the job with the checksum.
    fn finish(self, checksum: &Checksum);
    /// Rejects the job because the queue is full.
    fn refuse(self);
}

/// Waiting jobs, by client: by the network of its address. All jobs without an address count as those of one client.
pub(crate) struct Queue<J> {
    /// Maximum number of waiting jobs.
    capacity: usize,
    waiting: Mutex<Waiting<J>>,
    changed: Condvar,
    /// A histogram of the time for which jobs waited.
    pub(crate) waits: Durations,
}

struct Waiting<J> {
    jobs: HashMap<Option<Network>, VecDeque<Entry<J>>>,
    /// Clients with waiting jobs, the next one first.
    order: VecDeque<Option<Network>>,
    count: usize,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

struct Entry<J> {
    job: J,
    input: Input,
    since: Instant,
}

impl<J: Job> Queue<J> {
    /// An empty queue for up to `capacity` jobs.
    pub(crate) fn new(capacity: usize) -> Self {
        let waiting = Waiting { jobs: HashMap::new(), order: VecDeque::new(), count: 0, idle: 0, closed: false };
        Self { capacity, waiting: Mutex::new(waiting), changed: Condvar::new(), waits: Durations::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<J>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of waiting jobs.
    pub(crate) fn length(&self) -> usize {
        self.waiting().count
    }

    /// Sets the number of idle threads.
    #[cfg(test)]
    pub(crate) fn set_idle(&self, threads: usize) {
        self.waiting().idle = threads;
    }

    /// Closes the queue. [`pop`](Self::pop) returns the remaining jobs, and then `None`.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }

    /// Whether a job of the client with this address would be accepted now, if necessary in place of a job of a client
    /// that has more.
    pub(crate) fn has_capacity_for(&self, address: Option<IpAddr>) -> bool {
        let client = address.map(Network::of);
        let mut waiting = self.waiting();
        if waiting.count >= self.capacity {
            waiting.remove_abandoned();
        }
        waiting.count < self.capacity || waiting.length(client) + 1 < waiting.longest()
    }

    /// Adds a job. If the queue is full, rejects the latest job of the client that has most. Returns the number of jobs
    /// for which no thread is idle.
    pub(crate) fn push(&self, address: Option<IpAddr>, job: J, input: Input) -> usize {
        let client = address.map(Network::of);
        let mut waiting = self.waiting();
        if waiting.count >= self.capacity {
            waiting.remove_abandoned();
        }
        waiting.add(client, Entry { job, input, since: Instant::now() });
        let refused = if waiting.count > self.capacity { waiting.remove_from_largest() } else { None };
        let delayed = waiting.count.saturating_sub(waiting.idle);
        drop(waiting);
        self.changed.notify_one();
        if let Some(refused) = refused {
            refused.job.refuse();
        }
        delayed
    }

    /// Waits for the next job, and returns it with its input. Returns `None` when the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<(J, Input)> {
        let mut waiting = self.waiting();
        loop {
            if let Some(entry) = waiting.next_active() {
                return Some(self.start(entry));
            }
            if waiting.closed {
                return None;
            }
            waiting.idle += 1;
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }

    /// The next job for a thread that already has one. Returns `None` if no job waits, or if idle threads will take all
    /// waiting jobs: a job alone on a thread is done sooner.
    pub(crate) fn pop_surplus(&self) -> Option<(J, Input)> {
        let mut waiting = self.waiting();
        if waiting.count <= waiting.idle {
            return None;
        }
        waiting.next_active().map(|entry| self.start(entry))
    }

    fn start(&self, entry: Entry<J>) -> (J, Input) {
        self.waits.observe(entry.since.elapsed());
        (entry.job, entry.input)
    }
}

impl<J: Job> Waiting<J> {
    fn add(&mut self, client: Option<Network>, job: Entry<J>) {
        let jobs = self.jobs.entry(client).or_default();
        if jobs.is_empty() {
            self.order.push_back(client);
        }
        jobs.push_back(job);
        self.count += 1;
    }

    /// Removes and returns the next job whose request has not been cancelled.
    fn next_active(&mut self) -> Option<Entry<J>> {
        loop {
            let entry = self.pop_next()?;
            if !entry.job.is_abandoned() {
                return Some(entry);
            }
        }
    }

    /// Removes and returns the oldest job of the next client.
    fn pop_next(&mut self) -> Option<Entry<J>> {
        let client = self.order.pop_front()?;
        let jobs = self.jobs.get_mut(&client)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&client);
        } else {
            self.order.push_back(client);
        }
        self.count -= usize::from(job.is_some());
        job
    }

    /// Removes and returns the latest job of the client that has most; among equals, of the one served last.
    fn remove_from_largest(&mut self) -> Option<Entry<J>> {
        let largest = self.order.iter().copied().max_by_key(|client| self.length(*client))?;
        let jobs = self.jobs.get_mut(&largest)?;
        let job = jobs.pop_back();
        if jobs.is_empty() {
            self.jobs.remove(&largest);
            self.order.retain(|client| *client != largest);
        }
        self.count -= usize::from(job.is_some());
        job
    }

    fn length(&self, client: Option<Network>) -> usize {
        self.jobs.get(&client).map_or(0, VecDeque::len)
    }

    fn longest(&self) -> usize {
        self.jobs.values().map(VecDeque::len).max().unwrap_or(0)
    }

    fn remove_abandoned(&mut self) {
        self.jobs.retain(|_, jobs| {
            jobs.retain(|entry| !entry.job.is_abandoned());
            !jobs.is_empty()
        });
        let jobs = &self.jobs;
        self.order.retain(|client| jobs.contains_key(client));
        self.count = self.jobs.values().map(VecDeque::len).sum();
    }
}
