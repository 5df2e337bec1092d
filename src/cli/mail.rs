//! The command `latchkey mail test`.

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, Output};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::email::EmailAddress;
use crate::service::mail::outgoing::Outgoing;

#[derive(Subcommand)]
pub(super) enum MailCommand {
    /// Send a test mail with the settings, and print how long it took or what the SMTP server answered
    Test {
        /// E-mail address to which the mail is sent
        address: String,
    },
}

pub(super) async fn mail(settings: &Settings, command: MailCommand, output: Output) -> Outcome {
    let MailCommand::Test { address } = command;
    let to = EmailAddress::parse(&address).ok_or_else(|| format!("{address:?} is not an e-mail address"))?;
    let outgoing = Outgoing::load(settings)?.ok_or("mail.url is not set, so no mails are sent (docs/accounts.md)")?;
    let server = &settings.mail.url;
    let sent = outgoing.send_test(&to, settings.mail.language, Clock::default().now()).await;
    let took = sent.map_err(|cause| format!("{server}: {cause}"))?.as_millis();
    let line = format!("sent a test mail to {address} by {server} in {took} ms");
    output.show(&json!({ "sent": true, "milliseconds": took }), line)
}
