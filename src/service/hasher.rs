//! Password hashing on threads of its own, behind a bounded queue: however many clients sign in, the request threads
//! stay free and the wait stays short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use crate::domain::password::{HashError, Password, PasswordHash};
use crate::error::AppError;

type Job = Box<dyn FnOnce() + Send>;

/// The hashing threads. They end when this is dropped.
pub struct Hasher {
    queue: SyncSender<Job>,
    cost: u32,
}

impl Hasher {
    /// Starts `threads` threads (0: one per core) with room for `waiting` jobs, making hashes of `cost`.
    pub fn start(threads: usize, waiting: usize, cost: u32) -> Result<Self, AppError> {
        let threads = if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let (queue, jobs) = sync_channel(waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name(format!("hasher-{number}"))
                .spawn(move || work(&jobs))
                .map_err(|error| AppError::Internal(error.into()))?;
        }
        Ok(Self { queue, cost })
    }

    /// A fresh hash of `password`.
    pub async fn create(&self, password: Password) -> Result<PasswordHash, AppError> {
        let cost = self.cost;
        self.run(move || PasswordHash::create(&password, cost)).await?.map_err(|error| AppError::Internal(error.into()))
    }

    /// Whether `password` matches `hash`. Without a hash it never does, and takes the same time.
    pub async fn verify(&self, hash: Option<PasswordHash>, password: Password) -> Result<bool, AppError> {
        let decoy = PasswordHash::decoy(self.cost);
        let compare = move || match hash.map(|hash| hash.verify(&password)) {
            Some(Err(HashError::Unreadable | HashError::Bcrypt(_))) => {
                log::error!("a stored password hash is damaged; its user cannot sign in");
                decoy.verify(&password)
            }
            Some(answer) => answer,
            None => decoy.verify(&password),
        };
        self.run(compare).await?.map_err(|error| AppError::Internal(error.into()))
    }

    /// Whether `hash` should be replaced by a fresh one.
    pub fn is_outdated(&self, hash: &PasswordHash) -> bool {
        hash.is_outdated(self.cost)
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, AppError> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A client that went away while it waited costs no hash.
            if !answer.is_closed() {
                // It may go away during the hash, too; then nobody listens.
                let _ = answer.send(job());
            }
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => AppError::Busy("the queue for password hashing is full".into()),
            TrySendError::Disconnected(_) => AppError::Internal("the hashing threads are gone".into()),
        })?;
        receiver.await.map_err(|error| AppError::Internal(error.into()))
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting for a job, not while doing it.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // A job that panics drops its answer, which its caller notices; the thread lives on.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Err(_) => return,
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
        let hasher = Hasher::start(1, 4, 4).unwrap();
        let hash = hasher.create(password("correct horse")).await.unwrap();
        assert!(hasher.verify(Some(hash.clone()), password("correct horse")).await.unwrap());
        assert!(!hasher.verify(Some(hash), password("wrong horse")).await.unwrap());
        assert!(!hasher.verify(None, password("correct horse")).await.unwrap());
        assert!(!hasher.verify(Some("damaged".to_owned().into()), password("damaged")).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_at_once() {
        let hasher = Hasher::start(1, 1, 4).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let blocked = hasher.run(move || {
            started.send(()).unwrap();
            held.recv().unwrap();
        });
        let queued = async {
            running.await.unwrap();
            let waiting = hasher.run(|| ());
            let refused = async {
                let answer = hasher.run(|| ()).await;
                release.send(()).unwrap();
                answer
            };
            let (waiting, refused) = tokio::join!(waiting, refused);
            waiting.unwrap();
            refused
        };
        let (blocked, refused) = tokio::join!(blocked, queued);
        blocked.unwrap();
        assert!(matches!(refused, Err(AppError::Busy(_))));
    }
}
