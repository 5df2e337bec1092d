//! Password hashing on separate threads, behind a bounded queue. So the threads that serve requests stay free, and the
//! wait for a hash is limited. The queue serves clients in turn, so one client with many attempts does not block the
//! others. Each thread computes several hashes together, which takes less than half of the time.

mod queue;
mod worker;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use thread_priority::ThreadPriority;
use tokio::sync::oneshot;

use self::queue::{Job, Queue};
use self::worker::{Method, work};
use crate::config::AuthSettings;
use crate::domain::password::checksum::{Checksum, Input};
use crate::domain::password::{Comparison, HashError, NewHash, Password, PasswordHash};
use crate::error::AppError;
use crate::metrics::Durations;
use crate::metrics::hourly::HourlyCounters;

/// Delay of the error for a full queue. Without it, clients that retry without pause would take processor time from the
/// hashing threads, which have the lowest priority.
const REFUSAL_DELAY: Duration = Duration::from_millis(30);

/// The hashing threads. They end when this is dropped.
pub struct Hasher {
    queue: Arc<Queue<Task>>,
    cost: u32,
    /// The number of hashes in progress, for each thread.
    in_use: Vec<Arc<AtomicUsize>>,
    hourly: Arc<HourlyCounters>,
}

impl Hasher {
    /// Starts the threads of the settings (0: one per core), each of which computes several hashes together. `hourly`
    /// records how many jobs wait.
    ///
    /// Errors: [`AppError::Internal`] if the system cannot start a thread.
    pub fn start(settings: &AuthSettings, hourly: Arc<HourlyCounters>) -> Result<Self, AppError> {
        let (threads, lanes) = (settings.hash_threads, settings.hash_lanes);
        let threads = if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let mut hasher = Self::without_threads(settings.hash_queue, settings.bcrypt_cost, hourly);
        for number in 0..threads {
            let (queue, in_use) = (Arc::clone(&hasher.queue), Arc::<AtomicUsize>::default());
            hasher.in_use.push(Arc::clone(&in_use));
            let run = move || {
                lower_priority(number == 0);
                work(&queue, Method::checked(lanes), &in_use);
            };
            let started = thread::Builder::new().name(format!("hasher-{number}")).spawn(run);
            started.map_err(|error| AppError::Internal(error.into()))?;
        }
        Ok(hasher)
    }

    fn without_threads(capacity: usize, cost: u32, hourly: Arc<HourlyCounters>) -> Self {
        Self { queue: Arc::new(Queue::new(capacity)), cost, in_use: Vec::new(), hourly }
    }

    /// Computes a new hash of `password`.
    ///
    /// Errors: [`AppError::Busy`] if the queue is full.
    pub async fn create(&self, address: Option<IpAddr>, password: Password) -> Result<PasswordHash, AppError> {
        let (new, input) = NewHash::of(&password, self.cost).map_err(|error| AppError::Internal(error.into()))?;
        self.run(address, input, |reply| Task::Create(new, reply)).await
    }

    /// A hash that no password matches, for an account whose owner must set a new one.
    pub fn unusable(&self) -> PasswordHash {
        PasswordHash::decoy(self.cost)
    }

    /// Whether `password` matches `hash`. Without a hash, or with a damaged one, the result is `false` after the same
    /// time.
    ///
    /// Errors: [`AppError::Busy`] if the queue is full.
    pub async fn verify(
        &self,
        address: Option<IpAddr>,
        hash: Option<PasswordHash>,
        password: Password,
    ) -> Result<bool, AppError> {
        let compared = match hash.map(|hash| hash.compare(&password)) {
            Some(Err(HashError::Unreadable | HashError::Bcrypt(_))) => {
                log::error!("a stored password hash is damaged; its user cannot sign in");
                PasswordHash::decoy(self.cost).compare(&password)
            }
            Some(compared) => compared,
            None => PasswordHash::decoy(self.cost).compare(&password),
        };
        let (comparison, input) = compared.map_err(|error| AppError::Internal(error.into()))?;
        self.run(address, input, |reply| Task::Compare(comparison, reply)).await
    }

    /// A histogram of the time for which jobs waited for a lane.
    pub fn waits(&self) -> &Durations {
        &self.queue.waits
    }

    /// The number of waiting jobs.
    pub fn waiting(&self) -> usize {
        self.queue.length()
    }

    /// The number of hashes in progress.
    pub fn lanes_in_use(&self) -> usize {
        self.in_use.iter().map(|in_use| in_use.load(Ordering::Relaxed)).sum()
    }

    /// Whether `hash` should be replaced by a new one, because it has an old format or another cost.
    pub fn is_outdated(&self, hash: &PasswordHash) -> bool {
        hash.is_outdated(self.cost)
    }

    /// Checks whether the queue would accept a job of the client with this address, before other work is done for the
    /// request. Reserves nothing.
    ///
    /// Errors: [`AppError::Busy`] if the queue is full.
    pub async fn admit(&self, address: Option<IpAddr>) -> Result<(), AppError> {
        if self.queue.has_capacity_for(address) { Ok(()) } else { Err(delayed(full()).await) }
    }

    async fn run<T>(
        &self,
        address: Option<IpAddr>,
        input: Input,
        task: impl FnOnce(Reply<T>) -> Task,
    ) -> Result<T, AppError> {
        let (reply, receiver) = oneshot::channel();
        let waiting = self.queue.push(address, task(reply), input);
        if waiting > 0 {
            self.hourly.hashes_wait(waiting);
        }
        match receiver.await {
            Ok(Err(refusal)) => Err(delayed(refusal).await),
            result => result.map_err(|error| AppError::Internal(error.into()))?,
        }
    }
}

/// Gives the current thread the lowest priority, so that threads that serve requests run first. If the system does not
/// allow this, all threads are equal, and a warning is logged if `warn` is set.
fn lower_priority(warn: bool) {
    if let Err(error) = thread_priority::set_current_thread_priority(ThreadPriority::Min)
        && warn
    {
        log::warn!(
            "hashing threads cannot lower their priority, so sign-ins slow other requests: {error}. Allow the system \
             calls sched_setscheduler and setpriority. (systemd: SystemCallFilter must not contain ~@resources.)"
        );
    }
}

fn full() -> AppError {
    AppError::Busy("the queue for password hashing is full".into())
}

async fn delayed(refusal: AppError) -> AppError {
    tokio::time::sleep(REFUSAL_DELAY).await;
    refusal
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.queue.close();
    }
}

type Reply<T> = oneshot::Sender<Result<T, AppError>>;

/// The purpose of a checksum, and the channel for the result.
enum Task {
    Create(NewHash, Reply<PasswordHash>),
    Compare(Comparison, Reply<bool>),
}

impl Job for Task {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Create(_, reply) => reply.is_closed(),
            Self::Compare(_, reply) => reply.is_closed(),
        }
    }

    // Sending fails if the request was cancelled during the hash; that is ignored.
    fn finish(self, checksum: &Checksum) {
        match self {
            Self::Create(new, reply) => drop(reply.send(Ok(new.with(checksum)))),
            Self::Compare(comparison, reply) => drop(reply.send(Ok(comparison.matches(checksum)))),
        }
    }

    fn refuse(self) {
        match self {
            Self::Create(_, reply) => drop(reply.send(Err(full()))),
            Self::Compare(_, reply) => drop(reply.send(Err(full()))),
        }
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
        let defaults = crate::config::Settings::defaults().unwrap().auth;
        let settings = AuthSettings { hash_threads: 1, hash_queue: 4, bcrypt_cost: 4, ..defaults };
        let hasher = Hasher::start(&settings, Arc::default()).unwrap();
        let hash = hasher.create(None, password("correct horse")).await.unwrap();
        assert!(hasher.verify(None, Some(hash.clone()), password("correct horse")).await.unwrap());
        assert!(!hasher.verify(None, Some(hash), password("wrong horse")).await.unwrap());
        assert!(!hasher.verify(None, None, password("correct horse")).await.unwrap());
        assert!(!hasher.verify(None, Some("damaged".to_owned().into()), password("damaged")).await.unwrap());
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    /// A hasher whose only thread, with one lane, is started by [`release`].
    fn without_threads(capacity: usize) -> Arc<Hasher> {
        Arc::new(Hasher::without_threads(capacity, 4, Arc::default()))
    }

    fn release(hasher: &Hasher) {
        let queue = Arc::clone(&hasher.queue);
        thread::spawn(move || work(&queue, Method::Lanes(1), &AtomicUsize::default()));
    }

    /// Runs all spawned tasks until they wait.
    async fn run_tasks() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    type Finished = std::sync::mpsc::Sender<&'static str>;

    /// Requests a hash, and sends `text` when it is computed.
    fn request(
        hasher: &Arc<Hasher>,
        address: Option<IpAddr>,
        text: &'static str,
        finished: &Finished,
    ) -> tokio::task::JoinHandle<Result<(), AppError>> {
        let (hasher, finished) = (Arc::clone(hasher), finished.clone());
        tokio::spawn(async move {
            hasher.create(address, password(text)).await?;
            finished.send(text).unwrap();
            Ok(())
        })
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_at_once() {
        let hasher = without_threads(1);
        let (finished, _order) = std::sync::mpsc::channel();
        let waiting = request(&hasher, address(1), "waits", &finished);
        run_tasks().await;
        assert!(matches!(hasher.create(address(1), password("refused")).await, Err(AppError::Busy(_))));
        for client in [address(1), address(2)] {
            assert!(matches!(hasher.admit(client).await, Err(AppError::Busy(_))), "no client has priority: {client:?}");
        }
        assert_eq!((hasher.waiting(), hasher.lanes_in_use()), (1, 0));
        release(&hasher);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn clients_are_served_in_turn_and_a_full_queue_drops_a_job_of_the_client_with_most() {
        let hasher = without_threads(4);
        let (finished, order) = std::sync::mpsc::channel();
        let mut greedy = Vec::new();
        for text in ["greedy 1", "greedy 2", "greedy 3", "greedy 4"] {
            greedy.push(request(&hasher, address(1), text, &finished));
            run_tasks().await;
        }
        assert!(matches!(hasher.admit(address(1)).await, Err(AppError::Busy(_))));
        hasher.admit(address(2)).await.unwrap();
        let modest = request(&hasher, address(2), "modest", &finished);
        run_tasks().await;
        release(&hasher);
        modest.await.unwrap().unwrap();
        let last = greedy.pop().unwrap().await.unwrap();
        assert!(matches!(last, Err(AppError::Busy(_))), "it was replaced by a job of another client");
        for job in greedy {
            job.await.unwrap().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["greedy 1", "modest", "greedy 2", "greedy 3"]);
    }

    #[tokio::test]
    async fn the_longest_queue_counts_the_jobs_for_which_no_thread_is_idle() {
        let hasher = without_threads(8);
        let (finished, _order) = std::sync::mpsc::channel();
        let longest = |hasher: &Hasher| hasher.hourly.take().into_values().map(|counts| counts.hash_queue_max).max();
        hasher.queue.set_idle(2);
        let mut waiting = Vec::new();
        for expected in [None, None, Some(1), Some(2)] {
            waiting.push(request(&hasher, address(1), "waits", &finished));
            run_tasks().await;
            assert_eq!(longest(&hasher), expected, "{} jobs", waiting.len());
        }
        hasher.queue.set_idle(0);
        waiting.push(request(&hasher, address(2), "waits", &finished));
        run_tasks().await;
        assert_eq!(longest(&hasher), Some(5));
    }

    #[tokio::test]
    async fn a_cancelled_request_takes_no_hash_and_no_place_in_the_queue() {
        let hasher = without_threads(1);
        let (finished, order) = std::sync::mpsc::channel();
        let gone = request(&hasher, address(1), "gone", &finished);
        run_tasks().await;
        gone.abort();
        run_tasks().await;
        let stays = request(&hasher, address(1), "stays", &finished);
        run_tasks().await;
        release(&hasher);
        stays.await.unwrap().unwrap();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["stays"]);
    }

    #[tokio::test]
    async fn a_busy_thread_leaves_jobs_to_idle_ones() {
        let hasher = without_threads(4);
        let (finished, _order) = std::sync::mpsc::channel();
        let waiting = request(&hasher, address(1), "waits", &finished);
        run_tasks().await;
        hasher.queue.set_idle(1);
        assert!(hasher.queue.pop_surplus().is_none());
        hasher.queue.set_idle(0);
        assert!(hasher.queue.pop_surplus().is_some());
        waiting.abort();
    }
}
