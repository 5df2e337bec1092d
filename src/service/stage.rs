//! How far the process is on its way to its end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::Service;

/// What is still done for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Everything.
    Serving,
    /// Everything, but it is not ready for more.
    Leaving,
    /// What has arrived in full is finished; nothing is waited for any longer.
    Closing,
}

/// The stage, and for each request, without a lock, whether it is one of the last.
pub(super) struct Stages(watch::Sender<Stage>, AtomicBool);

impl Default for Stages {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Serving), AtomicBool::new(false))
    }
}

impl Service {
    /// From now on it is not ready.
    pub fn leave(&self) {
        self.stages.1.store(true, Ordering::Relaxed);
        self.stages.0.send_replace(Stage::Leaving);
    }

    /// From now on no request body is waited for.
    pub fn close(&self) {
        self.stages.0.send_replace(Stage::Closing);
    }

    /// Whether it will be gone soon.
    pub fn is_leaving(&self) -> bool {
        self.stages.1.load(Ordering::Relaxed)
    }

    /// Waits until no request body is waited for.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut stage = self.stages.0.subscribe();
        async move {
            // The sender lives as long as there are requests; were it gone, nobody would have to hurry.
            if stage.wait_for(|stage| *stage == Stage::Closing).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
