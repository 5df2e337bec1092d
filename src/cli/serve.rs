//! `latchkey` and `latchkey serve`.

use super::Outcome;
use crate::clock::Clock;
use crate::config::Settings;
use crate::server::Server;

pub(super) async fn serve(settings: &Settings) -> Outcome {
    let server = Server::start(settings, Clock::default()).await?;
    server.run().await?;
    log::info!("stopped");
    Ok(())
}
