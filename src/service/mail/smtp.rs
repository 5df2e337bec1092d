//! The connection to the SMTP server. Each mail has a connection of its own: there are few mails, and servers close
//! idle connections.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, transport::smtp};
use tokio::time::Instant;

use super::failure::{Failure, SendError, Step};
use super::templates::RenderedMail;
use crate::clock::Timestamp;
use crate::config::{MailSettings, Sender, SmtpServer, StartTls};
use crate::domain::email::EmailAddress;

/// The time for the server to confirm the end of a connection, which changes nothing.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);
/// The server does not encrypt.
const NO_STARTTLS: &str = "the server does not offer STARTTLS: use smtps:// if one of its ports speaks TLS from the \
                           start, or mail.starttls = \"none\" in a trusted network";
/// The server has no sign-in that the client knows.
const NO_SIGN_IN: &str = "the server does not offer to sign in with a user and a password: remove them from mail.url, or \
                          use encryption or another port if it offers that only there";
/// The first line of a certificate in a PEM file (RFC 7468, section 5.1).
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// An SMTP server, and the sender of all mails.
pub(crate) struct Smtp {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    hello: ClientId,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    /// The domain of the sender, in ASCII.
    domain: String,
    timeouts: Timeouts,
}

/// How a connection is encrypted.
enum Encryption {
    None,
    Starttls(TlsParameters),
    FromStart(TlsParameters),
}

/// How long the steps of an attempt may take.
#[derive(Clone, Copy)]
struct Timeouts {
    connect: Duration,
    /// Until the server is ready for mails, and again for the sender and the recipient.
    send: Duration,
    /// For the text of the mail, and the answer to it.
    answer: Duration,
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
        let credentials = server.credentials.clone();
        Ok(Self {
            host: server.host.clone(),
            port: server.port,
            encryption: encryption(settings, server)?,
            credentials: credentials.map(|(user, password)| Credentials::new(user, password)),
            hello: ClientId::Domain(domain.clone()),
            from,
            reply_to,
            domain,
            timeouts: Timeouts {
                connect: Duration::from_secs(settings.connect_timeout),
                send: Duration::from_secs(settings.send_timeout),
                answer: Duration::from_secs(settings.answer_timeout),
            },
        })
    }

    /// Host and port of the server.
    pub(crate) fn server(&self) -> String {
        // The address of an IPv6 host has colons, too.
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address from which mails are sent.
    pub(crate) fn sender(&self) -> &Address {
        &self.from.email
    }

    /// The longest time that an attempt takes.
    pub(crate) fn longest_attempt(&self) -> Duration {
        self.timeouts.send * 2 + self.timeouts.answer + QUIT_TIMEOUT
    }

    /// Sends a mail to `to`. `id` is unique on this installation.
    pub(crate) async fn send(
        &self,
        mail: RenderedMail,
        to: &EmailAddress,
        id: &str,
        now: Timestamp,
    ) -> Result<(), SendError> {
        let message = self.message(mail, to, id, now).map_err(SendError::Final)?;
        let to = address(to).map_err(SendError::Final)?;
        let mut connection = self.connect().await?;
        let sent = self.transmit(&mut connection, to, &message.formatted()).await;
        // Also after an error: the server need not wait for another command then.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await;
        sent
    }

    /// Connects, and prepares the connection for mails: encryption, user and password.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let server = (self.host.as_str(), self.port);
        let from_start = match &self.encryption {
            Encryption::FromStart(parameters) => Some(parameters.clone()),
            Encryption::None | Encryption::Starttls(_) => None,
        };
        let (deadline, step) = (Deadline::after(self.timeouts.send), Step::Connect { tls: from_start.is_some() });
        let connect = Some(self.timeouts.connect);
        let connecting = AsyncSmtpConnection::connect_tokio1(server, connect, &self.hello, from_start, None);
        let mut connection = deadline.hold(step, connecting).await?;
        if let Encryption::Starttls(parameters) = &self.encryption {
            if !connection.can_starttls() {
                return Err(SendError::Unavailable(NO_STARTTLS.to_owned()));
            }
            deadline.hold(Step::Prepare, connection.starttls(parameters.clone(), &self.hello)).await?;
        }
        if let Some(credentials) = &self.credentials {
            if connection.server_info().get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
                return Err(SendError::Unavailable(NO_SIGN_IN.to_owned()));
            }
            deadline.hold(Step::Prepare, connection.auth(DEFAULT_MECHANISMS, credentials)).await?;
        }
        Ok(connection)
    }

    /// Sends one mail. The text is in ASCII, so no extension is required.
    async fn transmit(
        &self,
        connection: &mut AsyncSmtpConnection,
        to: Address,
        message: &[u8],
    ) -> Result<(), SendError> {
        let sender = Mail::new(Some(self.from.email.clone()), Vec::new());
        let deadline = Deadline::after(self.timeouts.send);
        deadline.hold(Step::Sender, connection.command(sender)).await?;
        deadline.hold(Step::Recipient, connection.command(Rcpt::new(to, Vec::new()))).await?;
        deadline.hold(Step::Data, connection.command(Data)).await?;
        Deadline::after(self.timeouts.answer).hold(Step::Text, connection.message(message)).await.map(drop)
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

/// Whether SMTP can transport an address, in the spelling for it.
pub(super) fn can_reach(email: &EmailAddress) -> bool {
    address(&email.clone().for_smtp()).is_ok()
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

fn encryption(settings: &MailSettings, server: &SmtpServer) -> Result<Encryption, (&'static str, String)> {
    if !server.implicit_tls && settings.starttls == StartTls::None {
        return Ok(Encryption::None);
    }
    let mut parameters = TlsParameters::builder(server.host.clone());
    if !settings.ca_file.is_empty() {
        let cannot = |error: String| ("mail.ca_file", format!("cannot use {}: {error}", settings.ca_file));
        let pem = fs::read(&settings.ca_file).map_err(|error| cannot(error.to_string()))?;
        if !pem.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) {
            return Err(cannot("it contains no certificate in the format PEM".to_owned()));
        }
        let authority = Certificate::from_pem(&pem).map_err(|error| cannot(error.to_string()))?;
        parameters = parameters.add_root_certificate(authority);
    }
    let parameters = parameters.build_rustls().map_err(|error| {
        let hint = "If this system has no certificates of authorities, name a file in mail.ca_file.";
        ("mail.url", format!("cannot prepare TLS: {error}. {hint}"))
    })?;
    Ok(if server.implicit_tls { Encryption::FromStart(parameters) } else { Encryption::Starttls(parameters) })
}

/// The end of steps that may take so long together.
struct Deadline {
    at: Instant,
    seconds: u64,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        Self { at: Instant::now() + time, seconds: time.as_secs() }
    }

    /// Takes a step. It fails if it has not ended in time.
    async fn hold<T>(&self, step: Step, taken: impl Future<Output = Result<T, smtp::Error>>) -> Result<T, SendError> {
        let failure = match tokio::time::timeout_at(self.at, taken).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Failure::of(&error),
            Err(_elapsed) => Failure::late(self.seconds),
        };
        Err(failure.at(step))
    }
}
