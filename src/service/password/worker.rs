//! The loop of a hashing thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::password::checksum::{Checksum, Lanes, MAX_LANES, check};
use crate::service::password::queue::{Job, Queue};

/// Rounds of bcrypt between two checks of the queue. They take 1 to 2 ms; a hash of cost 12 takes about 250 ms.
const ROUNDS_PER_STEP: u32 = 16;

/// How checksums are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// In up to this many lanes together.
    Lanes(usize),
    /// One after the other, with the `bcrypt` crate.
    Reference,
}

impl Method {
    /// Up to `lanes` lanes, if they compute the same checksums as the `bcrypt` crate on this machine; otherwise that
    /// crate.
    pub(crate) fn checked(lanes: usize) -> Self {
        static LANES_ARE_RIGHT: LazyLock<bool> = LazyLock::new(|| {
            let are_right = check(MAX_LANES);
            if !are_right {
                log::error!("password hashing in lanes yields wrong checksums here; hashing one at a time instead");
            }
            are_right
        });
        if *LANES_ARE_RIGHT { Self::Lanes(lanes.clamp(1, MAX_LANES)) } else { Self::Reference }
    }
}

/// Runs jobs until the queue is closed. Keeps `in_use` at the number of jobs in progress. A job is no longer counted
/// when its result is sent.
pub(crate) fn work<J: Job>(queue: &Queue<J>, method: Method, in_use: &AtomicUsize) {
    match method {
        Method::Lanes(max_lanes) => work_in_lanes(queue, max_lanes, in_use),
        Method::Reference => {
            while let Some((job, input)) = queue.pop() {
                in_use.store(1, Ordering::Relaxed);
                let checksum = input.reference_checksum();
                in_use.store(0, Ordering::Relaxed);
                finish(job, &checksum);
            }
        }
    }
}

/// Computes several jobs together. A job that arrives while others are in progress joins them at the next check of the
/// queue. Only one job joins at a time, so jobs that arrive together are spread over the threads.
fn work_in_lanes<J: Job>(queue: &Queue<J>, max_lanes: usize, in_use: &AtomicUsize) {
    let mut lanes = Lanes::default();
    loop {
        lanes.retain(|job: &J| !job.is_abandoned());
        in_use.store(lanes.in_use(), Ordering::Relaxed);
        let next = match lanes.in_use() {
            0 => match queue.pop() {
                None => return,
                next => next,
            },
            some if some < max_lanes => queue.pop_surplus(),
            _ => None,
        };
        if let Some((job, input)) = next {
            lanes.add(job, &input);
            in_use.store(lanes.in_use(), Ordering::Relaxed);
        }
        let finished = lanes.advance(ROUNDS_PER_STEP);
        in_use.store(lanes.in_use(), Ordering::Relaxed);
        for (job, checksum) in finished {
            finish(job, &checksum);
        }
    }
}

/// Completes a job. If it panics, its channel is dropped and its caller gets an error; the thread and the other jobs
/// continue.
fn finish<J: Job>(job: J, checksum: &Checksum) {
    drop(catch_unwind(AssertUnwindSafe(|| job.finish(checksum))));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;
    use crate::domain::password::checksum::Input;

    /// The name of a job, its checksum, and the number of jobs in progress on its thread when the result was sent.
    type Finished = (&'static str, Checksum, usize);

    /// Sends its result to the test.
    struct TestJob {
        name: &'static str,
        in_use: Arc<AtomicUsize>,
        finished: mpsc::Sender<Finished>,
        is_cancelled: Arc<AtomicBool>,
    }

    impl Job for TestJob {
        fn is_abandoned(&self) -> bool {
            self.is_cancelled.load(Ordering::Relaxed)
        }

        fn finish(self, checksum: &Checksum) {
            assert_ne!(self.name, "panics");
            self.finished.send((self.name, *checksum, self.in_use.load(Ordering::Relaxed))).unwrap();
        }

        fn refuse(self) {}
    }

    fn input(cost: u32) -> Input {
        Input::new(b"correct horse", [7; 16], cost).unwrap()
    }

    struct Fixture {
        queue: Arc<Queue<TestJob>>,
        in_use: Arc<AtomicUsize>,
        finished: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    }

    impl Fixture {
        fn new() -> Self {
            Self { queue: Arc::new(Queue::new(100)), in_use: Arc::default(), finished: mpsc::channel() }
        }

        /// Adds a job. Setting the returned flag cancels its request.
        fn push(&self, name: &'static str, cost: u32) -> Arc<AtomicBool> {
            let is_cancelled = Arc::new(AtomicBool::new(false));
            let (in_use, finished) = (Arc::clone(&self.in_use), self.finished.0.clone());
            let job = TestJob { name, in_use, finished, is_cancelled: Arc::clone(&is_cancelled) };
            self.queue.push(None, job, input(cost));
            is_cancelled
        }

        fn start(&self, method: Method) -> thread::JoinHandle<()> {
            let (queue, in_use) = (Arc::clone(&self.queue), Arc::clone(&self.in_use));
            thread::spawn(move || work(&queue, method, &in_use))
        }

        fn next(&self) -> &'static str {
            self.finished.1.recv().unwrap().0
        }

        /// Waits until `count` jobs are in progress.
        fn wait_for_lanes(&self, count: usize) {
            while self.in_use.load(Ordering::Relaxed) != count {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn every_method_computes_the_checksum_of_every_job() {
        for method in [Method::Lanes(1), Method::Lanes(4), Method::Lanes(8), Method::Reference] {
            let fixture = Fixture::new();
            let costs = [4, 5, 4, 4, 5, 4, 4, 4, 4, 4];
            costs.iter().for_each(|cost| drop(fixture.push(if *cost == 4 { "4" } else { "5" }, *cost)));
            fixture.queue.close();
            fixture.start(method).join().unwrap();
            let finished: Vec<_> = fixture.finished.1.try_iter().collect();
            assert_eq!(finished.len(), costs.len(), "{method:?}");
            assert_eq!(
                finished.last().unwrap().2,
                0,
                "{method:?}: the last job is no longer counted when its result is sent"
            );
            for (name, checksum, _) in finished {
                assert_eq!(checksum, input(name.parse().unwrap()).reference_checksum(), "{method:?}");
            }
        }
    }

    #[test]
    fn one_lane_runs_jobs_in_order_whatever_their_cost() {
        let fixture = Fixture::new();
        fixture.push("first, of cost 6", 6);
        fixture.push("second, of cost 4", 4);
        fixture.queue.close();
        fixture.start(Method::Lanes(1)).join().unwrap();
        assert_eq!([fixture.next(), fixture.next()], ["first, of cost 6", "second, of cost 4"]);
    }

    #[test]
    fn a_short_job_joins_a_long_one_in_progress_and_ends_before_it() {
        let fixture = Fixture::new();
        // Completing this job would take days.
        let long = fixture.push("long", 31);
        let thread = fixture.start(Method::Lanes(2));
        fixture.wait_for_lanes(1);
        fixture.push("short", 4);
        assert_eq!(fixture.next(), "short");
        fixture.wait_for_lanes(1);
        long.store(true, Ordering::Relaxed);
        fixture.queue.close();
        thread.join().unwrap();
    }

    #[test]
    fn an_abandoned_job_frees_its_lane() {
        let fixture = Fixture::new();
        let long = fixture.push("long", 31);
        let thread = fixture.start(Method::Lanes(1));
        fixture.wait_for_lanes(1);
        fixture.push("next", 4);
        long.store(true, Ordering::Relaxed);
        assert_eq!(fixture.next(), "next");
        fixture.queue.close();
        thread.join().unwrap();
        assert!(fixture.finished.1.try_recv().is_err(), "the cancelled job was not finished");
    }

    #[test]
    fn a_job_that_panics_stops_neither_its_thread_nor_the_jobs_in_other_lanes() {
        for method in [Method::Lanes(4), Method::Reference] {
            let fixture = Fixture::new();
            fixture.push("panics", 4);
            fixture.push("beside", 4);
            let thread = fixture.start(method);
            assert_eq!(fixture.next(), "beside");
            fixture.push("later", 4);
            assert_eq!(fixture.next(), "later");
            fixture.queue.close();
            thread.join().unwrap();
        }
    }

    #[test]
    fn lanes_are_right_on_this_machine() {
        assert_eq!(Method::checked(3), Method::Lanes(3));
    }
}
