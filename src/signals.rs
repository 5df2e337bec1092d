//! What signals mean to a serving process. `docs/operations.md` has the same as a table.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the process is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Step by step: SIGTERM or SIGINT.
    InSteps,
    /// Without waiting for requests: SIGQUIT.
    AtOnce,
}

/// The signals that a serving process handles, from the moment on at which this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes the signals over from the system, which would end the process.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal to stop. Logs the others, which change nothing.
    pub async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::InSteps,
                _ = self.interrupt.recv() => return Stop::InSteps,
                _ = self.quit.recv() => return Stop::AtOnce,
                _ = self.hangup.recv() => log::info!(
                    "SIGHUP changes nothing: TLS files are read again by themselves, settings after a restart"
                ),
                _ = self.user1.recv() => log::info!("SIGUSR1 changes nothing"),
                _ = self.user2.recv() => log::info!("SIGUSR2 changes nothing"),
            }
        }
    }
}
