//! Requests for mails do not show whether an address has an account: neither in their response, nor in what they write.

use serde_json::json;

use super::{all_sent, change_email, created_admin, mailing, post, stable_headers, verified_mode};
use crate::support::app::registration;
use crate::support::database::Database;
use crate::support::{App, Backend};

/// What the background task writes to these rows depends on the account. It runs after the response.
const OF_THE_TASK: &str = "('UPDATE outbox', 'DELETE outbox')";

/// Makes the database note each row that is written to another table than `writes`.
async fn note_writes(database: &Database) {
    let mut sql = match database.backend {
        Backend::Sqlite => "CREATE TABLE writes (what TEXT NOT NULL);",
        Backend::Postgres => {
            "CREATE TABLE writes (what TEXT NOT NULL);
             CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO writes VALUES (TG_OP || '' '' || TG_TABLE_NAME); RETURN NULL; END';"
        }
    }
    .to_owned();
    let tables = match database.backend {
        // A virtual table, such as a full-text index, cannot have triggers.
        Backend::Sqlite => database.rows("SELECT name AS row FROM pragma_table_list WHERE type = 'table'").await,
        Backend::Postgres => database.tables().await,
    };
    // The server writes statistics now and then.
    for table in tables.into_iter().filter(|table| table != "hourly_counts" && !table.starts_with("sqlite_")) {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let trigger = format!("CREATE TRIGGER noted_{table}_{event} AFTER {event} ON {table}");
            sql += &match database.backend {
                Backend::Sqlite => format!("{trigger} BEGIN INSERT INTO writes VALUES ('{event} {table}'); END;"),
                Backend::Postgres => format!("{trigger} FOR EACH ROW EXECUTE FUNCTION note_write();"),
            };
        }
    }
    database.execute(sql).await;
}

/// The rows that were written since the last call, except those of the task.
async fn writes(app: &App) -> Vec<String> {
    let noted = format!("SELECT what AS row FROM writes WHERE what NOT IN {OF_THE_TASK} ORDER BY 1");
    let found = app.database.rows(noted).await;
    app.database.execute("DELETE FROM writes").await;
    found
}

#[tokio::test]
async fn requests_for_all_addresses_write_the_same_rows_and_get_the_same_response() {
    for (app, smtp) in mailing(verified_mode).await {
        let set = |column: &str, name: &str| {
            app.database.execute(format!("UPDATE users SET {column} = created_at WHERE email = '{name}@example.org'"))
        };
        for name in ["known", "known000", "verified", "disabled"] {
            app.create_user(&format!("{name}@example.org"), "member").await;
        }
        all_sent(&app).await;
        set("email_verified_at", "verified").await;
        set("disabled_at", "disabled").await;
        let caller = created_admin(&app, "caller@example.org").await;
        app.clock.advance(3_601);
        // A link is stored when its mail is sent.
        app.service.mail_delivery().stop();
        app.service.mail_delivery().finished().await;
        note_writes(&app.database).await;
        let before = smtp.mails().len();
        for path in ["/password-reset", "/email-verification", "/register"] {
            let mut seen = Vec::new();
            for name in ["unknown", "known", "verified", "disabled", "other"] {
                let email = format!("{name}@example.org");
                let body = if path == "/register" { registration(&email) } else { json!({ "email": email }) };
                let answer = post(&app, path, &body).await;
                let written = writes(&app).await;
                assert!(written.contains(&"INSERT outbox".to_owned()), "{written:?}");
                seen.push((name, (answer.status, stable_headers(&answer), answer.text, written)));
            }
            assert_eq!(seen[0].1.0, 202, "{path}");
            for (name, what) in &seen {
                assert_eq!(what, &seen[0].1, "{path}, {name}");
            }
        }
        // A change of the own address. The pending one is in the response, so all have the same length.
        let mut seen = Vec::new();
        for name in ["unknown0", "known000", "verified", "disabled"] {
            app.database.execute("UPDATE users SET pending_email = NULL, updated_at = created_at").await;
            let _ = writes(&app).await;
            let answer = change_email(&app, &caller, &format!("{name}@example.org")).await;
            let mut body = answer.body.clone();
            assert_eq!(body["pending_email"].take(), format!("{name}@example.org"));
            assert!(body["updated_at"].take().is_string());
            seen.push((answer.status, stable_headers(&answer), body, writes(&app).await));
        }
        assert_eq!(seen[0].0, 202);
        assert!(seen.iter().all(|what| what == &seen[0]), "{seen:#?}");
        assert_eq!(smtp.mails().len(), before);
    }
}
