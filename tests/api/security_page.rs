//! Checks that each test named in `docs/security.md` exists.

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/security.md");
const TESTED: &str = "`tested`";
const PARTLY: &str = "`partly`";
const STATUSES: [&str; 5] = [TESTED, PARTLY, "`documented`", "`deviation`", "`open`"];

/// A row of the table of requirements.
struct Row {
    number: &'static str,
    status: &'static str,
    evidence: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Self {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        Self { number: cells[0], status: cells[3], evidence: cells[4] }
    }

    /// The paths in backticks: names of tests.
    fn tests(&self) -> Vec<&'static str> {
        self.evidence.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect()
    }
}

/// The rows with a requirement number.
fn rows() -> Vec<Row> {
    let numbered =
        |line: &&str| line.strip_prefix("| ").is_some_and(|row| row.starts_with(|c: char| c.is_ascii_digit()));
    PAGE.lines().filter(numbered).map(Row::parse).collect()
}

/// Whether a test with this path exists, such as `guard::credentials::name` or `http::request::tests::name`.
fn exists(name: &str) -> bool {
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    if let Some(module) = module.strip_prefix("browser::") {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/console/{module}.test.mjs"));
        return fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("test('{test}'")));
    }
    let files = match module.strip_suffix("::tests").map(|module| module.replace("::", "/")) {
        Some(module) => vec![format!("src/{module}.rs"), format!("src/{module}/mod.rs")],
        None if module == "arch" => vec!["tests/arch.rs".to_owned()],
        None => match module.strip_prefix("faults::") {
            Some(module) => vec![format!("tests/faults/{}.rs", module.replace("::", "/"))],
            None => vec![format!("tests/api/{}.rs", module.replace("::", "/"))],
        },
    };
    files.iter().any(|file| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        text.is_ok_and(|text| is_test(&text, test))
    })
}

/// Whether a source text has a test function of this name: with a test attribute, or in a `specify` macro.
fn is_test(text: &str, test: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let signature = format!("fn {test}(");
    lines.iter().enumerate().any(|(index, line)| {
        let function = line.trim_start();
        if !function.strip_prefix("async ").unwrap_or(function).starts_with(&signature) {
            return false;
        }
        let mut attributes =
            lines[..index].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with('#'));
        let enclosing = lines[..index].iter().rev().find(|line| line.starts_with(|c: char| c.is_alphabetic()));
        attributes.any(|attribute| {
            ["#[test]", "#[tokio::test", "#[actix_web::test"].iter().any(|prefix| attribute.starts_with(prefix))
        }) || (line.starts_with("    ") && enclosing.is_some_and(|line| line.starts_with("specify")))
    })
}

#[test]
fn every_test_named_by_the_security_page_exists() {
    let rows = rows();
    let tested = rows.iter().filter(|row| row.status == TESTED).count();
    assert!(tested > 60, "only {tested} rows have the status tested");
    for Row { number, status, .. } in &rows {
        assert!(STATUSES.contains(status), "row {number}: unknown status: {status}");
    }
    for row in &rows {
        let (number, tests) = (row.number, row.tests());
        assert!(![TESTED, PARTLY].contains(&row.status) || !tests.is_empty(), "row {number} names no test");
        let states_gap = row.evidence.contains("; no test ");
        assert!(row.status != PARTLY || states_gap, "row {number} does not state what is untested");
        for test in tests {
            assert!(exists(test), "row {number}: there is no test {test}");
        }
    }
}

#[test]
fn missing_tests_are_detected() {
    for (name, expected) in [
        ("security_page::missing_tests_are_detected", true),
        ("arch::each_framework_is_used_in_one_layer_only", true),
        ("guard::credentials::both_headers_open_the_protected_route", true),
        ("http::request::client::tests::headers_of_untrusted_peers_are_ignored", true),
        ("faults::soak::memory_files_and_threads_are_released", true),
        ("browser::session_browser::sign-out empties the page although the server is away", true),
        ("browser::session_browser::sign-out empties", false),
        ("guard::credentials::both_headers_open_the_protected", false),
        ("soak::memory_files_and_threads_are_released", false),
        ("guard::credentials::headers_of_untrusted_peers_are_ignored", false),
        ("arch::both_headers_open_the_protected_route", false),
        ("http::request::client::tests::both_headers_open_the_protected_route", false),
        ("nowhere::both_headers_open_the_protected_route", false),
        ("tested", false),
    ] {
        assert_eq!(exists(name), expected, "{name}");
    }
    for (text, expected) in [
        ("#[test]\nfn it() {", true),
        ("    #[test]\n    fn it() {", true),
        ("#[tokio::test]\n#[ignore = \"long\"]\nasync fn it() {", true),
        ("specify! {\n    async fn it(app: App) {", true),
        ("fn it() {", false),
        ("#[test]\nfn other() {}\n\nfn it() {", false),
        ("specify! {\n    async fn other(app: App) {\n    }\n}\n\nasync fn it() {", false),
        ("#[inline]\nfn it() {", false),
    ] {
        assert_eq!(is_test(text, "it"), expected, "{text}");
    }
}
