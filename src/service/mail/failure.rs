//! Why a mail was not sent, with what an operator can change.

use std::error::Error;

use lettre::transport::smtp;

use crate::tls::HandshakeFault;

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

/// A step of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The connection, its greeting and `EHLO`.
    Connect {
        /// Whether the connection is encrypted from the start.
        tls: bool,
    },
    /// STARTTLS and the sign-in.
    Prepare,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, before the text.
    Data,
    /// The text of the mail.
    Text,
}

/// What shows that a port does not speak the protocol of the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    None,
    /// It says nothing, as a TLS server before the client has spoken.
    Silence,
    /// What it says is not SMTP.
    NoSmtp,
    /// What it says is not TLS.
    NoTls,
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The code of the reply, if there was one.
    code: Option<u16>,
    is_permanent: bool,
    text: String,
    sign: Sign,
}

impl Failure {
    pub(super) fn of(error: &smtp::Error) -> Self {
        let error = innermost(error);
        let code = error.status().map(u16::from);
        let fault = HandshakeFault::of(error);
        let text = match (code, fault) {
            (Some(code), _) => {
                let reply = error.source().map(ToString::to_string).unwrap_or_default();
                masked(&format!("the server answered {code} {reply}"))
            }
            (None, Some(HandshakeFault::AuthorityAsServer)) => {
                "the server presents the certificate of an authority as its own: issue one for it with CA:FALSE"
                    .to_owned()
            }
            (None, Some(HandshakeFault::UnknownAuthority)) => {
                let advice = "mail.ca_file names a file with the certificates of further authorities";
                format!("{}; {advice}", masked(&error.to_string()))
            }
            (None, _) => masked(&error.to_string()),
        };
        let sign = match fault {
            Some(HandshakeFault::NoTls) => Sign::NoTls,
            None if error.is_response() || is_no_text(error) => Sign::NoSmtp,
            _ => Sign::None,
        };
        Self { code, is_permanent: error.is_permanent(), text, sign }
    }

    /// A step without an answer in time.
    pub(super) fn late(seconds: u64) -> Self {
        let text = format!("no answer within {seconds} s");
        Self { code: None, is_permanent: false, text, sign: Sign::Silence }
    }

    /// What it means for the mail that this step failed.
    pub(super) fn at(self, step: Step) -> SendError {
        // It concerns all mails that the server rejects its user or the encryption.
        if let Some(explanation) = self.code.and_then(of_settings) {
            let text = format!("{explanation}: {}", self.text);
            return if matches!(step, Step::Connect { .. } | Step::Prepare) {
                SendError::Unavailable(text)
            } else {
                SendError::Deferred(text)
            };
        }
        let Self { code, is_permanent, text, sign } = self;
        match step {
            Step::Connect { tls: false } if matches!(sign, Sign::Silence | Sign::NoSmtp) => {
                SendError::Unavailable(format!("{text}. Does this port speak TLS from the start? Then write smtps://"))
            }
            Step::Connect { tls: true } if sign == Sign::NoTls => {
                SendError::Unavailable(format!("{text}. Does this port begin without TLS? Then write smtp://"))
            }
            Step::Connect { .. } | Step::Prepare => SendError::Unavailable(text),
            Step::Sender if is_permanent => SendError::Deferred(format!(
                "sender (mail.from): {text}. Set mail.from to an address from which the server accepts mails"
            )),
            Step::Sender => SendError::Deferred(format!("sender (mail.from): {text}")),
            Step::Recipient if is_permanent => SendError::Final(format!("recipient: {text}")),
            Step::Recipient => SendError::Deferred(format!("recipient: {text}")),
            Step::Data | Step::Text if is_permanent => SendError::Final(text),
            Step::Text if code.is_none() => SendError::Unanswered(text),
            Step::Data | Step::Text => SendError::Deferred(text),
        }
    }
}

/// What replies about the user or the encryption mean (RFC 4954, section 6). They are about the settings, and not about
/// the mail.
fn of_settings(code: u16) -> Option<&'static str> {
    match code {
        530 => Some(
            "the server requires encryption (smtps://, or mail.starttls = \"required\") or a user and a password in \
             mail.url",
        ),
        534 => Some("the server requires encryption, or another kind of password in mail.url"),
        535 => Some("the server rejects the user or the password of mail.url"),
        538 => Some("the server requires encryption to sign in (smtps://, or mail.starttls = \"required\")"),
        _ => None,
    }
}

/// The library wraps some of its errors in another of its own, with the same text before.
fn innermost(mut error: &smtp::Error) -> &smtp::Error {
    while let Some(inner) = error.source().and_then(<dyn Error>::downcast_ref) {
        error = inner;
    }
    error
}

/// Whether what was read is no text.
fn is_no_text(error: &smtp::Error) -> bool {
    let cause = error.source().and_then(<dyn Error>::downcast_ref::<std::io::Error>);
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidData)
}

/// A message on one line, for the log. Servers repeat addresses, links and parts of mails in their replies; these are
/// left out.
fn masked(text: &str) -> String {
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
            assert_eq!(masked(&reply), logged);
        }
    }
}
