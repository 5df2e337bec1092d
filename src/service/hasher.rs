//! Password hashing on threads of its own, behind a bounded queue: however many clients sign in, the request threads
//! stay free and the wait stays short. Clients take turns, so that one with many attempts does not keep out the others.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use thread_priority::ThreadPriority;
use tokio::sync::oneshot;

use crate::domain::network::Network;
use crate::domain::password::{HashError, Password, PasswordHash};
use crate::error::AppError;
use crate::metrics::Durations;

/// How long a refusal is held back. Clients that try again at once would otherwise take from the hashing threads, which
/// give way to everybody, what time they have.
const HOLD: Duration = Duration::from_millis(30);

/// Who waits. Whoever has no address shares a turn.
pub type Client = Option<IpAddr>;

/// The hashing threads. They end when this is dropped.
pub struct Hasher {
    queue: Arc<Queue>,
    cost: u32,
    waits: Durations,
}

impl Hasher {
    /// Starts `threads` threads (0: one per core) with room for `waiting` jobs, making hashes of `cost`.
    pub fn start(threads: usize, waiting: usize, cost: u32) -> Result<Self, AppError> {
        let threads = if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let queue = Arc::new(Queue { room: waiting, waiting: Mutex::default(), changed: Condvar::new() });
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("hasher-{number}"))
                .spawn(move || work(&queue))
                .map_err(|error| AppError::Internal(error.into()))?;
        }
        Ok(Self { queue, cost, waits: Durations::default() })
    }

    /// A fresh hash of `password`.
    pub async fn create(&self, client: Client, password: Password) -> Result<PasswordHash, AppError> {
        let cost = self.cost;
        let created = self.run(client, move || PasswordHash::create(&password, cost)).await?;
        created.map_err(|error| AppError::Internal(error.into()))
    }

    /// Whether `password` matches `hash`. Without a hash it never does, and takes the same time.
    pub async fn verify(
        &self,
        client: Client,
        hash: Option<PasswordHash>,
        password: Password,
    ) -> Result<bool, AppError> {
        let decoy = PasswordHash::decoy(self.cost);
        let compare = move || match hash.map(|hash| hash.verify(&password)) {
            Some(Err(HashError::Unreadable | HashError::Bcrypt(_))) => {
                log::error!("a stored password hash is damaged; its user cannot sign in");
                decoy.verify(&password)
            }
            Some(answer) => answer,
            None => decoy.verify(&password),
        };
        self.run(client, compare).await?.map_err(|error| AppError::Internal(error.into()))
    }

    /// How long jobs waited for a thread.
    pub fn waits(&self) -> &Durations {
        &self.waits
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.queue.waiting().count
    }

    /// Whether `hash` should be replaced by a fresh one.
    pub fn is_outdated(&self, hash: &PasswordHash) -> bool {
        hash.is_outdated(self.cost)
    }

    /// Whether a hash for this client would be done at all: to be asked before anything else is done for it. A place is
    /// not kept.
    pub async fn admit(&self, client: Client) -> Result<(), AppError> {
        if self.queue.has_room_for(client) { Ok(()) } else { Err(held_back(full()).await) }
    }

    async fn run<T: Send + 'static>(
        &self,
        client: Client,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AppError> {
        let (answer, receiver) = oneshot::channel();
        let (asked, waits) = (Instant::now(), self.waits.clone());
        let work = move || {
            waits.note(asked.elapsed());
            work()
        };
        self.queue.push(client, Box::new(Asked { work, answer }));
        match receiver.await {
            Ok(Err(refusal)) => Err(held_back(refusal).await),
            answer => answer.map_err(|error| AppError::Internal(error.into()))?,
        }
    }
}

fn full() -> AppError {
    AppError::Busy("the queue for password hashing is full".into())
}

async fn held_back(refusal: AppError) -> AppError {
    tokio::time::sleep(HOLD).await;
    refusal
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.queue.waiting().closed = true;
        self.queue.changed.notify_all();
    }
}

/// Something to be hashed.
trait Job: Send {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
    /// Does it.
    fn run(self: Box<Self>);
    /// Tells that it will not be done.
    fn refuse(self: Box<Self>);
}

struct Asked<W, T> {
    work: W,
    answer: oneshot::Sender<Result<T, AppError>>,
}

impl<T: Send, W: FnOnce() -> T + Send> Job for Asked<W, T> {
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(self: Box<Self>) {
        // Whoever waits may go away during the hash; then nobody listens.
        let _ = self.answer.send(Ok((self.work)()));
    }

    fn refuse(self: Box<Self>) {
        let _ = self.answer.send(Err(full()));
    }
}

/// Jobs that wait, by client.
struct Queue {
    room: usize,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: HashMap<Option<Network>, VecDeque<Box<dyn Job>>>,
    /// Clients with jobs, the next one first.
    turns: VecDeque<Option<Network>>,
    count: usize,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a job of this client would find a place now, if need be that of somebody who has more.
    fn has_room_for(&self, client: Client) -> bool {
        let client = client.map(Network::of);
        let mut waiting = self.waiting();
        if waiting.count >= self.room {
            waiting.forget_abandoned();
        }
        waiting.count < self.room || waiting.length(client) + 1 < waiting.longest()
    }

    /// Adds a job, or refuses one: when the queue is full, the latest of the client who has most of it.
    fn push(&self, client: Client, job: Box<dyn Job>) {
        let client = client.map(Network::of);
        let mut waiting = self.waiting();
        if waiting.count >= self.room {
            waiting.forget_abandoned();
        }
        waiting.add(client, job);
        let refused = if waiting.count > self.room { waiting.remove_from_largest() } else { None };
        drop(waiting);
        self.changed.notify_one();
        if let Some(refused) = refused {
            refused.refuse();
        }
    }

    /// The next job; waits for one. `None` when there will be no more.
    fn pop(&self) -> Option<Box<dyn Job>> {
        let mut waiting = self.waiting();
        loop {
            match waiting.take_turn() {
                Some(job) if job.is_abandoned() => {}
                Some(job) => return Some(job),
                None if waiting.closed => return None,
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Waiting {
    fn add(&mut self, client: Option<Network>, job: Box<dyn Job>) {
        let jobs = self.jobs.entry(client).or_default();
        if jobs.is_empty() {
            self.turns.push_back(client);
        }
        jobs.push_back(job);
        self.count += 1;
    }

    /// The oldest job of the client whose turn it is.
    fn take_turn(&mut self) -> Option<Box<dyn Job>> {
        let client = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&client)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.count -= usize::from(job.is_some());
        job
    }

    /// The latest job of the client who has most; of clients with equally many, of the one who came last.
    fn remove_from_largest(&mut self) -> Option<Box<dyn Job>> {
        let largest = self.turns.iter().copied().max_by_key(|client| self.length(*client))?;
        let jobs = self.jobs.get_mut(&largest)?;
        let job = jobs.pop_back();
        if jobs.is_empty() {
            self.jobs.remove(&largest);
            self.turns.retain(|client| *client != largest);
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

    fn forget_abandoned(&mut self) {
        self.jobs.retain(|_, jobs| {
            jobs.retain(|job| !job.is_abandoned());
            !jobs.is_empty()
        });
        let jobs = &self.jobs;
        self.turns.retain(|client| jobs.contains_key(client));
        self.count = self.jobs.values().map(VecDeque::len).sum();
    }
}

fn work(queue: &Queue) {
    // Threads that serve requests go first; where the system does not let us, all are equal.
    let _ = thread_priority::set_current_thread_priority(ThreadPriority::Min);
    while let Some(job) = queue.pop() {
        // A job that panics drops its answer, which its caller notices; the thread lives on.
        drop(catch_unwind(AssertUnwindSafe(|| job.run())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[tokio::test]
    async fn only_the_right_password_matches_and_no_hash_matches_nothing() {
        let hasher = Hasher::start(1, 4, 4).unwrap();
        let hash = hasher.create(None, password("correct horse")).await.unwrap();
        assert!(hasher.verify(None, Some(hash.clone()), password("correct horse")).await.unwrap());
        assert!(!hasher.verify(None, Some(hash), password("wrong horse")).await.unwrap());
        assert!(!hasher.verify(None, None, password("correct horse")).await.unwrap());
        assert!(!hasher.verify(None, Some("damaged".to_owned().into()), password("damaged")).await.unwrap());
    }

    fn address(last: u8) -> Client {
        Some([192, 0, 2, last].into())
    }

    /// A hasher whose one thread is held up until the sender is used.
    async fn held_up(room: usize) -> (Arc<Hasher>, std::sync::mpsc::Sender<()>) {
        let hasher = Arc::new(Hasher::start(1, room, 4).unwrap());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let holding = Arc::clone(&hasher);
        tokio::spawn(async move {
            let hold = move || {
                started.send(()).unwrap();
                held.recv().unwrap();
            };
            holding.run(None, hold).await.unwrap();
        });
        running.await.unwrap();
        (hasher, release)
    }

    /// Lets everything that was spawned get as far as it can.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    fn ask<T: Send + 'static>(
        hasher: &Arc<Hasher>,
        client: Client,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> tokio::task::JoinHandle<Result<T, AppError>> {
        let hasher = Arc::clone(hasher);
        tokio::spawn(async move { hasher.run(client, work).await })
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_at_once() {
        let (hasher, release) = held_up(1).await;
        let waiting = ask(&hasher, address(1), || ());
        settle().await;
        assert!(matches!(hasher.run(address(1), || ()).await, Err(AppError::Busy(_))));
        for client in [address(1), address(2)] {
            assert!(matches!(hasher.admit(client).await, Err(AppError::Busy(_))), "{client:?} has no more right to it");
        }
        release.send(()).unwrap();
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn clients_take_turns_and_the_one_with_most_gives_way() {
        let (hasher, release) = held_up(4).await;
        let (said, order) = std::sync::mpsc::channel();
        let say = |text: &'static str| {
            let said = said.clone();
            move || said.send(text).unwrap()
        };
        let mut greedy = Vec::new();
        for text in ["greedy 1", "greedy 2", "greedy 3", "greedy 4"] {
            greedy.push(ask(&hasher, address(1), say(text)));
            settle().await;
        }
        assert!(matches!(hasher.admit(address(1)).await, Err(AppError::Busy(_))));
        hasher.admit(address(2)).await.unwrap();
        let modest = ask(&hasher, address(2), say("modest"));
        settle().await;
        release.send(()).unwrap();
        modest.await.unwrap().unwrap();
        let last = greedy.pop().unwrap().await.unwrap();
        assert!(matches!(last, Err(AppError::Busy(_))), "room was made for somebody else");
        for job in greedy {
            job.await.unwrap().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["greedy 1", "modest", "greedy 2", "greedy 3"]);
    }

    #[tokio::test]
    async fn whoever_went_away_costs_no_hash_and_no_room() {
        let (hasher, release) = held_up(1).await;
        let (said, order) = std::sync::mpsc::channel();
        let gone = ask(&hasher, address(1), {
            let said = said.clone();
            move || said.send("gone").unwrap()
        });
        settle().await;
        gone.abort();
        settle().await;
        let stays = ask(&hasher, address(1), move || said.send("stays").unwrap());
        settle().await;
        release.send(()).unwrap();
        stays.await.unwrap().unwrap();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["stays"]);
    }
}
