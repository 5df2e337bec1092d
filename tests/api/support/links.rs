//! Links, as a mail would contain them. They are stored directly, so that a test needs no mail.

use std::sync::atomic::{AtomicUsize, Ordering};

use latchkey::domain::secret::{Secret, SecretKind};

use super::client::Client;

/// Stores a link with this purpose, and on what it acts: a user who registers, or another row. Returns its secret; a text that is no secret if the test may not write to the database.
pub async fn store_link(client: &Client, purpose: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let Some(database) = client.database() else {
        return "lkm_unknown".to_owned();
    };
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (email, other) = (format!("link{number}@example.org"), format!("other{number}@example.org"));
    if !["registration", "invitation"].contains(&purpose) {
        let registered = client.register(&email).await;
        assert!([201, 202].contains(&registered.status), "{registered:?}");
    }
    let secret = Secret::generate(SecretKind::Mail).unwrap();
    let digest = secret.digest().to_hex();
    let times = "'2020-01-01 00:00:00', '2100-01-01 00:00:00'";
    let (column, from, address) = match purpose {
        "registration" => {
            let insert = "INSERT INTO registrations (email, email_key, locale, expires_at)";
            database.execute(format!("{insert} VALUES ('{other}', '{other}', 'en', '2100-01-01 00:00:00')")).await;
            ("registration_id", format!("registrations WHERE email = '{other}'"), other)
        }
        "invitation" => {
            let insert = "INSERT INTO invitations (email, email_key, role, locale, created_at, expires_at)";
            database.execute(format!("{insert} VALUES ('{other}', '{other}', 'member', 'en', {times})")).await;
            ("invitation_id", format!("invitations WHERE email = '{other}'"), other)
        }
        "email_change" => {
            database.execute(format!("UPDATE users SET pending_email = '{other}' WHERE email = '{email}'")).await;
            ("user_id", format!("users WHERE email = '{email}'"), other)
        }
        "email_undo" => {
            let insert = "INSERT INTO replaced_emails (user_id, email, email_key, expires_at)";
            let values = format!("SELECT id, '{other}', '{other}', '2100-01-01 00:00:00' FROM users");
            database.execute(format!("{insert} {values} WHERE email = '{email}'")).await;
            ("user_id", format!("users WHERE email = '{email}'"), other)
        }
        _ => ("user_id", format!("users WHERE email = '{email}'"), email),
    };
    database
        .execute(format!(
            "INSERT INTO mail_secrets (purpose, {column}, address, mailed, digest, created_at, expires_at) \
             SELECT '{purpose}', id, '{address}', TRUE, '{digest}', {times} FROM {from}"
        ))
        .await;
    secret.reveal()
}
