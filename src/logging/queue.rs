//! The queue between the threads that log and the thread that writes. Pushing a line takes no lock, and wakes the
//! writer only if it sleeps.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

/// Maximum number of queued lines.
const MAX_LINES: usize = 10_000;
/// Number of bytes from which on a batch is written.
const BATCH_BYTES: usize = 64 * 1024;
/// The time that the writer waits after a batch, so that the next one has more lines.
const BATCH_INTERVAL: Duration = Duration::from_millis(2);
/// The maximum time that the writer sleeps.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// The time-out of a flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The sending side of the queue. Clones share the queue.
#[derive(Clone)]
pub(super) struct Queue {
    messages: SyncSender<Message>,
    writer: Thread,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Whether the writer sleeps and must be woken.
    is_asleep: AtomicBool,
    /// The number of lines that were dropped because the queue was full.
    lost: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    /// A request to send a signal when all earlier lines are written.
    Flush(SyncSender<()>),
}

impl Queue {
    /// Starts a thread that writes to `output`.
    pub(super) fn start(output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (messages, received) = sync_channel(MAX_LINES);
        let state = Arc::<State>::default();
        let writer = Writer { received, state: Arc::clone(&state), batch: Vec::new(), flushed: None, output };
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { messages, writer: thread.thread().clone(), state })
    }

    /// Queues a line, or counts it as lost if the queue is full.
    pub(super) fn push(&self, line: Vec<u8>) {
        if self.messages.try_send(Message::Line(line)).is_err() {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    /// Waits until the queued lines are written, for at most [`FLUSH_TIMEOUT`]. Returns at once if the queue is full.
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            self.wake();
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn wake(&self) {
        // The message was sent before. Either this thread sees that the writer sleeps, or the writer sees the message.
        fence(Ordering::SeqCst);
        if self.state.is_asleep.load(Ordering::Relaxed) && self.state.is_asleep.swap(false, Ordering::Relaxed) {
            self.writer.unpark();
        }
    }
}

struct Writer<W> {
    received: Receiver<Message>,
    state: Arc<State>,
    batch: Vec<u8>,
    flushed: Option<SyncSender<()>>,
    output: W,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        while self.collect() {
            if self.has_work() {
                let is_full = self.batch.len() >= BATCH_BYTES;
                self.write();
                if !is_full {
                    thread::sleep(BATCH_INTERVAL);
                }
                continue;
            }
            self.state.is_asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !self.collect() {
                return;
            }
            if !self.has_work() {
                thread::park_timeout(MAX_SLEEP);
            }
            self.state.is_asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Receives lines until a batch is full or a flush is requested. Returns `false` if all senders are gone and
    /// nothing is left to write.
    fn collect(&mut self) -> bool {
        use std::sync::mpsc::TryRecvError::{Disconnected, Empty};

        while self.batch.len() < BATCH_BYTES && self.flushed.is_none() {
            match self.received.try_recv() {
                Ok(Message::Line(line)) => self.batch.extend_from_slice(&line),
                Ok(Message::Flush(done)) => self.flushed = Some(done),
                Err(Empty) => return true,
                Err(Disconnected) => return self.has_work(),
            }
        }
        true
    }

    fn has_work(&self) -> bool {
        !self.batch.is_empty() || self.flushed.is_some()
    }

    fn write(&mut self) {
        // An error of standard error cannot be reported anywhere.
        let _ = self.output.write_all(&self.batch);
        self.batch.clear();
        if let Some(done) = self.flushed.take() {
            let _ = done.try_send(());
        }
        match self.state.lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => log::error!("{count} log lines are lost, because standard error was not read in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// An output that blocks while the mutex is locked, and sends each write to a channel.
    struct Gate {
        writes: Sender<Vec<u8>>,
        open: Arc<Mutex<()>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _open = self.open.lock().unwrap();
            let _ = self.writes.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Queue, Arc<Mutex<()>>, Receiver<Vec<u8>>) {
        let (writes, written) = channel();
        let open = Arc::<Mutex<()>>::default();
        (Queue::start(Gate { writes, open: Arc::clone(&open) }).unwrap(), open, written)
    }

    fn line(thread: usize, number: usize) -> String {
        format!("{thread} {number:04} {}\n", "x".repeat(100))
    }

    #[test]
    fn lines_of_many_threads_are_written_whole_in_batches_and_in_order_per_thread() {
        let (queue, open, written) = gate();
        let held = open.lock().unwrap();
        let push = |queue: Queue, thread| (0..1_000).for_each(|number| queue.push(line(thread, number).into_bytes()));
        let threads: Vec<_> = (0..4).map(|number| (queue.clone(), number)).collect();
        let threads = threads.into_iter().map(|(queue, number)| thread::spawn(move || push(queue, number)));
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        drop(held);
        queue.flush();
        let writes: Vec<Vec<u8>> = written.try_iter().collect();
        assert!(writes.len() < 40, "{} writes", writes.len());
        assert!(writes.iter().all(|write| write.len() < 64 * 1024 + 200 && write.ends_with(b"\n")));
        let text = String::from_utf8(writes.concat()).unwrap();
        for thread in 0..4 {
            let lines = text.lines().filter(|text| text.starts_with(&format!("{thread} ")));
            assert_eq!(
                lines.map(|line| format!("{line}\n")).collect::<String>(),
                (0..1_000).map(|number| line(thread, number)).collect::<String>()
            );
        }
    }

    #[test]
    fn lines_are_dropped_and_counted_without_waiting_if_the_queue_is_full() {
        let (queue, open, written) = gate();
        let held = open.lock().unwrap();
        // Push until the writer is blocked in a write and the queue is full.
        while queue.state.lost.load(Ordering::Relaxed) == 0 {
            queue.push(line(0, 0).into_bytes());
        }
        let lost = queue.state.lost.load(Ordering::Relaxed);
        queue.push(line(0, 1).into_bytes());
        assert!(queue.state.lost.load(Ordering::Relaxed) > lost);
        drop(held);
        queue.push(Vec::new());
        while queue.state.lost.load(Ordering::Relaxed) > 0 {
            assert!(written.recv_timeout(Duration::from_secs(20)).is_ok());
        }
    }

    #[test]
    fn a_line_wakes_a_writer_that_sleeps() {
        let (queue, _open, written) = gate();
        for number in 0..20 {
            while !queue.state.is_asleep.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            queue.push(line(0, number).into_bytes());
            let text =
                written.recv_timeout(Duration::from_millis(500)).expect("the writer is woken before its sleep ends");
            assert_eq!(text, line(0, number).into_bytes());
        }
    }
}
