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

use super::templates::RenderedMail;
use crate::clock::Timestamp;
use crate::config::{MailSettings, Sender, SmtpServer, StartTls};
use crate::domain::email::EmailAddress;

/// Replies of a server about its user or the encryption: 530, 534, 535 and 538 (RFC 4954, section 6). They are about
/// the settings, and not about the mail.
const SETTINGS_CODES: [u16; 4] = [530, 534, 535, 538];
/// The time for the server to confirm the end of a connection, which changes nothing.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);
/// The first line of a certificate in a PEM file (RFC 7468, section 5.1).
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// Letters and digits in a row from which a word of a reply may be a part of a secret.
const SECRET_RUN: usize = 20;

/// Why a mail was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The mail will never be accepted.
    Final(String),
    /// The server did not accept this mail now.
    Deferred(String),
    /// The server got the whole mail and did not answer. It may deliver it.
    Unanswered(String),
    /// The server cannot be used now, for any mail.
    Unavailable(String),
}

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
        let connect = async { self.connect().await.map_err(|error| Failure::of(&error).unavailable()) };
        let mut connection = within(self.timeouts.send, Failure::unavailable, connect).await?;
        let sent = self.transmit(&mut connection, to, &message.formatted()).await;
        // Also after an error: the server need not wait for another command then.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.abort()).await;
        sent
    }

    /// Connects, and prepares the connection for mails: encryption, user and password.
    async fn connect(&self) -> Result<AsyncSmtpConnection, smtp::Error> {
        let server = (self.host.as_str(), self.port);
        let from_start = match &self.encryption {
            Encryption::FromStart(parameters) => Some(parameters.clone()),
            Encryption::None | Encryption::Starttls(_) => None,
        };
        let connect = Some(self.timeouts.connect);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, connect, &self.hello, from_start, None).await?;
        if let Encryption::Starttls(parameters) = &self.encryption {
            // Fails if the server does not offer it.
            connection.starttls(parameters.clone(), &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
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
        let recipient = Rcpt::new(to, Vec::new());
        within(self.timeouts.send, Failure::deferred, async {
            connection.command(sender).await.map_err(|error| Failure::of(&error).deferred())?;
            connection.command(recipient).await.map_err(|error| Failure::of(&error).of_mail())?;
            connection.command(Data).await.map(drop).map_err(|error| Failure::of(&error).of_mail())
        })
        .await?;
        within(self.timeouts.answer, Failure::unanswered, async {
            let answered = connection.message(message).await.map(drop);
            answered.map_err(|error| Failure::of(&error).of_text())
        })
        .await
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

/// A step that failed.
struct Failure {
    /// The code of the reply, if there was one.
    code: Option<u16>,
    is_permanent: bool,
    text: String,
}

impl Failure {
    fn of(error: &smtp::Error) -> Self {
        let code = error.status().map(u16::from);
        Self { code, is_permanent: error.is_permanent(), text: with_sources(error) }
    }

    /// The error of a step before the sender: it concerns all mails.
    fn unavailable(self) -> SendError {
        if self.code.is_some_and(|code| SETTINGS_CODES.contains(&code)) {
            let text = self.text;
            return SendError::Unavailable(format!(
                "the server rejects the user or the encryption of mail.url: {text}"
            ));
        }
        SendError::Unavailable(self.text)
    }

    fn deferred(self) -> SendError {
        SendError::Deferred(self.text)
    }

    fn unanswered(self) -> SendError {
        SendError::Unanswered(self.text)
    }

    /// The error of a step that concerns the recipient, so that a permanent refusal is final.
    fn of_mail(self) -> SendError {
        let is_of_settings = self.code.is_some_and(|code| SETTINGS_CODES.contains(&code));
        if self.is_permanent && !is_of_settings { SendError::Final(self.text) } else { SendError::Deferred(self.text) }
    }

    /// The error of the text of the mail.
    fn of_text(self) -> SendError {
        if self.code.is_some() { self.of_mail() } else { self.unanswered() }
    }
}

/// The result of steps that may take so long. `as_error` makes the error if they take longer.
async fn within<T>(
    timeout: Duration,
    as_error: impl FnOnce(Failure) -> SendError,
    steps: impl Future<Output = Result<T, SendError>>,
) -> Result<T, SendError> {
    let text = || format!("no answer within {} s", timeout.as_secs());
    let late = |_| as_error(Failure { code: None, is_permanent: false, text: text() });
    tokio::time::timeout(timeout, steps).await.map_err(late)?
}

/// The message of an error with those of its causes, on one line, for the log. Servers repeat addresses, links and parts
/// of mails in their replies; these are left out.
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
    let words: Vec<&str> = words.map(|word| if is_private(word) { "***" } else { word }).collect();
    words.join(" ").chars().take(300).collect()
}

/// Whether a word of a reply may contain an address, a link or a part of a secret.
fn is_private(word: &str) -> bool {
    let longest_run = word.split(|character: char| !character.is_ascii_alphanumeric()).map(str::len).max();
    word.contains('@')
        || word.contains("://")
        || word.contains("lkm_")
        || longest_run.is_some_and(|length| length >= SECRET_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_links_and_secrets_of_a_reply_are_left_out() {
        let secret = format!("lkm_{}", "aB3".repeat(16));
        let (begin, rest) = secret.split_at(9);
        for (reply, logged) in [
            ("550 5.1.1 <ada@example.org>: no such user".to_owned(), "550 5.1.1 *** no such user".to_owned()),
            (format!("554 blocked URL https://a.example/#/x/{secret}."), "554 blocked URL ***".to_owned()),
            (format!("554 blocked \"{secret}\"\r\nx"), "554 blocked ***  x".to_owned()),
            // A line of a mail that ends within the secret.
            (format!("554 line {begin}= {rest}"), "554 line *** ***".to_owned()),
            (
                "451 4.7.1 greylisted, queue id 4XyZ12abCdE9".to_owned(),
                "451 4.7.1 greylisted, queue id 4XyZ12abCdE9".to_owned(),
            ),
        ] {
            assert_eq!(with_sources(&std::io::Error::other(reply)), logged);
        }
    }
}
