//! The templates are checked at start: a faulty one must not be found when a mail is to be sent.

use std::path::Path;

use minijinja::HtmlEscape;

use super::built_in::LAYOUT;
use super::templates::{MailContext, RenderError, RenderedMail, Templates, located, text_name};
use crate::domain::mail::{Language, MailKind};

/// Reads the built-in templates, and those in `directory`, which replace them. Renders every mail once, with and without
/// a client address, and checks that nothing is missing.
///
/// Errors: what is wrong, with the file, and the line if it is known.
pub(super) fn load(directory: Option<&Path>) -> Result<Templates, String> {
    let templates = Templates::read(directory)?;
    for client in ["192.0.2.7", ""] {
        for (kind, language) in MailKind::ALL.iter().flat_map(|kind| Language::ALL.map(|language| (*kind, language))) {
            let context = MailContext {
                service: "auth.example.org".to_owned(),
                link: "https://auth.example.org/console/#/example/lkm_example".to_owned(),
                valid_for: language.duration(1_800),
                requested_at: "2026-11-27 12:00 UTC".to_owned(),
                client: client.to_owned(),
            };
            let rendered = templates.render(kind, language, &context).map_err(|error| match error {
                RenderError::Template(error) => {
                    let (name, line, what) = templates.explain(&error, kind);
                    located(directory, &name, line, &what)
                }
                RenderError::Subject(name) => located(
                    directory,
                    &name,
                    Some(1),
                    "the first line must be `Subject: ` and 1 to 200 visible characters, followed by an empty line",
                ),
            })?;
            let link = kind.purpose().map(|_| context.link.as_str());
            complete(&rendered, &text_name(kind, language), link)
                .map_err(|(name, what)| located(directory, &name, None, &what))?;
        }
    }
    Ok(templates)
}

/// Checks that the text has the link, if its kind has one, and that the HTML part has every line of the text.
///
/// Errors: the name of the faulty template, and what it lacks.
fn complete(mail: &RenderedMail, name: &str, link: Option<&str>) -> Result<(), (String, String)> {
    if link.is_some_and(|link| !mail.text.contains(link)) {
        return Err((name.to_owned(), "the text must contain {{ link }}, in a paragraph of its own".to_owned()));
    }
    let has = |line: &str| mail.html.contains(line) || mail.html.contains(&HtmlEscape(line).to_string());
    match mail.text.lines().map(str::trim).find(|line| !has(line)) {
        None => Ok(()),
        Some(line) => {
            let what = if link.is_some_and(|link| line.contains(link)) { "the link" } else { "a paragraph" };
            let rule = "it must show every line of all paragraphs, which contain the link";
            Err((LAYOUT.to_owned(), format!("{rule}. It lacks {what} of {name}.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::service::mail::built_in::{BUILT_IN, write_to};

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
        let templates = load(None).unwrap();
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
        let templates = load(None).unwrap();
        let hostile = MailContext { client: "<img src=x onerror=alert(1)>\"'&".to_owned(), ..context() };
        let mail = templates.render(MailKind::PasswordReset, Language::English, &hostile).unwrap();
        assert!(mail.text.contains("<img src=x"), "{}", mail.text);
        assert!(!mail.html.contains("<img"), "{}", mail.html);
    }

    #[test]
    fn a_template_of_the_operator_replaces_the_built_in_one() {
        let own =
            directory(&[("test.en.txt", "Subject: Own\r\n\r\nText of {{ service }}.\r\n"), ("README", "ignored")]);
        let templates = load(Some(own.path())).unwrap();
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
            (
                "Subject: x\n\n{{ service }} {{ link }}\nb\n{{ name }}\n",
                "line 5",
                "there is no variable name here. There are: service, ",
            ),
            ("No subject\n\ntext\n", "line 1", "Subject: "),
            ("Subject: x\ntext\n", "line 1", "empty line"),
            ("", "line 1", "Subject: "),
        ] {
            let own = directory(&[("password_reset.de.txt", text)]);
            let error = load(Some(own.path())).err().unwrap();
            let file = own.path().join("password_reset.de.txt");
            assert!(error.starts_with(&format!("{}, {line}", file.display())), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_file_with_an_unknown_name_is_rejected() {
        let own = directory(&[("pasword_reset.en.txt", "Subject: x\n\ny\n")]);
        let error = load(Some(own.path())).err().unwrap();
        assert!(error.contains("pasword_reset.en.txt is not the name of a template"), "{error}");
    }

    /// The error of these templates.
    fn error_of(files: &[(&str, &str)]) -> String {
        let own = directory(files);
        let error = load(Some(own.path())).err().unwrap();
        error.replace(&format!("{}/", own.path().display()), "")
    }

    #[test]
    fn a_template_without_the_link_of_its_kind_is_rejected_in_the_text_and_in_the_html() {
        let text = "Subject: x\n\nOpen {% if client %}{{ link }}{% endif %}\n";
        for text in ["Subject: x\n\nNo link.\n", text, "Subject: {{ link }}\n\nNone in the text.\n"] {
            let error = error_of(&[("email_change.de.txt", text)]);
            assert_eq!(error, "email_change.de.txt: the text must contain {{ link }}, in a paragraph of its own");
        }
        for (page, lacks) in [
            ("<p>{{ subject }}</p>", "a paragraph of test.en.txt"),
            (
                "{% for paragraph in paragraphs if not paragraph.is_link %}{% for line in paragraph.lines %}{{ line }}{% endfor %}{% endfor %}",
                "the link of password_reset.en.txt",
            ),
            ("{% for paragraph in paragraphs %}{{ paragraph.lines[0] }}{% endfor %}", "a paragraph of test.en.txt"),
        ] {
            let error = error_of(&[("layout.html", page), ("test.en.txt", "Subject: x\n\nOne line,\nand another.\n")]);
            let rule = "layout.html: it must show every line of all paragraphs, which contain the link. It lacks ";
            assert!(error.starts_with(&format!("{rule}{lacks}")), "{error}");
        }
        let own = directory(&[(
            "layout.html",
            "{% for part in paragraphs %}{% if part.is_link %}<a href=\"{{ part.lines[0] }}\">Open</a>{% else %}{{ part.lines|join(\"\\n\") }}{% endif %}{% endfor %}",
        )]);
        assert!(load(Some(own.path())).is_ok(), "a layout may show the link as a button");
    }

    #[test]
    fn an_unknown_variable_is_named_beside_those_that_exist() {
        let error = error_of(&[(
            "password_reset.en.txt",
            "Subject: x\n\n{{ link }}\n{{ user }} {{ range(2) }} {{ service }}\n{{ b }}\n",
        )]);
        let known = "There are: service, requested_at, client, link, valid_for.";
        assert_eq!(error, format!("password_reset.en.txt, line 4: there is no variable user here. {known}"));
        let error = error_of(&[("key_created.en.txt", "Subject: x\n\n{{ link }}\n")]);
        let known = "There are: service, requested_at, client.";
        assert_eq!(error, format!("key_created.en.txt, line 3: there is no variable link here. {known}"));
        let error = error_of(&[("layout.html", "<p>\n{{ service }}</p>")]);
        let known = "There are: language, subject, paragraphs.";
        assert_eq!(error, format!("layout.html, line 2: there is no variable service here. {known}"));
    }

    #[test]
    fn the_built_in_templates_can_be_written_to_a_directory_and_are_then_valid() {
        let parent = directory(&[]);
        let own = parent.path().join("a/b");
        assert_eq!(write_to(&own), Ok(BUILT_IN.len()));
        assert!(load(Some(&own)).is_ok());
        BUILT_IN.iter().for_each(|(name, text)| assert_eq!(fs::read_to_string(own.join(name)).unwrap(), *text));
    }
}
