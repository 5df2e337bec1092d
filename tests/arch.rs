//! Checks the rules that all source files follow: import order, layers, dialects, secrets and constants.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use latchkey::domain::secret::{Secret, SecretKind};

/// The modules from top to bottom. A file belongs to the longest entry that its path starts with. It may import files
/// of the same entry or of a later one.
const ORDER: [&str; 42] = [
    "cli",
    "server",
    "http/mod",
    "http/routes",
    "http/openapi",
    "http/session",
    "http/account",
    "http/token",
    "http/key",
    "http/audit",
    // Every other file is a resource, such as `page`.
    "http",
    "http/forward_auth",
    "http/operations",
    "http/resource",
    "http/static_file",
    "http/guard",
    "http/transport",
    "http/wire",
    "http/request",
    "service/account",
    "service/session",
    "service/token",
    "service/key",
    "service",
    "service/forward_auth/mod",
    "service/stats/mod",
    "service/audit/read",
    "service/mod",
    "service/stats",
    "service/lifecycle",
    "service/mail",
    "service/audit",
    "service/forward_auth",
    "service/identity",
    "service/limits",
    "service/password",
    "service/lists",
    "service/validation",
    "db",
    "db/engine",
    "db/schema",
    "logging",
];
/// Top-level modules that every entry may import, regardless of their place in `ORDER`.
const AVAILABLE_TO_ALL: [&str; 8] = ["clock", "config", "domain", "error", "metrics", "part_file", "signals", "tls"];
/// The layers above the domain, which a module available to all must not import.
const LAYERS: [&str; 5] = ["db", "service", "http", "server", "cli"];
/// Layers that must not import each other although one is below the other: `http` uses the database through `service` only.
const FORBIDDEN: [(&str, &str); 1] = [("http", "db")];
/// Directories that count as one module, because their files share types with the file that declares them.
const ONE_MODULE: [&str; 3] = ["cli", "config", "logging"];
/// Maximum number of files in a directory.
const MAX_FILES: usize = 17;

/// Crate → the only layer that may name it.
const LAYER_OF_CRATE: [(&str, &str); 14] = [
    ("actix_cors", "http"),
    ("actix_tls", "http"),
    ("actix_web", "http"),
    ("actix_web_httpauth", "http"),
    ("paperclip", "http"),
    ("diesel", "db"),
    ("diesel_migrations", "db"),
    ("r2d2", "db"),
    ("lettre", "service"),
    ("minijinja", "service"),
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
                // Comments are not checked.
                let text = fs::read_to_string(&path).unwrap();
                let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                found.push((path, code.join("\n")));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the sources were found");
    found
}

/// The first part of the path below `src`, without `.rs`.
fn layer(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Whether the code contains this path, not as the end of a longer name.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        !(before.is_alphanumeric() || before == '_')
    })
}

/// The module path of a file below `src`, such as `http::wire::body`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().with_extension("");
    let module = below.to_string_lossy().replace('/', "::");
    let module = module.strip_suffix("::mod").unwrap_or(&module);
    let first = layer_of(module);
    if ONE_MODULE.contains(&first) { first.to_owned() } else { module.to_owned() }
}

/// The code of a file without its unit tests.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests").next().unwrap()
}

/// The paths within this crate that the code of a module names, from the crate's root.
fn named_paths(own: &str, code: &str) -> Vec<String> {
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    for (prefix, base) in [("crate::", ""), ("super::", parent), ("self::", own)] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            assert!(!rest.starts_with("super::"), "{own}: write super::super as a path from crate");
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let path = [base, rest[..end].trim_end_matches("::")].into_iter().filter(|part| !part.is_empty());
            let path = path.collect::<Vec<_>>().join("::");
            match rest[end..].strip_prefix('{').and_then(|group| group.split_once('}')) {
                Some((group, _)) if rest[..end].ends_with("::") || end == 0 => {
                    assert!(!group.contains('{'), "{own}: nested groups of imports hide modules from this test");
                    let names = group.split(',').map(|name| name.trim().split(' ').next().unwrap());
                    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
                    found.extend(names.filter(|name| !name.is_empty()).map(join));
                }
                _ => found.push(path),
            }
        }
    }
    found
}

/// Returns each module with the modules that it imports.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources: Vec<(String, String)> =
        sources().into_iter().map(|(path, code)| (module(&path), code)).filter(|(own, _)| own != "lib").collect();
    let known: BTreeSet<&str> = sources.iter().map(|(own, _)| own.as_str()).collect();
    let module_of_path = |path: &str| {
        let mut path = path;
        loop {
            if known.contains(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    let imports_of = |own: &str, code: &str| {
        named_paths(own, code).iter().filter_map(|path| module_of_path(path)).filter(|other| other != own).collect()
    };
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (own, code) in &sources {
        let imported: BTreeSet<String> = imports_of(own, without_tests(code));
        imports.entry(own.clone()).or_default().extend(imported);
    }
    imports
}

/// The position in [`ORDER`] of the entry that a module belongs to, or `None` if the module is available to all.
fn position(module: &str) -> Option<usize> {
    if AVAILABLE_TO_ALL.contains(&layer_of(module)) {
        return None;
    }
    let belongs = |entry: &str| {
        let (entry, is_file) = entry.strip_suffix("/mod").map_or((entry, false), |entry| (entry, true));
        let entry = entry.replace('/', "::");
        module == entry || (!is_file && module.starts_with(&format!("{entry}::")))
    };
    let entries = ORDER.iter().enumerate().filter(|(_, entry)| belongs(entry));
    let longest = entries.max_by_key(|(_, entry)| entry.len());
    assert!(longest.is_some(), "tests/arch.rs: add {module} to ORDER");
    longest.map(|(at, _)| at)
}

/// The layer of a module: the first part of its path.
fn layer_of(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn no_module_imports_one_above_it() {
    for (own, others) in imports() {
        for other in others {
            assert!(!FORBIDDEN.contains(&(layer_of(&own), layer_of(&other))), "{own} must not import {other}");
            match (position(&own), position(&other)) {
                (Some(from), Some(to)) => {
                    assert!(from <= to, "{own} imports {other}, which is above it: see ORDER in tests/arch.rs");
                }
                (None, Some(_)) => {
                    assert!(
                        !LAYERS.contains(&layer_of(&other)),
                        "{own} is available to all and must not import {other}"
                    );
                }
                (_, None) => {}
            }
        }
    }
}

#[test]
fn unit_tests_name_no_layer_above_their_own_either() {
    let above = |own: &str, other: &str| {
        let place = |layer: &str| ["cli", "server", "http", "service", "db"].iter().position(|known| *known == layer);
        FORBIDDEN.contains(&(own, other)) || place(own).zip(place(other)).is_some_and(|(own, other)| other < own)
    };
    for (path, code) in sources() {
        let own = module(&path);
        // A unit test may use `super::super`, which does not leave its layer.
        let code = code.replace("super::super::", "");
        for named in named_paths(&own, &code) {
            assert!(!above(layer_of(&own), layer_of(&named)), "{own} names {named}");
        }
    }
}

#[test]
fn imports_have_no_cycles() {
    let imports = imports();
    let mut done = BTreeSet::new();
    for start in imports.keys() {
        // Each module on the path, with those of its imports that are not visited yet.
        let mut path: Vec<(String, Vec<String>)> = Vec::new();
        let mut next = Some(start.clone());
        loop {
            if let Some(module) = next.take().filter(|module| !done.contains(module)) {
                let begin = path.iter().position(|(on_path, _)| *on_path == module);
                let cycle = || path[begin.unwrap()..].iter().map(|(module, _)| module.as_str()).collect::<Vec<_>>();
                assert!(begin.is_none(), "an import cycle: {}", cycle().join(" → "));
                let others = imports[&module].iter().cloned().collect();
                path.push((module, others));
            }
            let Some((_, others)) = path.last_mut() else { break };
            next = others.pop();
            if next.is_none() {
                done.insert(path.pop().unwrap().0);
            }
        }
    }
}

#[test]
fn no_directory_has_more_than_17_files() {
    let mut counts: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (path, _) in sources() {
        *counts.entry(path.parent().unwrap().to_path_buf()).or_default() += 1;
    }
    for (directory, count) in counts {
        assert!(count <= MAX_FILES, "{} has {count} files", directory.display());
    }
}

#[test]
fn all_forms_of_imports_are_detected() {
    let code = "use crate::db::{Db, users};\nuse crate::{server, tls};\nuse super::guard::permit;\nfn f() { self::g(crate::error::x()) }\n\
                #[cfg(test)]\nmod tests { use crate::cli; }";
    let found = named_paths("http::page", without_tests(code));
    assert_eq!(found, ["db::Db", "db::users", "server", "tls", "error::x", "http::guard::permit", "http::page::g"]);
}

#[test]
fn each_framework_is_used_in_one_layer_only() {
    for (path, code) in sources() {
        for (name, allowed) in LAYER_OF_CRATE {
            let is_allowed = layer(&path) == allowed;
            assert!(is_allowed || !names(&code, &format!("{name}::")), "{} names {name}", path.display());
        }
    }
}

#[test]
fn times_are_formatted_by_timestamp_only() {
    // `Timestamp` always writes six fractional digits. The number of digits that chrono's types write varies.
    for (path, code) in sources().into_iter().filter(|(path, _)| ["http", "cli"].contains(&layer(path).as_str())) {
        for other in ["DateTime<", "NaiveDateTime", "to_rfc3339", "chrono::"] {
            assert!(!code.contains(other), "{} names {other}", path.display());
        }
    }
}

#[test]
fn changes_are_written_only_through_the_audit_trail() {
    // The last use of a key or session, the removal of expired rows and statistics are not audited. Background cleanup,
    // the removal of old entries and the task that sends mails write their own.
    let allowed =
        ["trail.rs", "refusals.rs", "last_use.rs", "purge.rs", "cleanup.rs", "pruning.rs", "writer.rs", "delivery.rs"];
    let writes = |code: &str| code.split_whitespace().collect::<String>().contains("db.write(");
    let above = sources().into_iter().filter(|(path, _)| layer(path) != "db");
    let writers: Vec<PathBuf> = above.filter(|(_, code)| writes(code)).map(|(path, _)| path).collect();
    assert!(!writers.is_empty(), "the writers were found");
    for path in writers {
        assert!(
            allowed.iter().any(|name| path.ends_with(name)),
            "{} must write through the audit trail",
            path.display()
        );
    }
}

#[test]
fn no_process_is_started() {
    for (path, code) in sources() {
        for forbidden in ["process::Command", "Command::new"] {
            assert!(!code.contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}

/// Items of the rand crate that read random bytes from the operating system.
const SYSTEM_RNG_ITEMS: [&str; 3] = ["TryRng", "rngs::SysRng", "rngs::SysError"];
/// Files that generate random names of requests and processes, which are not secret.
const RANDOM_NAME_FILES: [&str; 2] = ["http/request/request_id.rs", "db/engine/postgres.rs"];
/// Other sources of random bytes, which are forbidden.
const OTHER_RANDOM_SOURCES: [&str; 4] = ["getrandom", "fastrand", "/dev/urandom", "thread_rng"];

#[test]
fn secrets_and_salts_are_random_bytes_of_the_operating_system() {
    let mut count = 0;
    for (path, code) in sources() {
        for other in OTHER_RANDOM_SOURCES {
            assert!(!code.contains(other), "{} names {other}", path.display());
        }
        for (at, found) in code.match_indices("rand::") {
            let rest = &code[at + found.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            let item = rest[..end].trim_end_matches(':');
            let is_name = item == "random" && RANDOM_NAME_FILES.iter().any(|file| path.ends_with(file));
            assert!(is_name || SYSTEM_RNG_ITEMS.contains(&item), "{} uses rand::{item}", path.display());
        }
        count += code.matches("SysRng.try_fill_bytes(").count();
    }
    assert_eq!(count, 2, "password salts and secrets");
}

/// Calls that open a connection or resolve a host name. libpq does both itself and is not checked.
const CONNECTING_CALLS: [&str; 10] = [
    "AsyncSmtp",
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
fn only_the_health_command_and_mail_open_connections() {
    let connects = |code: &str| CONNECTING_CALLS.iter().any(|call| code.contains(call));
    let places: Vec<PathBuf> = sources().into_iter().filter(|(_, code)| connects(code)).map(|(path, _)| path).collect();
    let allowed = ["cli/health.rs", "service/mail/smtp.rs"];
    assert!(
        places.len() == 2 && places.iter().all(|place| allowed.iter().any(|file| place.ends_with(file))),
        "{places:?}"
    );
}

/// The names of the numeric and `Duration` constants in this code.
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
                "{}: a test must not use {name} of the program",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 50, "only {count} constants were found");
}

/// Calls that execute SQL text.
const SQL_CALLS: [&str; 4] = ["sql_query(", "batch_execute(", "sql::<", "sql("];
/// File and name of each variable that holds SQL, always one of a few constants.
const SQL_VARIABLES: [(&str, &str); 4] = [
    ("db/engine/change_log.rs", "sql"),
    ("db/engine/manager.rs", "step"),
    ("db/engine/migrate.rs", "exists"),
    ("db/transfer/text_check.rs", "texts"),
];

/// The first word of each text that is executed as SQL: a literal, or a name.
fn executed(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in SQL_CALLS {
        for (at, _) in code.match_indices(call) {
            // Skips the end of another name, such as `begin_transaction_sql`.
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
            let is_listed = SQL_VARIABLES.iter().any(|(file, name)| path.ends_with(file) && *name == word);
            assert!(is_constant(&word) || is_listed, "{} executes {word}", path.display());
            count += 1;
        }
    }
    assert!(count > 15, "the queries were found");
}

#[test]
fn assembled_queries_are_detected() {
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

/// File below `src/db` and text of each line that queries this table. Lines that insert, update or delete are
/// omitted.
fn queries_of(table: &str) -> Vec<(String, String)> {
    let in_db = sources().into_iter().filter(|(path, _)| layer(path) == "db");
    let mut found = Vec::new();
    for (path, code) in in_db {
        let file = path.to_string_lossy().rsplit_once("/src/db/").unwrap().1.to_owned();
        let is_query = |line: &str| {
            let writes = ["insert_into(", "update(", "delete("].iter().any(|word| line.contains(word));
            !writes && names(line, &format!("{table}::table"))
        };
        found.extend(code.lines().filter(|line| is_query(line)).map(|line| (file.clone(), line.trim().to_owned())));
    }
    found
}

#[test]
fn queries_exclude_deleted_users_and_ended_keys() {
    let files = |table: &str, expected: &[(&str, usize)]| {
        let found = queries_of(table);
        for (file, count) in expected {
            let lines: Vec<&str> =
                found.iter().filter(|(name, _)| name == file).map(|(_, line)| line.as_str()).collect();
            assert_eq!(
                lines.len(),
                *count,
                "start the query with `existing()`, or change this count: {table} in {file}: {lines:#?}"
            );
        }
        let known = |name: &str| expected.iter().any(|(file, _)| *file == name);
        assert!(found.iter().all(|(name, _)| known(name)), "{table} is read in another file: {found:#?}");
    };
    // users.rs: `existing`, the ids of admins, and the last ended key of a locked user. access_tokens.rs,
    // sessions.rs and api_keys/row.rs: the joins, which check `deleted_at`. pages.rs: the users whose pages are hidden.
    files(
        "users",
        &[("users.rs", 3), ("access_tokens.rs", 1), ("sessions.rs", 1), ("api_keys/row.rs", 1), ("pages.rs", 2)],
    );
    // row.rs: `existing`. mod.rs and issued.rs: six that count or end keys of a user whose row is locked, the end of
    // all keys at a restore, and claims that expired long ago. secret.rs: the first use of a resolved secret, and the last
    // use of a key that was resolved.
    files(
        "api_keys",
        &[("api_keys/row.rs", 1), ("api_keys/mod.rs", 2), ("api_keys/issued.rs", 6), ("api_keys/secret.rs", 2)],
    );
    // `existing`; the end of the range that a list reads; the texts of listed pages; and the pages of a user who is
    // being removed.
    files("pages", &[("pages.rs", 4)]);
}

#[test]
fn only_the_engine_the_transfer_and_two_tables_use_sql_dialects() {
    for (path, code) in sources() {
        let dialect = ["PRAGMA", "BEGIN IMMEDIATE", "pg_advisory", "Conn::Postgres", "Conn::Sqlite"];
        let dialect = dialect.iter().any(|text| code.contains(text));
        let text = path.to_string_lossy();
        let tables = ["/db/audit_entries/removals.rs", "/db/user_search.rs"];
        let folders = ["/db/engine/", "/db/transfer/"];
        let allowed =
            folders.iter().any(|folder| text.contains(folder)) || tables.iter().any(|file| text.ends_with(file));
        assert!(!dialect || allowed, "{} uses an SQL dialect", path.display());
    }
}

/// Example secrets in the documentation. They are not valid anywhere.
const EXAMPLES: [&str; 1] = ["lkt_HPY1Z4CTykkrmojYVb3qtv00R8RbGpNKSfYLOtk87uC3ZOlQc"];

/// Prefixes of other products' secrets, and their minimum lengths in characters.
const THIRD_PARTY_SECRETS: [(&str, usize); 6] =
    [("AKIA", 20), ("ghp_", 40), ("github_pat_", 60), ("glpat-", 26), ("sk_live_", 30), ("xoxb-", 30)];

/// Returns the first line of `text` that contains a private key, a secret of Latchkey, or one of another product.
fn secret_line(text: &str) -> Option<&str> {
    let is_key = |line: &str| {
        let label = line.split_once("-----BEGIN ").map(|(_, rest)| rest);
        label.is_some_and(|rest| rest.contains("PRIVATE KEY-----"))
    };
    let is_secret = |word: &str| {
        let is_own = SecretKind::of(word).is_some() && !EXAMPLES.contains(&word);
        is_own || THIRD_PARTY_SECRETS.iter().any(|(prefix, length)| word.starts_with(prefix) && word.len() >= *length)
    };
    let contains_secret =
        |line: &str| line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).any(is_secret);
    text.lines().find(|line| is_key(line) || contains_secret(line))
}

#[test]
fn the_repository_contains_no_secrets() {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
    let files = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<&Path> = files.split_terminator('\0').map(Path::new).collect();
    assert!(files.len() > 100, "the files were listed");
    for file in files {
        let kind = file.extension().unwrap_or(file.file_name().unwrap());
        let is_store = ["db", "env", ".env", "jks", "key", "p12", "pem", "pfx"].iter().any(|store| kind == *store);
        assert!(!is_store, "{} has a file type that holds secrets", file.display());
        // Git lists a removed file until the removal is committed.
        let Ok(bytes) = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        assert!(secret_line(&text).is_none(), "{} contains a secret", file.display());
    }
}

#[test]
fn secrets_in_text_are_detected() {
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
fn the_image_contains_only_the_program_and_an_empty_directory() {
    let dockerfile = include_str!("../Dockerfile");
    let (_, image) = dockerfile.rsplit_once("\nFROM ").unwrap();
    let copied: Vec<&str> = image.lines().filter(|line| line.starts_with("COPY") || line.starts_with("ADD")).collect();
    let program_and_empty_directory =
        ["COPY --from=build /out/latchkey /latchkey", "COPY --from=build --chown=65532:65532 /out/root/ /"];
    assert_eq!(copied, program_and_empty_directory);
    assert!(!["PASSWORD", "API_KEY", "TOKEN"].iter().any(|name| image.contains(name)), "a secret in the environment");
}
