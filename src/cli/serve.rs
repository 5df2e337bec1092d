//! `latchkey` and `latchkey serve`.

use super::Outcome;
use crate::clock::Clock;
use crate::config::Settings;
use crate::server::Server;
use crate::signals::Signals;

pub(super) async fn serve(settings: &Settings) -> Outcome {
    // As process 1 of a container, it would not be ended by signals that it has not taken over.
    let mut signals = Signals::listen()?;
    let server = tokio::select! {
        started = Server::start(settings, Clock::default()) => started?,
        _ = signals.stop() => {
            log::info!("stopped before the server had started");
            return Ok(());
        }
    };
    server.run_until(signals).await?;
    log::info!("stopped");
    Ok(())
}
