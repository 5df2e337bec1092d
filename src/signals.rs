//! Signals of a serving process. `docs/operations.md` lists them.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The kind of shutdown that a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A graceful shutdown in phases: SIGTERM or SIGINT.
    Graceful,
    /// A shutdown without waiting for requests: SIGQUIT.
    Immediate,
}

/// The signals that a serving process handles. It handles them from the creation of this value on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Installs handlers, which replace the default of the system to end the process.
    ///
    /// Errors: a handler cannot be installed.
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

    /// Waits for a signal that requests a shutdown. All others are only logged.
    pub async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Stop::Graceful,
                _ = self.interrupt.recv() => return Stop::Graceful,
                _ = self.quit.recv() => return Stop::Immediate,
                _ = self.hangup.recv() => log::info!(
                    "SIGHUP changes nothing: changed TLS files are loaded automatically, changed settings require a \
                     restart"
                ),
                _ = self.user1.recv() => log::info!("SIGUSR1 changes nothing"),
                _ = self.user2.recv() => log::info!("SIGUSR2 changes nothing"),
            }
        }
    }
}
