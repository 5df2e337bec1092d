//! The texts of mails: templates in each language, and one page for the HTML part. Operators can replace them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};

use super::built_in::{BUILT_IN, LAYOUT};
use crate::domain::mail::{Language, MailKind};

/// Maximum size of a template in bytes.
const TEMPLATE_MAX: u64 = 64 * 1024;
/// Maximum length of a subject in characters.
const SUBJECT_MAX: usize = 200;
/// How the first line of a template begins.
const SUBJECT: &str = "Subject: ";
/// The variables of the texts of all kinds.
const VARIABLES: [&str; 3] = ["service", "requested_at", "client"];
/// Those that only the kinds with a link have.
const LINK_VARIABLES: [&str; 2] = ["link", "valid_for"];
/// The variables of the HTML part.
const LAYOUT_VARIABLES: [&str; 3] = ["language", "subject", "paragraphs"];

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
    /// The values of [`VARIABLES`], and those of [`LINK_VARIABLES`] for a kind with a link.
    fn values(&self, kind: MailKind) -> Value {
        let Self { service, link, valid_for, requested_at, client } = self;
        let values = context! { service, requested_at, client };
        if kind.purpose().is_some() {
            context! { link, valid_for, ..values }
        } else {
            values
        }
    }
}

/// All templates.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    /// Reads the built-in templates, and those in `directory`, which replace them.
    ///
    /// Errors: what is wrong, with file and line.
    pub(super) fn read(directory: Option<&Path>) -> Result<Self, String> {
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
                .map_err(|error| located(directory, name, error.line(), &describe(&error)))?;
        }
        if let Some(directory) = directory {
            reject_others(directory, &replaced)?;
        }
        Ok(Self(environment))
    }

    /// Renders a mail. Errors occur only if a template depends on values in a way that the check at start did not find.
    pub(crate) fn render(
        &self,
        kind: MailKind,
        language: Language,
        context: &MailContext,
    ) -> Result<RenderedMail, RenderError> {
        let name = text_name(kind, language);
        let whole = self.0.get_template(&name)?.render(context.values(kind))?;
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

    /// The error of a template, with its line. Names the variables that do not exist, and those that do.
    pub(super) fn explain(&self, error: &minijinja::Error, kind: MailKind) -> (String, Option<usize>, String) {
        let (name, line) = (error.name().unwrap_or(LAYOUT), error.line());
        let known: &[&[&str]] = match (name, kind.purpose()) {
            (LAYOUT, _) => &[&LAYOUT_VARIABLES],
            (_, Some(_)) => &[&VARIABLES, &LINK_VARIABLES],
            (_, None) => &[&VARIABLES],
        };
        let known = known.concat();
        let unknown =
            if error.kind() == ErrorKind::UndefinedError { self.unknown(name, line, &known) } else { Vec::new() };
        let what = match unknown.as_slice() {
            [] => describe(error),
            unknown => format!("there is no variable {} here. There are: {}.", unknown.join(", "), known.join(", ")),
        };
        (name.to_owned(), line, what)
    }

    /// The variables in this line of a template that are not among `known`, or those in the whole template if the line
    /// has none.
    fn unknown(&self, name: &str, line: Option<usize>, known: &[&str]) -> Vec<String> {
        let Ok(template) = self.0.get_template(name) else { return Vec::new() };
        let is_global = |name: &str| self.0.globals().any(|(global, _)| global == name);
        let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !known.contains(&name.as_str()) && !is_global(name));
        unknown.sort();
        let text = line.and_then(|line| template.source().lines().nth(line.saturating_sub(1))).unwrap_or_default();
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        let words: HashSet<&str> = text.split(|character| !is_part(character)).collect();
        let in_line: Vec<String> = unknown.iter().filter(|name| words.contains(name.as_str())).cloned().collect();
        if in_line.is_empty() { unknown } else { in_line }
    }
}

/// The name of the template of a text.
pub(super) fn text_name(kind: MailKind, language: Language) -> String {
    format!("{}.{}.txt", kind.name(), language.code())
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

/// The error of a template in words.
fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

/// A message about a template, with file and line.
pub(super) fn located(directory: Option<&Path>, name: &str, line: Option<usize>, what: &str) -> String {
    let file = directory.map_or_else(|| name.into(), |directory| directory.join(name));
    let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    format!("{}{line}: {what}", file.display())
}
