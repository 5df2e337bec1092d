//! Backups, restores and copies: a database with rows in every table, and the commands on it.

mod backup;
mod copy;
mod damage;
mod restore;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey, out, run};
use crate::support::{Backend, Credential};

/// Every column that allows NULL is set in one row and NULL in another.
const OTHER_ROWS: &str = "
    INSERT INTO sign_in_failures (account, failures, last_at, first_at) VALUES
        ('aa00', 3, '2026-01-01 00:00:00.000001', '2026-01-01 00:00:00'), ('0b', 1, '2026-01-01 00:00:00.5', NULL);
    INSERT INTO known_networks (network, user_id, seen_at) VALUES ('ff', 1, '2026-01-01 00:00:00');
    INSERT INTO hourly_counts VALUES ('2026-01-01 00:00:00', 1, 2, 3, 4, 5, 6, 7, 8, 9), ('2026-01-01 01:00:00', 0, 0, 0, 0, 0, 0, 0, 0, 0);
    INSERT INTO account_cleanups (user_id, kind, entry_id, ended_at, key_after, key_through, keys, objects)
        VALUES (77, 'account', 1, '2026-01-01 00:00:00', 0, 9223372036854775807, 0, 'pages 0 0');
    INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by)
        VALUES (1, 'Größe \\ \t', 'a
b 😀 '' \"', 1, '2026-01-01 00:00:00.123456', '2026-01-01 00:00:00', 1);
    INSERT INTO registrations (email, email_key, locale, expires_at)
        VALUES ('a@b.example', 'a@b.example', 'de', '2026-01-01 00:00:00');
    INSERT INTO replaced_emails (user_id, email, email_key, expires_at)
        VALUES (1, 'E@f.example', 'e@f.example', '2036-01-01 00:00:00');
    INSERT INTO invitations (email, email_key, role, locale, invited_by, created_at, expires_at)
        VALUES ('c@d.example', 'c@d.example', 'member', 'en', 1, '2026-01-01 00:00:00', '2026-01-01 00:00:00');
    INSERT INTO outbox (kind, address_key, address_digest, address, user_id, registration_id, invitation_id, client,
        created_at, accepted_at, due_at, attempts, unanswered, done_at) VALUES ('password_changed', 'ada@example.org', 'aa',
        'Ada@example.org', 1, NULL, NULL, '::1', '2026-01-01 00:00:00', '2026-01-01 00:00:00', '2026-01-01 00:00:00', 1,
        TRUE, '2026-01-01 00:00:00');
    INSERT INTO mail_secrets (purpose, user_id, registration_id, invitation_id, address, mailed, digest, created_at,
        expires_at) VALUES ('email_undo', 1, NULL, NULL, 'ada@example.org', TRUE, 'm1', '2026-01-01 00:00:00',
        '2036-01-01 00:00:00');
    UPDATE users SET locale = 'de', email_verified_at = '2026-01-01 00:00:00', pending_email = 'x@y.example',
        sign_in_notices = FALSE WHERE id = 2;
    INSERT INTO issue_requests (owner_id, name, request_digest, key_id, created_at)
        SELECT 1, name, 'd', (SELECT min(id) FROM api_keys), '2026-01-01 00:00:00' FROM
        (SELECT 'a' AS name UNION SELECT 'B' UNION SELECT 'Z' UNION SELECT 'z' UNION SELECT '-a' UNION SELECT 'ab') t;
    UPDATE users SET disabled_at = '2026-01-01 00:00:00', issued_ended_at = '2026-01-01 00:00:00',
        acting_ended_at = '2026-01-01 00:00:00', issued_ended_through = 5 WHERE id = 2;
    INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, hint, digest, previous_digest,
        previous_expires_at, created_at, expires_at, last_used_at, last_used_ip, revoked_at, order_id, request_digest,
        metadata, claim_digest, claim_expires_at, claimed_at, secret_request, secret_request_body, secret_made_at,
        secret_unseen)
        VALUES (1, TRUE, 'every column', '', 'a b', 'h', 'd1', 'd2', '2026-01-01 00:00:00', '2026-01-01 00:00:00',
        '2036-01-01 00:00:00', '2026-01-01 00:00:00', '::1', '2026-01-01 00:00:00', 'o', 'r', '{\"a\": 1}', 'c',
        '2026-01-01 00:00:00', '2026-01-01 00:00:00', 's', 'b', '2026-01-01 00:00:00', TRUE);
";

/// A mail that waits to be sent.
const WAITING_MAIL: &str = "
    INSERT INTO outbox (kind, address_key, address_digest, user_id, created_at, accepted_at, due_at, attempts, unanswered)
        VALUES ('password_reset', 'ada@example.org', 'aa', 1, '2026-01-01 00:00:00', '2026-01-01 00:00:00',
        '2026-01-01 00:00:00', 1, FALSE);
";

/// A database with rows in every table, without a server, and credentials of it.
pub struct Filled {
    pub database: Database,
    pub home: TempDir,
    pub token: Credential,
    pub session: Credential,
    pub key: Credential,
    /// The highest user id so far, whose user is deleted.
    pub last_user: i64,
}

impl Filled {
    /// `None` if PostgreSQL is required and missing.
    pub async fn create(backend: Backend) -> Option<Self> {
        let (database, home) = (Database::create(backend)?, TempDir::new().unwrap());
        let mut serving = serve(home.path(), &database.url);
        let client = serving.client();
        client.register("ada@example.org").await;
        database.execute("UPDATE users SET role = 'admin'").await;
        let token = Credential::Token(client.new_token_of("ada@example.org").await);
        let (session, _) = client.session_of("ada@example.org").await;
        client.register("eve@example.org").await;
        let (key, _) = client.key_of(&token, &["pages:read"]).await;
        let page = client.post("/page/", &token, &json!({ "title": "a title", "body": "a body" })).await;
        assert_eq!(page.status, 201, "{page:?}");
        let last_user = client.register("gone@example.org").await.body["id"].as_i64().unwrap();
        let deleted = client.delete(&format!("/users/{last_user}"), &token).await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        // The server would remove some of the other rows.
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());
        database.execute(OTHER_ROWS).await;
        Some(Self { database, home, token, session, key, last_user })
    }

    pub fn url(&self) -> &str {
        &self.database.url
    }

    /// A command on this database.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(self.home.path(), self.url(), arguments)
    }

    /// The path of a file in the home directory.
    pub fn file(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// Makes a backup, and returns its path.
    pub fn backup(&self, name: &str) -> String {
        let file = self.file(name);
        out(&run(&mut self.command(&["backup", "create", &file])));
        file
    }

    /// Checks that password, token, session and key work on another database over HTTP, and that the next user has a new id.
    pub async fn assert_works_at(&self, url: &str) {
        let serving = serve(self.home.path(), url);
        let client = serving.client();
        for credential in [&self.token, &self.session, &self.key] {
            let answer = client.get("/protected-route", credential).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let pages = client.get("/page/", &self.key).await;
        assert_eq!(pages.body["total"], 2, "{pages:?}");
        assert_eq!(client.get("/users?q=adaline", &self.token).await.status, 200, "the search works");
        assert_eq!(client.sign_in("ada@example.org", PASSWORD).await.status, 200);
        let next = client.register("next@example.org").await;
        assert_eq!(next.body["id"], self.last_user + 1, "no id is reused: {next:?}");
    }
}

/// A server process on a database.
pub fn serve(home: &Path, url: &str) -> Serving {
    Serving::start(&mut command(home, url, &[]))
}

pub fn command(home: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = latchkey(home, arguments);
    command.env("DATABASE_URL", url).env("LATCHKEY__LIMITS__ENABLED", "false");
    command
}

/// Name, rows, digest and last id of each table, as `backup create` finds them. Without the audit trail, to which a
/// restore and a copy add an entry.
pub fn tables(home: &Path, url: &str) -> Vec<Value> {
    let directory = TempDir::new_in(home).unwrap();
    let file = directory.path().join("backup").display().to_string();
    let made = out(&run(&mut command(home, url, &["backup", "create", &file, "--json"])));
    let made: Value = serde_json::from_str(&made).unwrap();
    let tables = made["tables"].as_array().unwrap();
    tables.iter().filter(|table| table["name"] != "audit_entries").cloned().collect()
}

/// An empty database without tables.
pub fn empty(backend: Backend) -> Option<Database> {
    Database::create(backend)
}
