//! Outgoing mails: the SMTP server together with the templates.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::SendError;
use super::smtp::Smtp;
use super::template_check;
use super::templates::{MailContext, Templates};
use crate::clock::Timestamp;
use crate::config::{ConfigError, Settings};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{Language, MailKind};

/// The SMTP server and the templates.
pub struct Outgoing {
    smtp: Smtp,
    templates: Templates,
    /// The host of the page that links open.
    service: String,
}

/// What a mail says, beside its template.
#[derive(Debug, Default)]
pub(crate) struct MailValues {
    /// The link with its secret; empty if there is none.
    pub(crate) link: String,
    /// Seconds for which the link is valid.
    pub(crate) valid_seconds: i64,
    /// When the mail was requested.
    pub(crate) requested_at: Option<Timestamp>,
    /// The client address of the request.
    pub(crate) client: Option<String>,
}

impl Outgoing {
    /// Loads the templates and prepares connections to the SMTP server of the settings. Connects to nothing. Returns
    /// `None` if no server is set.
    ///
    /// Errors: the setting that is wrong. An error of a template has its file and line.
    pub fn load(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let Some(server) = settings.mail.url.server() else {
            return Ok(None);
        };
        let smtp = Smtp::new(&settings.mail, server);
        let smtp = smtp.map_err(|(key, message)| settings.places.error(key, message))?;
        let directory = Some(settings.mail.templates.as_str()).filter(|directory| !directory.is_empty()).map(Path::new);
        let templates = template_check::load(directory);
        let templates = templates.map_err(|message| settings.places.error("mail.templates", message))?;
        let page = settings.links.base(settings).unwrap_or_default();
        let service = url::Url::parse(&page).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        Ok(Some(Self { smtp, templates, service }))
    }

    /// Host and port of the SMTP server.
    pub fn server(&self) -> String {
        self.smtp.server()
    }

    /// The address from which mails are sent.
    pub fn sender(&self) -> String {
        self.smtp.sender().to_string()
    }

    /// The longest time that an attempt to send a mail takes.
    pub(crate) fn longest_attempt(&self) -> Duration {
        self.smtp.longest_attempt()
    }

    /// Sends a mail. `id` is unique on this installation.
    pub(crate) async fn send(
        &self,
        kind: MailKind,
        language: Language,
        to: &EmailAddress,
        id: &str,
        values: MailValues,
        now: Timestamp,
    ) -> Result<(), SendError> {
        let context = MailContext {
            service: self.service.clone(),
            link: values.link,
            valid_for: language.duration(values.valid_seconds),
            requested_at: values.requested_at.unwrap_or(now).to_minutes(),
            client: values.client.unwrap_or_default(),
        };
        let mail = self.templates.render(kind, language, &context);
        let mail = mail.map_err(|error| SendError::Final(error.to_string()))?;
        self.smtp.send(mail, to, id, now).await
    }

    /// Sends a test mail at once. Returns how long it took.
    ///
    /// Errors: what the server answered, or why it cannot be used.
    pub async fn send_test(&self, to: &EmailAddress, language: Language, now: Timestamp) -> Result<Duration, String> {
        let (began, id) = (Instant::now(), format!("test.{}", now.seconds()));
        let sent = self.send(MailKind::Test, language, to, &id, MailValues::default(), now).await;
        match sent {
            Ok(()) => Ok(began.elapsed()),
            Err(
                SendError::Final(cause)
                | SendError::Deferred(cause)
                | SendError::Unanswered(cause)
                | SendError::Unavailable(cause),
            ) => Err(cause),
        }
    }
}
