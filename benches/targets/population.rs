//! Inserts users with tokens by SQL, because a million sign-ins would take a day.

use std::fmt::Write as _;
use std::path::PathBuf;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use latchkey::domain::password::{Password, PasswordHash};
use latchkey::domain::secret::{Secret, SecretKind};
use tempfile::TempDir;

use crate::database::{Backend, Database};

/// Password of all users.
pub const PASSWORD: &str = "correct-horse-battery";
/// The default cost of a password hash.
pub const COST: u32 = 12;
/// Rows per statement.
const CHUNK: usize = 1_000;

/// A migrated database with users and their tokens.
pub struct Population {
    pub database: Database,
    /// The tokens of the first users, in clear text.
    pub tokens: Vec<String>,
    home: TempDir,
}

impl Population {
    /// Creates a database with `users` users. Each has a token; those of the first `known` users can be presented.
    pub fn create(backend: Backend, users: u64, known: u64) -> Self {
        Self::fill(Database::create(backend).expect("there is a database"), users, known)
    }

    /// Like [`Self::create`], on a given empty database.
    pub fn fill(database: Database, users: u64, known: u64) -> Self {
        Self::fill_at_cost(database, users, known, COST)
    }

    /// Like [`Self::fill`], with password hashes of another cost.
    pub fn fill_at_cost(database: Database, users: u64, known: u64, cost: u32) -> Self {
        let backend = database.backend;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(database.open().migrate_up()).unwrap();
        let hash = PasswordHash::create(&Password::new(PASSWORD.to_owned()), cost).unwrap();
        let (numbers, digest, fast_inserts) = match backend {
            Backend::Sqlite => (
                format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {users})"),
                "lower(hex(randomblob(32)))",
                "PRAGMA synchronous = OFF;",
            ),
            Backend::Postgres => (
                format!("WITH n AS (SELECT generate_series(1, {users}) AS i)"),
                "encode(sha256(convert_to(CAST(i AS TEXT), 'UTF8')), 'hex')",
                // No server runs yet, so the triggers of the change log are not needed.
                "SET statement_timeout = 0; SET session_replication_role = replica;",
            ),
        };
        let (since, until) = ("'2026-01-01 00:00:00'", "'2099-01-01 00:00:00'");
        let mut sql = format!(
            "{fast_inserts} {numbers} INSERT INTO users
                (name, surname, email, email_key, website, hashed_password, created_at, updated_at)
             SELECT 'Bencher', '', 'user' || i || '@example.org', 'user' || i || '@example.org', '', '{}', {since}, {since}
             FROM n ORDER BY i;
             {numbers} INSERT INTO access_tokens
                (user_id, access_token, scopes, created_at, expiration_date, sign_in_id)
             SELECT i, {digest}, '*', {since}, {until}, 0 FROM n WHERE i > {known};",
            hash.as_str(),
        );
        let secrets: Vec<Secret> = (0..known).map(|_| Secret::generate(SecretKind::SignIn).unwrap()).collect();
        for (number, chunk) in secrets.chunks(CHUNK).enumerate() {
            let rows = chunk.iter().enumerate().map(|(place, secret)| {
                let user = number * CHUNK + place + 1;
                format!("({user}, '{}', '*', {since}, {until}, 0)", secret.digest().to_hex())
            });
            let rows = rows.collect::<Vec<_>>().join(", ");
            write!(sql, "INSERT INTO access_tokens VALUES {rows};").unwrap();
        }
        execute(&database, &sql);
        // As autovacuum would do later. SQLite has no equivalent.
        if backend == Backend::Postgres {
            execute(&database, "VACUUM ANALYZE");
        }

        let tokens: Vec<String> = secrets.into_iter().map(Secret::reveal).collect();
        let home = TempDir::with_prefix("latchkey-bench-").unwrap();
        let population = Self { database, tokens, home };
        std::fs::write(population.file(), population.tokens.join("\n") + "\n").unwrap();
        population
    }

    /// A file with the tokens, one per line.
    pub fn file(&self) -> PathBuf {
        self.home.path().join("tokens")
    }

    /// Inserts a session of each of the first users. Returns a file with their secrets, one per line.
    pub fn sessions(&self) -> PathBuf {
        let now = match self.database.backend {
            Backend::Sqlite => "CURRENT_TIMESTAMP",
            Backend::Postgres => "timezone('utc', now())",
        };
        let mut secrets = String::new();
        let rows = (1..=self.tokens.len()).map(|user| {
            let secret = Secret::generate(SecretKind::Session).unwrap();
            let row = format!("({user}, '{}', {now}, {now}, '2099-01-01 00:00:00')", secret.digest().to_hex());
            secrets += &format!("{}\n", secret.reveal());
            row
        });
        let rows: Vec<String> = rows.collect();
        for rows in rows.chunks(CHUNK) {
            let columns = "(user_id, digest, created_at, last_used_at, expires_at)";
            execute(&self.database, &format!("INSERT INTO sessions {columns} VALUES {}", rows.join(", ")));
        }
        let file = self.home.path().join("sessions");
        std::fs::write(&file, secrets).unwrap();
        file
    }

    /// The e-mail address of a user. Numbers start at 1.
    pub fn email(number: u64) -> String {
        format!("user{number}@example.org")
    }
}

/// Runs SQL on a separate connection, without a time-out.
#[expect(clippy::disallowed_methods, reason = "a benchmark connects to the database directly")]
pub fn execute(database: &Database, sql: &str) {
    match database.backend {
        Backend::Sqlite => {
            let path = database.url.trim_start_matches("sqlite://");
            SqliteConnection::establish(path).unwrap().batch_execute(sql).unwrap();
        }
        Backend::Postgres => PgConnection::establish(&database.url).unwrap().batch_execute(sql).unwrap(),
    }
}
