//! Work that a server on the same machine must not notice.

use std::fs::File;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use thread_priority::ThreadPriority;

/// How often a growing file is written to the disk.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Runs `work`, which fills `file`, with the lowest priority. Writes the file to the disk while it grows: otherwise the
/// system writes most of it at once, and commits of the server wait for that.
pub(super) fn in_background<T>(file: &File, work: impl FnOnce() -> T) -> T {
    // Without permission, the work has the normal priority.
    let _ = thread_priority::set_current_thread_priority(ThreadPriority::Min);
    let (working, is_over) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while is_over.recv_timeout(SYNC_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // The last sync, before the file gets its name, reports errors.
                let _ = file.sync_data();
            }
        });
        // Dropped here also if the work panics, so that the thread ends.
        let _working = working;
        work()
    })
}
