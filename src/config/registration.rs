//! `[registration]`: who can register, and the rules for names and e-mail addresses.

use serde::{Deserialize, Serialize};

use super::choice::choice;
use super::{ConfigError, within};
use crate::domain::email::EmailAddress;

/// Maximum number of domains in `registration.email_domains`. A rejection lists all of them.
const MAX_DOMAINS: usize = 100;

/// `[registration]`: registration of users.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationSettings {
    /// Who can register.
    pub mode: RegistrationMode,
    /// Minimum length of a first name in characters, wherever it is set.
    pub name_min_length: usize,
    /// Domains of the e-mail addresses that users can register or change to.
    pub email_domains: EmailDomains,
}

impl RegistrationSettings {
    /// Checks the ranges. Errors name the setting that is out of range.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("registration.name_min_length", self.name_min_length, 1, 100)
    }
}

choice! {
    /// Who can register.
    pub enum RegistrationMode {
        /// Everyone.
        Open = "open",
        /// Everyone who receives mails at the address and confirms a link with the password.
        Verified = "verified",
        /// Only those whom admins or the command line invite or create.
        Invited = "invited",
        /// Only admins and the command line create users.
        Closed = "closed",
    }
}

/// A list of e-mail domains, each with its canonical form. An empty list allows every domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct EmailDomains(Vec<(String, String)>);

impl EmailDomains {
    /// Whether the list is empty, or has exactly the domain of this address. A sub-domain is another domain.
    pub fn allow(&self, email: &EmailAddress) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, canonical)| canonical == email.domain())
    }
}

/// Formats the domains as they were written, separated by commas.
impl std::fmt::Display for EmailDomains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(|(given, _)| given.as_str()).collect::<Vec<_>>().join(", "))
    }
}

impl TryFrom<Vec<String>> for EmailDomains {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        if list.len() > MAX_DOMAINS {
            return Err(format!("The list has {} domains. Write at most {MAX_DOMAINS}.", list.len()));
        }
        let domain = |(at, given): (usize, String)| match EmailAddress::parse(&format!("x@{given}")) {
            Some(address) => Ok((given, address.domain().to_owned())),
            None => Err(format!(
                "Entry {} is not a domain. Write it without @ and without patterns, such as example.org.",
                at + 1
            )),
        };
        list.into_iter().enumerate().map(domain).collect::<Result<_, _>>().map(Self)
    }
}

impl From<EmailDomains> for Vec<String> {
    fn from(domains: EmailDomains) -> Self {
        domains.0.into_iter().map(|(given, _)| given).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(list: &[&str]) -> Result<EmailDomains, String> {
        EmailDomains::try_from(list.iter().map(|domain| (*domain).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn domains_match_exactly_in_every_spelling() {
        let listed = domains(&["Example.org", "b\u{fc}cher.example"]).unwrap();
        for (email, is_listed) in [
            ("ada@example.org", true),
            ("ada@EXAMPLE.ORG", true),
            ("ada@xn--bcher-kva.example", true),
            ("ada@B\u{dc}CHER.example", true),
            ("ada@mail.example.org", false),
            ("ada@notexample.org", false),
            ("ada@example.org.evil.example", false),
            ("example.org@evil.example", false),
        ] {
            assert_eq!(listed.allow(&EmailAddress::parse(email).unwrap()), is_listed, "{email}");
        }
        assert!(domains(&[]).unwrap().allow(&EmailAddress::parse("ada@evil.example").unwrap()));
        assert_eq!(listed.to_string(), "Example.org, b\u{fc}cher.example");
    }

    #[test]
    fn what_is_not_a_domain_is_rejected() {
        for bad in ["@example.org", "ada@example.org", "*.example.org", ".example.org", "exa mple.org", "", "a..b"] {
            assert!(domains(&["example.org", bad]).unwrap_err().starts_with("Entry 2 is not a domain."), "{bad}");
        }
        assert!(domains(&["example.org"; 100]).is_ok());
        assert!(domains(&["example.org"; 101]).unwrap_err().contains("at most 100"));
    }
}
