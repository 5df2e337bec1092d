//! The rules of the house, read off the sources.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use latchkey::domain::secret::{Secret, SecretKind};

/// Layer → the layers of this crate that it may name.
const MAY_NAME: [(&str, &[&str]); 4] =
    [("domain", &[]), ("db", &["domain"]), ("service", &["domain", "db"]), ("http", &["domain", "service"])];
const LAYERS: [&str; 6] = ["domain", "db", "service", "http", "server", "cli"];
/// What every layer may name, and what in turn names no layer above the domain.
const FOR_ALL: [&str; 7] = ["clock", "config", "error", "logging", "metrics", "signals", "tls"];

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
fn times_are_written_in_one_form() {
    // `Timestamp` writes six digits of a second; chrono's types as many as there are.
    for (path, code) in sources().into_iter().filter(|(path, _)| ["http", "cli"].contains(&layer(path).as_str())) {
        for other in ["DateTime<", "NaiveDateTime", "to_rfc3339", "chrono::"] {
            assert!(!code.contains(other), "{} names {other}", path.display());
        }
    }
}

#[test]
fn changes_reach_the_database_through_the_audit_trail_alone() {
    // That a key was used, or that what is dead is removed, is no change of anybody's.
    // What follows in the background from a change that has its entry has entries, too.
    let allowed = ["trail.rs", "refusals.rs", "key_usage.rs", "purge.rs", "cleanup.rs"];
    let writes = |code: &str| code.split_whitespace().collect::<String>().contains("db.write(");
    let above = sources().into_iter().filter(|(path, _)| layer(path) != "db");
    let writers: Vec<PathBuf> = above.filter(|(_, code)| writes(code)).map(|(path, _)| path).collect();
    assert!(!writers.is_empty(), "the writers are found");
    for path in writers {
        assert!(allowed.iter().any(|name| path.ends_with(name)), "{} writes past the audit trail", path.display());
    }
}

#[test]
fn no_program_is_started() {
    for (path, code) in sources() {
        for forbidden in ["process::Command", "Command::new"] {
            assert!(!code.contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}

/// What gives random bytes of the operating system.
const OF_THE_SYSTEM: [&str; 3] = ["TryRng", "rngs::SysRng", "rngs::SysError"];
/// Files that name requests and processes at random, and make no secret.
const RANDOM_NAMES: [&str; 2] = ["http/edge.rs", "db/postgres.rs"];
/// Other ways to random bytes.
const OTHER_SOURCES: [&str; 4] = ["getrandom", "fastrand", "/dev/urandom", "thread_rng"];

#[test]
fn secrets_and_salts_are_random_bytes_of_the_operating_system() {
    let mut count = 0;
    for (path, code) in sources() {
        for other in OTHER_SOURCES {
            assert!(!code.contains(other), "{} names {other}", path.display());
        }
        for (at, found) in code.match_indices("rand::") {
            let rest = &code[at + found.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let item = rest[..end].trim_end_matches(':');
            let is_name = item == "random" && RANDOM_NAMES.iter().any(|file| path.ends_with(file));
            assert!(is_name || OF_THE_SYSTEM.contains(&item), "{} takes rand::{item}", path.display());
        }
        count += code.matches("SysRng.try_fill_bytes(").count();
    }
    assert_eq!(count, 2, "the salts of passwords, and secrets");
}

/// What reaches others over a network, or looks up where they are. libpq does both for itself.
const CONNECTS: [&str; 9] = [
    "TcpStream::connect",
    "TcpSocket",
    "TlsConnector",
    "UdpSocket",
    "UnixDatagram",
    "UnixStream",
    ".connect_timeout(",
    "lookup_host",
    "to_socket_addrs",
];

#[test]
fn nothing_connects_but_the_command_that_asks_for_health() {
    let connects = |code: &str| CONNECTS.iter().any(|call| code.contains(call));
    let places: Vec<PathBuf> = sources().into_iter().filter(|(_, code)| connects(code)).map(|(path, _)| path).collect();
    assert!(matches!(places.as_slice(), [only] if only.ends_with("cli/health.rs")), "{places:?}");
}

/// The numbers and durations that are constants in this code.
fn numeric_constants(code: &str) -> Vec<&str> {
    let typed = code.split("const ").skip(1).filter_map(|rest| rest.split_once(": "));
    let numeric =
        |kind: &str| ["i64", "u16", "u32", "u64", "usize", "Duration"].iter().any(|name| kind.starts_with(name));
    typed.filter(|(_, kind)| numeric(kind)).map(|(name, _)| name).collect()
}

#[test]
fn no_unit_test_computes_its_bound_with_the_constant_under_test() {
    let mut count = 0;
    for (path, code) in sources() {
        let Some((program, tests)) = code.split_once("#[cfg(test)]") else { continue };
        for name in numeric_constants(program) {
            let is_own = numeric_constants(tests).contains(&name);
            let mut words = tests.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            assert!(
                is_own || words.all(|word| word != name),
                "{}: the tests take {name} from the program",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 50, "only {count} constants were found");
}

/// What takes SQL as text.
const TAKES_SQL: [&str; 4] = ["sql_query(", "batch_execute(", "sql::<", "sql("];
/// File and name of a variable that holds one of a few constants.
const HOLD_SQL: [(&str, &str); 3] = [("db/change_log.rs", "sql"), ("db/conn.rs", "step"), ("db/migrate.rs", "exists")];

/// The first word of each text that is executed as SQL: a literal, or a name.
fn executed(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in TAKES_SQL {
        for (at, _) in code.match_indices(call) {
            // The end of another name, such as `begin_transaction_sql`.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &code[at + call.len()..];
            let argument = if call.ends_with('<') { rest.split_once(">(").map_or("", |(_, rest)| rest) } else { rest };
            let argument = argument.trim_start();
            let end = argument.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(argument.len());
            found.push(if argument.starts_with('"') { "\"".to_owned() } else { argument[..end].to_owned() });
        }
    }
    found
}

fn is_constant(word: &str) -> bool {
    word == "\"" || (!word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

#[test]
fn every_query_is_a_constant() {
    let mut count = 0;
    for (path, code) in sources() {
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
        for word in executed(code) {
            let holds = HOLD_SQL.iter().any(|(file, name)| path.ends_with(file) && *name == word);
            assert!(is_constant(&word) || holds, "{} executes {word}", path.display());
            count += 1;
        }
    }
    assert!(count > 15, "the queries are found");
}

#[test]
fn a_query_that_is_put_together_is_found() {
    for code in [
        "sql_query(format!(\"SELECT {id}\"))",
        "sql_query(&format!(\"x\"))",
        "diesel::sql_query([A, B].concat())",
        "sql_query(\n    query,\n)",
        "conn.batch_execute(&text)",
        "sql::<Bool>(&condition)",
        "dsl::sql::<Text>(format!(\"x\"))",
        "dsl::sql(&condition)",
        "filter(sql(\n    condition,\n))",
    ] {
        assert!(executed(code).iter().any(|word| !is_constant(word)), "{code}");
    }
    for code in ["sql_query(\"SELECT 1\")", "batch_execute(\n    SETUP)", "sql::<diesel::sql_types::Bool>(LOCK)"] {
        assert!(executed(code).iter().all(|word| is_constant(word)), "{code}");
    }
}

/// Lines of the database layer that name this table in a query, without those that insert, update or delete.
fn queries_of(table: &str) -> Vec<(String, String)> {
    let in_db = sources().into_iter().filter(|(path, _)| layer(path) == "db");
    let mut found = Vec::new();
    for (path, code) in in_db {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let begins = |line: &str| {
            let writes = ["insert_into(", "update(", "delete("].iter().any(|word| line.contains(word));
            !writes && names(line, &format!("{table}::table"))
        };
        found.extend(code.lines().filter(|line| begins(line)).map(|line| (file.clone(), line.trim().to_owned())));
    }
    found
}

#[test]
fn whoever_looks_for_users_keys_or_pages_sees_none_of_a_deleted_user_and_no_ended_key_as_live() {
    let files = |table: &str, expected: &[(&str, usize)]| {
        let found = queries_of(table);
        for (file, count) in expected {
            let lines: Vec<&str> =
                found.iter().filter(|(name, _)| name == file).map(|(_, line)| line.as_str()).collect();
            assert_eq!(
                lines.len(),
                *count,
                "begin with `existing()`, or change this number: {table} in {file}: {lines:#?}"
            );
        }
        let known = |name: &str| expected.iter().any(|(file, _)| *file == name);
        assert!(found.iter().all(|(name, _)| known(name)), "{table} is read elsewhere: {found:#?}");
    };
    // `existing`, the ids of admins, and up to which key those of a locked user ended; the joins of tokens and keys, which
    // look at `deleted_at`; and the users whose pages are hidden.
    files("users", &[("users.rs", 3), ("access_tokens.rs", 1), ("api_keys.rs", 1), ("pages.rs", 2)]);
    // `existing`; six that count or end keys of a user whose row is locked; the first use of a secret that was found; and
    // claims that expired long ago.
    files("api_keys", &[("api_keys.rs", 9)]);
    // `existing`; where a list stops to look; the texts of listed pages; and the pages of a user who is being removed.
    files("pages", &[("pages.rs", 4)]);
}

#[test]
fn only_connections_and_migrations_tell_the_databases_apart() {
    for (path, code) in sources() {
        let dialect = ["PRAGMA", "BEGIN IMMEDIATE", "pg_advisory", "Conn::Postgres", "Conn::Sqlite"];
        let dialect = dialect.iter().any(|text| code.contains(text));
        let files = [
            "change_log.rs",
            "conn.rs",
            "diagnosis.rs",
            "erase.rs",
            "migrate.rs",
            "postgres.rs",
            "transaction.rs",
            "user_search.rs",
        ];
        let allowed = files.iter().any(|name| path.ends_with(Path::new("db").join(name)));
        assert!(!dialect || allowed, "{} speaks a dialect", path.display());
    }
}

/// Secrets that are none: documentation shows them.
const EXAMPLES: [&str; 1] = ["lkt_HPY1Z4CTykkrmojYVb3qtv00R8RbGpNKSfYLOtk87uC3ZOlQc"];

/// How secrets of others begin, and how many characters they have at least.
const SECRETS_OF_OTHERS: [(&str, usize); 6] =
    [("AKIA", 20), ("ghp_", 40), ("github_pat_", 60), ("glpat-", 26), ("sk_live_", 30), ("xoxb-", 30)];

/// A line of `text` that holds a private key, a token of ours, or one of somebody else's.
fn secret_line(text: &str) -> Option<&str> {
    let is_key = |line: &str| {
        let begins = line.split_once("-----BEGIN ").map(|(_, rest)| rest);
        begins.is_some_and(|rest| rest.contains("PRIVATE KEY-----"))
    };
    let is_secret = |word: &str| {
        let ours = SecretKind::of(word).is_some() && !EXAMPLES.contains(&word);
        ours || SECRETS_OF_OTHERS.iter().any(|(prefix, length)| word.starts_with(prefix) && word.len() >= *length)
    };
    let holds = |line: &str| line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).any(is_secret);
    text.lines().find(|line| is_key(line) || holds(line))
}

#[test]
fn no_secret_is_in_the_repository() {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(listed.status.success(), "git lists the files: {}", String::from_utf8_lossy(&listed.stderr));
    let files = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<&Path> = files.split_terminator('\0').map(Path::new).collect();
    assert!(files.len() > 100, "the files are listed");
    for file in files {
        let kind = file.extension().unwrap_or(file.file_name().unwrap());
        let is_store = ["db", "env", ".env", "jks", "key", "p12", "pem", "pfx"].iter().any(|store| kind == *store);
        assert!(!is_store, "{} is a place for secrets", file.display());
        // One that was removed is listed until that is committed.
        let Ok(bytes) = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        assert!(secret_line(&text).is_none(), "{} holds a secret", file.display());
    }
}

#[test]
fn a_secret_in_a_text_is_found() {
    for kind in SecretKind::ALL {
        let secret = Secret::generate(kind).unwrap().reveal();
        assert!(secret_line(&format!("a\nexport TOKEN=\"{secret}\";\nb")).is_some());
        let (start, end) = secret.split_at(20);
        assert!(secret_line(&format!("{start}?{end}")).is_none());
    }
    let end = "PRIVATE KEY-----";
    for name in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
        assert!(secret_line(&format!("  \"-----BEGIN {name}{end}\\n\"")).is_some(), "{name}");
    }
    assert!(secret_line(&format!("key: {}{}", "AKIA", "A".repeat(16))).is_some());
    assert!(secret_line("-----BEGIN CERTIFICATE-----").is_none());
}

#[test]
fn the_image_takes_the_program_and_nothing_else_of_ours() {
    let dockerfile = include_str!("../Dockerfile");
    let (_, image) = dockerfile.rsplit_once("\nFROM ").unwrap();
    let copied: Vec<&str> = image.lines().filter(|line| line.starts_with("COPY") || line.starts_with("ADD")).collect();
    let program_and_empty_directory =
        ["COPY --from=build /out/latchkey /latchkey", "COPY --from=build --chown=65532:65532 /out/data /data"];
    assert_eq!(copied, program_and_empty_directory);
    assert!(!["PASSWORD", "API_KEY", "TOKEN"].iter().any(|name| image.contains(name)), "a secret in the environment");
}
