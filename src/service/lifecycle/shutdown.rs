//! The phases of the shutdown.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// What the process still does for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShutdownPhase {
    /// Serves all requests.
    Serving,
    /// Serves all requests, but the readiness check fails.
    Draining,
    /// Finishes requests that have arrived in full, and reads no request body any further.
    BodiesStopped,
}

/// The shutdown phase of this process.
pub struct Shutdown {
    phase: watch::Sender<ShutdownPhase>,
    /// The same as an atomic, which each request can read without a lock.
    is_draining: AtomicBool,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        Self { phase: watch::Sender::new(ShutdownPhase::Serving), is_draining: AtomicBool::new(false) }
    }

    /// Begins the shutdown: from now on the readiness check fails.
    pub fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.phase.send_replace(ShutdownPhase::Draining);
    }

    /// From now on no request body is read any further.
    pub fn stop_reading_bodies(&self) {
        self.phase.send_replace(ShutdownPhase::BodiesStopped);
    }

    /// Whether the shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Completes when request bodies must not be read any further.
    pub fn until_bodies_stop(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            // The sender exists as long as there are requests. Without it, nothing stops them early.
            if phase.wait_for(|phase| *phase == ShutdownPhase::BodiesStopped).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
