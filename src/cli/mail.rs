//! The commands `latchkey mail`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, Output};
use crate::clock::Clock;
use crate::config::Settings;
use crate::domain::email::EmailAddress;
use crate::service::mail::built_in;
use crate::service::mail::outgoing::Outgoing;

#[derive(Subcommand)]
pub(super) enum MailCommand {
    /// Send a test mail with the settings, and print how long it took or what the SMTP server answered
    Test {
        /// E-mail address to which the mail is sent
        address: String,
    },
    /// Write the built-in templates to a directory, to be changed and named in mail.templates. Replaces no file
    Templates {
        /// The directory. It is created if it does not exist
        directory: PathBuf,
    },
}

pub(super) async fn mail(settings: &Settings, command: MailCommand, output: Output) -> Outcome {
    match command {
        MailCommand::Test { address } => test(settings, &address, output).await,
        MailCommand::Templates { directory } => {
            let number = built_in::write_to(&directory)?;
            let line =
                format!("wrote {number} templates to {}; remove those that you do not change", directory.display());
            output.show(&json!({ "written": number }), line)
        }
    }
}

async fn test(settings: &Settings, address: &str, output: Output) -> Outcome {
    let to = EmailAddress::parse(address).ok_or_else(|| format!("{address:?} is not an e-mail address"))?;
    let outgoing = Outgoing::load(settings)?.ok_or("mail.url is not set, so no mails are sent (docs/accounts.md)")?;
    let server = &settings.mail.url;
    let sent = outgoing.send_test(&to, settings.mail.language, Clock::default().now()).await;
    let took = sent.map_err(|cause| format!("{server}: {cause}"))?.as_millis();
    let line = format!("sent a test mail to {address} by {server} in {took} ms");
    output.show(&json!({ "sent": true, "milliseconds": took }), line)
}
