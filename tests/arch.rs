//! The rules of the house, read off the sources.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Layer → the layers of this crate that it may name.
const MAY_NAME: [(&str, &[&str]); 4] =
    [("domain", &[]), ("db", &["domain"]), ("service", &["domain", "db"]), ("http", &["domain", "service"])];
const LAYERS: [&str; 6] = ["domain", "db", "service", "http", "server", "cli"];
/// What every layer may name, and what in turn names no layer above the domain.
const FOR_ALL: [&str; 6] = ["clock", "config", "error", "logging", "metrics", "tls"];

/// Crate → the one layer that may name it.
const HOME_OF: [(&str, &str); 12] = [
    ("actix_cors", "http"),
    ("actix_tls", "http"),
    ("actix_web", "http"),
    ("actix_web_httpauth", "http"),
    ("paperclip", "http"),
    ("diesel", "db"),
    ("diesel_migrations", "db"),
    ("r2d2", "db"),
    ("rustls", "tls"),
    ("socket2", "http"),
    ("clap", "cli"),
    ("prometheus_client", "metrics"),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // Comments may name anything.
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                found.push((path, code.join("\n")));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the sources are found");
    found
}

/// The first part of the path below `src`, without `.rs`.
fn layer(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        !(before.is_alphanumeric() || before == '_')
    })
}

#[test]
fn each_layer_names_only_those_below_it() {
    for (path, code) in sources() {
        let own = layer(&path);
        let allowed: &[&str] = match MAY_NAME.iter().find(|(layer, _)| *layer == own) {
            Some((_, allowed)) => allowed,
            None if FOR_ALL.contains(&own.as_str()) => &["domain"],
            None => continue,
        };
        assert!(!code.contains("crate::{"), "{} groups imports, which hides layers from this test", path.display());
        for other in LAYERS.iter().filter(|other| **other != own && !allowed.contains(other)) {
            assert!(!names(&code, &format!("crate::{other}")), "{} names crate::{other}", path.display());
        }
    }
}

#[test]
fn each_framework_stays_in_its_layer() {
    for (path, code) in sources() {
        for (name, home) in HOME_OF {
            let at_home = layer(&path) == home;
            assert!(at_home || !names(&code, &format!("{name}::")), "{} names {name}", path.display());
        }
    }
}

#[test]
fn changes_reach_the_database_through_the_audit_trail_alone() {
    // That a key was used, or that what is dead is removed, is no change of anybody's.
    let allowed = ["trail.rs", "key_usage.rs", "purge.rs"];
    let writes = |code: &str| code.split_whitespace().collect::<String>().contains("db.write(");
    let above = sources().into_iter().filter(|(path, _)| layer(path) != "db");
    let writers: Vec<PathBuf> = above.filter(|(_, code)| writes(code)).map(|(path, _)| path).collect();
    assert!(!writers.is_empty(), "the writers are found");
    for path in writers {
        assert!(allowed.iter().any(|name| path.ends_with(name)), "{} writes past the audit trail", path.display());
    }
}

#[test]
fn no_program_is_started_and_no_query_is_put_together() {
    for (path, code) in sources() {
        for forbidden in ["process::Command", "Command::new", "sql_query(format!", "sql_query(&format!"] {
            assert!(!code.contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}

#[test]
fn only_connections_and_migrations_tell_the_databases_apart() {
    for (path, code) in sources() {
        let dialect = ["PRAGMA", "BEGIN IMMEDIATE", "pg_advisory", "Conn::Postgres", "Conn::Sqlite"];
        let dialect = dialect.iter().any(|text| code.contains(text));
        let allowed =
            ["conn.rs", "feed.rs", "migrate.rs"].iter().any(|name| path.ends_with(Path::new("db").join(name)));
        assert!(!dialect || allowed, "{} speaks a dialect", path.display());
    }
}
