//! The connection to the SMTP server. Each mail has a connection of its own: there are few mails, and servers close
//! idle connections.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::templates::RenderedMail;
use crate::clock::Timestamp;
use crate::config::{MailSettings, Sender, SmtpServer, StartTls};
use crate::domain::email::EmailAddress;

/// Replies of a server about its user or the encryption: 530, 534, 535 and 538 (RFC 4954, section 6). They are about
/// the settings, and not about the mail.
const SETTINGS_CODES: [u16; 4] = [530, 534, 535, 538];

/// Why a mail was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The mail will never be accepted.
    Final(String),
    /// The server did not accept this mail now.
    Deferred(String),
    /// The server cannot be used now, for any mail.
    Unavailable(String),
}

/// An SMTP server, and the sender of all mails.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    /// The domain of the sender, in ASCII.
    domain: String,
    timeout: Duration,
}

impl Smtp {
    /// Prepares connections to `server`. Connects to nothing.
    ///
    /// Errors: the setting that is wrong, and a message.
    pub(crate) fn new(settings: &MailSettings, server: &SmtpServer) -> Result<Self, (&'static str, String)> {
        let from = mailbox(&settings.from).map_err(|message| ("mail.from", message))?;
        let from = from.ok_or_else(|| ("mail.from", "no sender is set".to_owned()))?;
        let reply_to = mailbox(&settings.reply_to).map_err(|message| ("mail.reply_to", message))?;
        let domain = from.email.domain().to_owned();
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.as_str())
            .port(server.port)
            .timeout(Some(Duration::from_secs(settings.connect_timeout)))
            .hello_name(ClientId::Domain(domain.clone()))
            .tls(encryption(settings, server)?);
        if let Some((user, password)) = &server.credentials {
            transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
        }
        let timeout = Duration::from_secs(settings.send_timeout);
        Ok(Self { transport: transport.build(), from, reply_to, domain, timeout })
    }

    /// Sends a mail to `to` within the time-out. `id` is unique on this installation.
    pub(crate) async fn send(
        &self,
        mail: RenderedMail,
        to: &EmailAddress,
        id: &str,
        now: Timestamp,
    ) -> Result<(), SendError> {
        let message = self.message(mail, to, id, now).map_err(SendError::Final)?;
        // The time-out of the transport covers the connect only.
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(SendError::Unavailable(format!("no answer within {} s", self.timeout.as_secs()))),
        }
    }

    fn message(&self, mail: RenderedMail, to: &EmailAddress, id: &str, now: Timestamp) -> Result<Message, String> {
        let seconds = u64::try_from(now.seconds()).unwrap_or_default();
        let mut message = Message::builder()
            .message_id(Some(format!("<{id}@{}>", self.domain)))
            .date(UNIX_EPOCH + Duration::from_secs(seconds))
            .from(self.from.clone())
            .to(Mailbox::new(None, address(to)?))
            .subject(mail.subject)
            .header(AutoSubmitted);
        if let Some(reply_to) = &self.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        let parts = MultiPart::alternative_plain_html(mail.text, mail.html);
        message.multipart(parts).map_err(|error| error.to_string())
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834): automatic replies are not sent to such a mail.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The address as SMTP requires it: with the domain in ASCII.
///
/// Errors: a local part that SMTP cannot transport.
fn address(email: &EmailAddress) -> Result<Address, String> {
    let (local, _) = email.as_given().rsplit_once('@').unwrap_or_default();
    if !local.is_ascii() {
        // It would require SMTPUTF8 (RFC 6531) on every server up to the mailbox.
        return Err("the address has a local part with letters outside of ASCII".to_owned());
    }
    Address::new(local, email.domain()).map_err(|error| error.to_string())
}

fn mailbox(sender: &Sender) -> Result<Option<Mailbox>, String> {
    let Some((name, email)) = sender.get() else { return Ok(None) };
    Ok(Some(Mailbox::new(name.map(str::to_owned), address(email)?)))
}

fn encryption(settings: &MailSettings, server: &SmtpServer) -> Result<Tls, (&'static str, String)> {
    if !server.implicit_tls && settings.starttls == StartTls::None {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(server.host.clone());
    if !settings.ca_file.is_empty() {
        let cannot = |error: String| ("mail.ca_file", format!("cannot use {}: {error}", settings.ca_file));
        let pem = fs::read(&settings.ca_file).map_err(|error| cannot(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| cannot(error.to_string()))?;
        parameters = parameters.add_root_certificate(authority);
    }
    let parameters = parameters.build_rustls().map_err(|error| {
        let hint = "If this system has no certificates of authorities, name a file in mail.ca_file.";
        ("mail.url", format!("cannot prepare TLS: {error}. {hint}"))
    })?;
    Ok(if server.implicit_tls { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

fn classify(error: &lettre::transport::smtp::Error) -> SendError {
    let text = with_sources(error);
    let code = error.status().map(u16::from);
    match code {
        Some(code) if SETTINGS_CODES.contains(&code) => {
            SendError::Unavailable(format!("the server rejects the user or the encryption of mail.url: {text}"))
        }
        _ if error.is_permanent() => SendError::Final(text),
        _ if error.is_transient() => SendError::Deferred(text),
        // Also what the server does not offer, such as STARTTLS. No mail requires an extension.
        _ => SendError::Unavailable(text),
    }
}

/// The message of an error with those of its causes, on one line, for the log. Servers repeat addresses in their
/// replies; these are left out.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    let words = text.split(|character: char| character.is_whitespace() || character.is_control());
    let words: Vec<&str> = words.map(|word| if word.contains('@') { "***" } else { word }).collect();
    words.join(" ").chars().take(300).collect()
}
