//! `[mail]` and `[links]`: the SMTP server, the sender, and the links in mails.

use std::fmt;
use std::path::Path;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer};
use url::{Host, Url};

use super::choice::choice;
use super::{ConfigError, RegistrationMode, Settings, proxies, within};
use crate::domain::email::EmailAddress;
use crate::domain::mail::Language;

/// Maximum length of the name of a sender in characters.
const NAME_MAX: usize = 100;
/// What to write as the address of an SMTP server.
const URL_RULE: &str = "Write smtp://USER:PASSWORD@HOST:587 for a server with STARTTLS, or smtps://USER:PASSWORD@HOST:465 for one with TLS \
     from the start. Percent-encode special characters of the user and the password.";
/// What to write as the address of a sender.
const SENDER_RULE: &str = "Write an e-mail address, such as no-reply@example.org, or with a name: \"Example \
                           <no-reply@example.org>\".";

/// `[mail]`: how mails are sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// The SMTP server. Without one, no mails are sent.
    pub url: SmtpUrl,
    /// Whether an `smtp://` connection must be encrypted.
    pub starttls: StartTls,
    /// A file with certificates of additional certification authorities. Empty if there is none.
    pub ca_file: String,
    /// The sender of mails.
    pub from: Sender,
    /// The address to which users reply, if it is not the sender.
    pub reply_to: Sender,
    /// The language of mails to users who have not chosen one.
    pub language: Language,
    /// A directory with templates that replace the built-in ones. Empty if there is none.
    pub templates: String,
    /// Seconds to connect to the SMTP server.
    pub connect_timeout: u64,
    /// Seconds until the server is ready for mails, and again for the sender and the recipient of a mail.
    pub send_timeout: u64,
    /// Seconds for the text of a mail and the answer to it.
    pub answer_timeout: u64,
}

/// `[links]`: the links in mails, and those that commands print.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSettings {
    /// The page that links open. Empty for the web console at `http.public_url`.
    pub url: String,
    /// Minutes for which a link to reset a password is valid.
    pub password_reset_minutes: i64,
    /// Hours for which a link that verifies an address, and the registration that waits for it, is valid.
    pub verification_hours: i64,
    /// Minutes for which a link to change the e-mail address is valid.
    pub email_change_minutes: i64,
    /// Hours for which an invitation is valid.
    pub invitation_hours: i64,
}

choice! {
    /// Whether a connection to an `smtp://` server must be encrypted.
    pub enum StartTls {
        /// The server must offer STARTTLS.
        Required = "required",
        /// The connection is not encrypted.
        None = "none",
    }
}

/// The address of an SMTP server. It prints without the password.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SmtpUrl(Option<SmtpServer>);

/// An SMTP server.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpServer {
    /// The host name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the connection is encrypted from the start (`smtps://`).
    pub implicit_tls: bool,
    /// The user and the password.
    pub credentials: Option<(String, String)>,
}

impl SmtpUrl {
    /// The server, if one is set.
    pub fn server(&self) -> Option<&SmtpServer> {
        self.0.as_ref()
    }
}

impl SmtpServer {
    /// Whether the server is this machine.
    fn is_local(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl TryFrom<String> for SmtpUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let invalid = || URL_RULE.to_owned();
        let url = Url::parse(&text).map_err(|_invalid| invalid())?;
        let (implicit_tls, default_port) = match url.scheme() {
            "smtp" => (false, 587),
            "smtps" => (true, 465),
            _ => return Err(invalid()),
        };
        let host = match url.host() {
            Some(Host::Domain(name)) if is_host_name(name) => name.to_ascii_lowercase(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err(invalid()),
        };
        let has_path = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8().map_err(|_invalid| invalid())?;
            if decoded.chars().any(char::is_control) { Err(invalid()) } else { Ok(decoded.into_owned()) }
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) if !user.is_empty() && !password.is_empty() => {
                Some((decoded(user)?, decoded(password)?))
            }
            _ => return Err(invalid()),
        };
        let port = url.port().unwrap_or(default_port);
        if has_path || port == 0 {
            return Err(invalid());
        }
        Ok(Self(Some(SmtpServer { host, port, implicit_tls, credentials })))
    }
}

fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain)
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(SmtpServer { host, port, implicit_tls, credentials }) = &self.0 else { return Ok(()) };
        let scheme = if *implicit_tls { "smtps" } else { "smtp" };
        let credentials = if credentials.is_some() { "***:***@" } else { "" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "{scheme}://{credentials}{host}:{port}")
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SmtpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The name and the address of a sender. Empty if it is not set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sender(Option<(Option<String>, EmailAddress)>);

impl Sender {
    /// The name, if there is one, and the address, if it is set.
    pub fn get(&self) -> Option<(Option<&str>, &EmailAddress)> {
        self.0.as_ref().map(|(name, address)| (name.as_deref(), address))
    }
}

impl TryFrom<String> for Sender {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self(None));
        }
        let (name, address) = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (name.trim().trim_matches('"'), address),
            None => ("", text),
        };
        let is_name = name.chars().count() <= NAME_MAX
            && !name.chars().any(|character| character.is_control() || "<>\"@".contains(character));
        let address = EmailAddress::parse(address).filter(|_| is_name).ok_or(SENDER_RULE)?;
        Ok(Self(Some(((!name.is_empty()).then(|| name.to_owned()), address))))
    }
}

impl From<Sender> for String {
    fn from(sender: Sender) -> Self {
        match sender.0 {
            None => Self::new(),
            Some((None, address)) => address.as_given().to_owned(),
            Some((Some(name), address)) => format!("{name} <{}>", address.as_given()),
        }
    }
}

impl MailSettings {
    /// Checks the ranges, and that all settings are there that mails require. Errors name the setting.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), ConfigError> {
        within("mail.connect_timeout", self.connect_timeout, 1, 60)?;
        within("mail.send_timeout", self.send_timeout, self.connect_timeout, 300)?;
        within("mail.answer_timeout", self.answer_timeout, 1, 600)?;
        if !self.templates.is_empty() && !Path::new(&self.templates).is_dir() {
            return Err(ConfigError::new("mail.templates", "This is not a directory. Write the path of one, or \"\"."));
        }
        let Some(server) = self.url.server() else {
            return without_server(settings);
        };
        if self.from.get().is_none() {
            return Err(ConfigError::new("mail.from", format!("mail.url is set, so this is required. {SENDER_RULE}")));
        }
        let is_clear = !server.implicit_tls && self.starttls == StartTls::None;
        if is_clear && server.credentials.is_some() && !server.is_local() {
            let rule = "This would send the password of mail.url over the network in clear. Write \"required\", or \
                        remove the user and the password from mail.url.";
            return Err(ConfigError::new("mail.starttls", rule));
        }
        if settings.links.base(settings).is_none() {
            let rule =
                "Mails contain links. Set http.public_url with console.enabled, or links.url to a page of your own.";
            return Err(ConfigError::new("mail.url", rule));
        }
        Ok(())
    }
}

/// Fails if a setting requires mails.
fn without_server(settings: &Settings) -> Result<(), ConfigError> {
    let rule = "This requires mails. Set mail.url, or change this setting.";
    if settings.registration.mode == RegistrationMode::Verified {
        return Err(ConfigError::new("registration.mode", rule));
    }
    if settings.auth.require_verified_email {
        return Err(ConfigError::new("auth.require_verified_email", rule));
    }
    Ok(())
}

impl LinkSettings {
    /// Checks the ranges. Errors name the setting that is out of range.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("links.password_reset_minutes", self.password_reset_minutes, 5, 1_440)?;
        within("links.verification_hours", self.verification_hours, 1, 168)?;
        within("links.email_change_minutes", self.email_change_minutes, 5, 1_440)?;
        within("links.invitation_hours", self.invitation_hours, 1, 336)?;
        proxies::check_url("links.url", &self.url)
    }

    /// The page that links open, without the fragment: `links.url`, or the web console at `http.public_url`. `None` if
    /// neither is known.
    pub fn base(&self, settings: &Settings) -> Option<String> {
        if !self.url.is_empty() {
            return Some(self.url.clone());
        }
        let public_url = settings.http.public_url.trim_end_matches('/');
        (settings.console.enabled && !public_url.is_empty()).then(|| format!("{public_url}/console/"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Result<SmtpUrl, String> {
        SmtpUrl::try_from(text.to_owned())
    }

    #[test]
    fn servers_have_default_ports_and_decoded_credentials() {
        for (text, host, port, implicit_tls, credentials) in [
            ("smtp://mail.example.org", "mail.example.org", 587, false, None),
            ("smtps://Mail.example.org/", "mail.example.org", 465, true, None),
            ("smtp://127.0.0.1:25", "127.0.0.1", 25, false, None),
            ("smtp://[::1]:2525", "::1", 2525, false, None),
            (
                "smtp://ada%40example.org:p%3Aq%40%2f@mail.example.org:26",
                "mail.example.org",
                26,
                false,
                Some(("ada@example.org", "p:q@/")),
            ),
        ] {
            let parsed = url(text).unwrap();
            let server = parsed.server().unwrap();
            let found = server.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
            assert_eq!(
                (server.host.as_str(), server.port, server.implicit_tls, found),
                (host, port, implicit_tls, credentials)
            );
        }
        assert!(url("").unwrap().server().is_none());
    }

    #[test]
    fn the_password_and_the_user_are_not_printed() {
        let parsed = url("smtp://ada:secret@mail.example.org").unwrap();
        assert_eq!(format!("{parsed} {parsed:?}"), ["smtp://***:***@mail.example.org:587"; 2].join(" "));
    }

    #[test]
    fn what_is_no_address_of_a_server_is_rejected() {
        for text in [
            "mail.example.org",
            "http://mail.example.org",
            "smtp://",
            "smtp://ada@mail.example.org",
            "smtp://:secret@mail.example.org",
            "smtp://ada:@mail.example.org",
            "smtp://ada:a%0d%0ab@mail.example.org",
            "smtp://mail.example.org/path",
            "smtp://mail.example.org?x=1",
            "smtp://mail.example.org#x",
            "smtp://mail.example.org:0",
            "smtp://mail.example.org:99999",
            "smtp://mail example.org",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn senders_have_an_address_and_may_have_a_name() {
        let sender = |text: &str| Sender::try_from(text.to_owned());
        for (text, name, address) in [
            ("no-reply@example.org", None, "no-reply@example.org"),
            ("Example Org <no-reply@example.org>", Some("Example Org"), "no-reply@example.org"),
            ("\"Example, Org\" <no-reply@example.org>", Some("Example, Org"), "no-reply@example.org"),
        ] {
            let parsed = sender(text).unwrap();
            let (found, email) = parsed.get().unwrap();
            assert_eq!((found, email.as_given()), (name, address));
        }
        assert!(sender("").unwrap().get().is_none());
        for text in ["Example", "<>", "a <b> <c@example.org>", "a\r\nBcc: b@example.org <c@example.org>", "a@b@c"] {
            assert!(sender(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_no_sender_contains_a_line_break(text in "\\PC{0,60}|smtps?://\\PC{0,60}") {
            let _ = url(&text);
            if let Ok(sender) = Sender::try_from(text) {
                prop_assert!(!String::from(sender).contains(['\r', '\n']));
            }
        }
    }
}
