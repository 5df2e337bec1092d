//! The command `latchkey serve`, which is also the default.

use super::Outcome;
use crate::clock::Clock;
use crate::config::Settings;
use crate::server::Server;
use crate::signals::Signals;

pub(super) async fn serve(settings: &Settings) -> Outcome {
    // Process 1 of a container ignores signals without a handler, so the handlers are installed before the start.
    let mut signals = Signals::listen()?;
    let server = tokio::select! {
        started = Server::start(settings, Clock::default()) => started?,
        _ = signals.stop() => {
            log::info!("stopped before the server started");
            return Ok(());
        }
    };
    server.run_until(signals).await?;
    log::info!("stopped");
    Ok(())
}
