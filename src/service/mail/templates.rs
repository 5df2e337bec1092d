//! The texts of mails: templates in each language, and one page for the HTML part. Operators can replace them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use minijinja::{Environment, UndefinedBehavior, Value, context};

use crate::domain::mail::{Language, MailKind};

/// Maximum size of a template in bytes.
const TEMPLATE_MAX: u64 = 64 * 1024;
/// Maximum length of a subject in characters.
const SUBJECT_MAX: usize = 200;
/// The name of the template of the HTML part.
const LAYOUT: &str = "layout.html";
/// How the first line of a template begins.
const SUBJECT: &str = "Subject: ";

/// The name and the text of a built-in template.
macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../assets/mail/", $name)))
    };
}

/// The built-in templates.
const BUILT_IN: &[(&str, &str)] = &[
    template!("layout.html"),
    template!("test.en.txt"),
    template!("test.de.txt"),
    template!("password_reset.en.txt"),
    template!("password_reset.de.txt"),
    template!("password_changed.en.txt"),
    template!("password_changed.de.txt"),
    template!("email_verification.en.txt"),
    template!("email_verification.de.txt"),
    template!("registration.en.txt"),
    template!("registration.de.txt"),
    template!("account_exists.en.txt"),
    template!("account_exists.de.txt"),
    template!("email_change.en.txt"),
    template!("email_change.de.txt"),
    template!("email_change_requested.en.txt"),
    template!("email_change_requested.de.txt"),
    template!("email_changed.en.txt"),
    template!("email_changed.de.txt"),
    template!("email_restored.en.txt"),
    template!("email_restored.de.txt"),
    template!("invitation.en.txt"),
    template!("invitation.de.txt"),
    template!("key_created.en.txt"),
    template!("key_created.de.txt"),
    template!("account_stopped.en.txt"),
    template!("account_stopped.de.txt"),
    template!("sign_in_after_failures.en.txt"),
    template!("sign_in_after_failures.de.txt"),
    template!("sign_in_from_new_network.en.txt"),
    template!("sign_in_from_new_network.de.txt"),
];

/// What templates can show. Nothing in it was chosen by a caller.
#[derive(Debug)]
pub(crate) struct MailContext {
    /// The host of the page that links open.
    pub(crate) service: String,
    /// The link; empty in a mail without one.
    pub(crate) link: String,
    /// For how long the link is valid, in words.
    pub(crate) valid_for: String,
    /// When the mail was requested, in UTC.
    pub(crate) requested_at: String,
    /// The client address of the request; empty if there is none.
    pub(crate) client: String,
}

/// A mail, ready to send.
pub(crate) struct RenderedMail {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

impl MailContext {
    fn values(&self) -> Value {
        let Self { service, link, valid_for, requested_at, client } = self;
        context! { service, link, valid_for, requested_at, client }
    }
}

/// All templates.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    /// Loads the built-in templates, and those in `directory`, which replace them. Renders each once.
    ///
    /// Errors: what is wrong, with file and line.
    pub(crate) fn load(directory: Option<&Path>) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut replaced = HashSet::new();
        for (name, source) in BUILT_IN {
            let own = directory.map(|directory| read(&directory.join(name))).transpose()?.flatten();
            if own.is_some() {
                replaced.insert(*name);
            }
            let source = own.unwrap_or_else(|| (*source).to_owned());
            environment
                .add_template_owned((*name).to_owned(), source)
                .map_err(|error| explain(&error, name, directory))?;
        }
        if let Some(directory) = directory {
            reject_others(directory, &replaced)?;
        }
        let templates = Self(environment);
        templates.check(directory)?;
        Ok(templates)
    }

    /// Renders every mail once, with and without a client address.
    fn check(&self, directory: Option<&Path>) -> Result<(), String> {
        for client in ["192.0.2.7", ""] {
            for (kind, language) in
                MailKind::ALL.iter().flat_map(|kind| Language::ALL.map(|language| (*kind, language)))
            {
                let context = MailContext {
                    service: "auth.example.org".to_owned(),
                    link: "https://auth.example.org/console/#/example/lkm_example".to_owned(),
                    valid_for: language.duration(1_800),
                    requested_at: "2026-11-27 12:00 UTC".to_owned(),
                    client: client.to_owned(),
                };
                self.render(kind, language, &context).map_err(|error| match error {
                    RenderError::Template(error) => {
                        let name = error.name().unwrap_or(LAYOUT).to_owned();
                        explain(&error, &name, directory)
                    }
                    RenderError::Subject(name) => located(
                        directory,
                        &name,
                        Some(1),
                        "the first line must be `Subject: ` and 1 to 200 visible characters, followed by an empty line",
                    ),
                })?;
            }
        }
        Ok(())
    }

    /// Renders a mail. Errors occur only if a template depends on values in a way that the check at start did not find.
    pub(crate) fn render(
        &self,
        kind: MailKind,
        language: Language,
        context: &MailContext,
    ) -> Result<RenderedMail, RenderError> {
        let name = format!("{}.{}.txt", kind.name(), language.code());
        let whole = self.0.get_template(&name)?.render(context.values())?;
        let whole = whole.replace("\r\n", "\n");
        let (first, text) = whole.split_once('\n').unwrap_or((&whole, ""));
        let subject = first.strip_prefix(SUBJECT).map(str::trim).filter(|subject| is_subject(subject));
        let Some(subject) = subject.filter(|_| text.starts_with('\n')) else {
            return Err(RenderError::Subject(name));
        };
        let text = text.trim();
        let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        let paragraphs: Vec<Value> = paragraphs
            .map(|paragraph| {
                let lines: Vec<Value> = paragraph.lines().map(Value::from).collect();
                context! { lines, is_link => !context.link.is_empty() && paragraph == context.link }
            })
            .collect();
        let page = context! { language => language.code(), subject, paragraphs };
        let html = self.0.get_template(LAYOUT)?.render(page)?;
        Ok(RenderedMail { subject: subject.to_owned(), text: format!("{text}\n"), html })
    }
}

/// Why a mail cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// A template fails.
    #[error("{0}")]
    Template(#[from] minijinja::Error),
    /// The first line of this template is not a subject.
    #[error("{0}: the first line is not a subject")]
    Subject(String),
}

fn is_subject(subject: &str) -> bool {
    !subject.is_empty() && subject.chars().count() <= SUBJECT_MAX && !subject.chars().any(char::is_control)
}

/// Reads a template; `None` if there is no such file.
fn read(file: &Path) -> Result<Option<String>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", file.display());
    match fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(&error)),
        Ok(metadata) if metadata.len() > TEMPLATE_MAX => {
            return Err(cannot(&format!("it is larger than {TEMPLATE_MAX} bytes")));
        }
        Ok(_) => {}
    }
    fs::read_to_string(file).map(Some).map_err(|error| cannot(&error))
}

/// Rejects a file whose name looks like that of a template but is none, such as a misspelt one.
fn reject_others(directory: &Path, replaced: &HashSet<&str>) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name().to_string_lossy().into_owned();
        if (name.ends_with(".txt") || name.ends_with(".html")) && !replaced.contains(name.as_str()) {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "{} is not the name of a template. There are: {}.",
                directory.join(&name).display(),
                known.join(", ")
            ));
        }
    }
    Ok(())
}

/// The error of a template, with file and line.
fn explain(error: &minijinja::Error, name: &str, directory: Option<&Path>) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    located(directory, error.name().unwrap_or(name), error.line(), &what)
}

fn located(directory: Option<&Path>, name: &str, line: Option<usize>, what: &str) -> String {
    let file = directory.map_or_else(|| name.into(), |directory| directory.join(name));
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    format!("{}{line}: {what}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> MailContext {
        MailContext {
            service: "auth.example.org".to_owned(),
            link: "https://auth.example.org/console/#/password-reset/lkm_x".to_owned(),
            valid_for: "30 minutes".to_owned(),
            requested_at: "2026-11-27 12:00 UTC".to_owned(),
            client: "192.0.2.7".to_owned(),
        }
    }

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::TempDir::with_prefix("latchkey-templates-").unwrap();
        files.iter().for_each(|(name, text)| fs::write(directory.path().join(name), text).unwrap());
        directory
    }

    #[test]
    fn every_kind_has_a_template_in_every_language() {
        let templates = Templates::load(None).unwrap();
        for kind in MailKind::ALL {
            for language in Language::ALL {
                let mail = templates.render(*kind, language, &context()).unwrap();
                assert!(mail.html.contains("<html lang="), "{}", mail.html);
                let has_link = mail.text.lines().any(|line| line == context().link);
                assert_eq!(has_link, kind.purpose().is_some(), "a link is alone on its line: {}", mail.text);
                assert_eq!(mail.html.contains("<a href="), has_link);
            }
        }
        assert_eq!(BUILT_IN.len(), 1 + MailKind::ALL.len() * Language::ALL.len());
    }

    #[test]
    fn values_are_escaped_in_html() {
        let templates = Templates::load(None).unwrap();
        let hostile = MailContext { client: "<img src=x onerror=alert(1)>\"'&".to_owned(), ..context() };
        let mail = templates.render(MailKind::PasswordReset, Language::English, &hostile).unwrap();
        assert!(mail.text.contains("<img src=x"), "{}", mail.text);
        assert!(!mail.html.contains("<img"), "{}", mail.html);
    }

    #[test]
    fn a_template_of_the_operator_replaces_the_built_in_one() {
        let own =
            directory(&[("test.en.txt", "Subject: Own\r\n\r\nText of {{ service }}.\r\n"), ("README", "ignored")]);
        let templates = Templates::load(Some(own.path())).unwrap();
        let mail = templates.render(MailKind::Test, Language::English, &context()).unwrap();
        assert_eq!((mail.subject.as_str(), mail.text.as_str()), ("Own", "Text of auth.example.org.\n"));
        let german = templates.render(MailKind::Test, Language::German, &context()).unwrap();
        assert_ne!(german.subject, "Own");
    }

    #[test]
    fn a_faulty_template_is_reported_with_file_and_line() {
        for (text, line, part) in [
            ("Subject: x\n\na\n{% if client %}b\n", "line 4", "syntax error"),
            ("Subject: x\n\n{{ service }\n", "line 3", "syntax error"),
            ("Subject: x\n\na\nb\n{{ name }}\n", "line 5", "undefined"),
            ("No subject\n\ntext\n", "line 1", "Subject: "),
            ("Subject: x\ntext\n", "line 1", "empty line"),
            ("", "line 1", "Subject: "),
        ] {
            let own = directory(&[("password_reset.de.txt", text)]);
            let error = Templates::load(Some(own.path())).err().unwrap();
            let file = own.path().join("password_reset.de.txt");
            assert!(error.starts_with(&format!("{}, {line}", file.display())), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_file_with_an_unknown_name_is_rejected() {
        let own = directory(&[("pasword_reset.en.txt", "Subject: x\n\ny\n")]);
        let error = Templates::load(Some(own.path())).err().unwrap();
        assert!(error.contains("pasword_reset.en.txt is not the name of a template"), "{error}");
    }
}
