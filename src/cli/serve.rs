//! `latchkey` and `latchkey serve`.

use super::Outcome;
use crate::clock::Clock;
use crate::config::Settings;
use crate::server::{Server, Signals};

pub(super) async fn serve(settings: &Settings) -> Outcome {
    let mut signals = Signals::listen()?;
    let server = tokio::select! {
        started = Server::start(settings, Clock::default()) => started?,
        () = signals.any() => {
            log::info!("stopped before the server had started");
            return Ok(());
        }
    };
    server.run_until(signals).await?;
    log::info!("stopped");
    Ok(())
}
