//! The page about security names tests, and each of them is there.

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
    place: &'static str,
}

impl Row {
    fn of(line: &'static str) -> Self {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        Self { number: cells[0], status: cells[3], place: cells[4] }
    }

    /// The names in backticks that are paths.
    fn tests(&self) -> Vec<&'static str> {
        self.place.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect()
    }
}

fn rows() -> Vec<Row> {
    let numbered =
        |line: &&str| line.strip_prefix("| ").is_some_and(|row| row.starts_with(|c: char| c.is_ascii_digit()));
    PAGE.lines().filter(numbered).map(Row::of).collect()
}

/// Whether there is a test of this name.
fn exists(name: &str) -> bool {
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    let files = match module.strip_suffix("::tests").map(|module| module.replace("::", "/")) {
        Some(module) => vec![format!("src/{module}.rs"), format!("src/{module}/mod.rs")],
        None if module == "arch" => vec!["tests/arch.rs".to_owned()],
        None => match module.strip_prefix("faults::") {
            Some(module) => vec![format!("tests/faults/{module}.rs")],
            None => vec![format!("tests/api/{module}.rs")],
        },
    };
    files.iter().any(|file| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        text.is_ok_and(|text| is_run(&text, test))
    })
}

/// Whether a source has a function of this name that the test runner calls: by its attribute, or by the macro around it.
fn is_run(text: &str, test: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let begins = format!("fn {test}(");
    lines.iter().enumerate().any(|(at, line)| {
        let function = line.trim_start();
        if !function.strip_prefix("async ").unwrap_or(function).starts_with(&begins) {
            return false;
        }
        let mut attributes = lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with('#'));
        let around = lines[..at].iter().rev().find(|line| line.starts_with(|c: char| c.is_alphabetic()));
        attributes.any(|attribute| {
            ["#[test]", "#[tokio::test", "#[actix_web::test"].iter().any(|is| attribute.starts_with(is))
        }) || (line.starts_with("    ") && around.is_some_and(|line| line.starts_with("specify")))
    })
}

#[test]
fn every_test_that_the_page_about_security_names_is_there() {
    let rows = rows();
    let tested = rows.iter().filter(|row| row.status == TESTED).count();
    assert!(tested > 60, "only {tested} rows were read as tested");
    for Row { number, status, .. } in &rows {
        assert!(STATUSES.contains(status), "row {number}: no such status: {status}");
    }
    for row in &rows {
        let (number, tests) = (row.number, row.tests());
        assert!(![TESTED, PARTLY].contains(&row.status) || !tests.is_empty(), "row {number} names no test");
        let is_told = row.place.contains("; no test ");
        assert!(row.status != PARTLY || is_told, "row {number} does not say what no test shows");
        for test in tests {
            assert!(exists(test), "row {number}: there is no test {test}");
        }
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    for (name, there) in [
        ("security_page::a_test_that_is_not_there_is_missed", true),
        ("arch::each_framework_stays_in_its_layer", true),
        ("guard::both_headers_open_the_protected_route", true),
        ("http::client::tests::nobody_else_is_believed", true),
        ("faults::soak::memory_files_and_threads_are_given_back", true),
        ("guard::both_headers_open_the_protected", false),
        ("soak::memory_files_and_threads_are_given_back", false),
        ("guard::nobody_else_is_believed", false),
        ("arch::both_headers_open_the_protected_route", false),
        ("http::client::tests::both_headers_open_the_protected_route", false),
        ("nowhere::both_headers_open_the_protected_route", false),
        ("tested", false),
    ] {
        assert_eq!(exists(name), there, "{name}");
    }
    for (text, run) in [
        ("#[test]\nfn it() {", true),
        ("    #[test]\n    fn it() {", true),
        ("#[tokio::test]\n#[ignore = \"long\"]\nasync fn it() {", true),
        ("specify! {\n    async fn it(app: App) {", true),
        ("fn it() {", false),
        ("#[test]\nfn other() {}\n\nfn it() {", false),
        ("specify! {\n    async fn other(app: App) {\n    }\n}\n\nasync fn it() {", false),
        ("#[inline]\nfn it() {", false),
    ] {
        assert_eq!(is_run(text, "it"), run, "{text}");
    }
}
