//! How far the process is on its way to its end.

use tokio::sync::watch;

use super::Service;

/// What is still done for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Everything.
    Serving,
    /// Everything, but it is not ready for more.
    Leaving,
    /// What has arrived in full is finished; nothing is waited for any longer.
    Closing,
}

/// The stage, for all who must know.
pub(super) struct Stages(watch::Sender<Stage>);

impl Default for Stages {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }
}

impl Service {
    /// From now on it is not ready.
    pub fn leave(&self) {
        self.stages.0.send_replace(Stage::Leaving);
    }

    /// From now on no request body is waited for.
    pub fn close(&self) {
        self.stages.0.send_replace(Stage::Closing);
    }

    /// Whether it will be gone soon.
    pub(super) fn is_leaving(&self) -> bool {
        *self.stages.0.borrow() >= Stage::Leaving
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
