//! The removal of expired links, and of what they act on.

use serde_json::json;

use super::{
    CHANGED, COMPLETE, CONFIRM, INVITATION, all_sent, change_email, confirm, created_admin, mailing, verified_mode,
    verify,
};
use crate::support::{App, Credential};

const DAY: u32 = 86_400;

/// The tables, with the time after which the last row is removed: its life, and for how long an expired one is kept.
const TABLES: [(&str, u32); 4] = [
    ("registrations", (1 + 1) * DAY),
    ("mail_secrets", (7 + 1) * DAY),
    ("replaced_emails", (8 + 1) * DAY),
    ("invitations", (3 + 30) * DAY),
];
/// More than the time that a test takes.
const MARGIN: u32 = 120;

async fn rows_after_purge(app: &App, table: &str) -> i64 {
    app.service.lifecycle().purge().run_once().await.unwrap();
    app.database.number(format!("SELECT count(*) FROM {table}")).await
}

#[tokio::test]
async fn expired_links_registrations_invitations_and_replaced_addresses_are_removed() {
    for (app, smtp) in mailing(verified_mode).await {
        let root = created_admin(&app, "root@example.org").await;
        assert_eq!(app.post("/users/invitations", &root, &json!({ "email": "tim@example.org" })).await.status, 201);
        assert_eq!(app.register("eve@example.org").await.status, 202);
        app.create_user("ada@example.org", "member").await;
        // Only a verified address can undo a change.
        verify(&app, "ada@example.org").await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        assert_eq!(change_email(&app, &ada, "ada@new.example").await.status, 202);
        let mail = smtp.wait_for_mail("ada@new.example", CONFIRM).await;
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        for (to, subject) in
            [("tim@example.org", INVITATION), ("eve@example.org", COMPLETE), ("ada@example.org", CHANGED)]
        {
            smtp.wait_for_mail(to, subject).await;
        }
        all_sent(&app).await;
        let mut passed = 0;
        for (table, removed_after) in TABLES {
            app.clock.advance(removed_after - MARGIN - passed);
            assert_eq!(rows_after_purge(&app, table).await, 1, "{table} before");
            app.clock.advance(MARGIN);
            assert_eq!(rows_after_purge(&app, table).await, 0, "{table} after");
            passed = removed_after;
        }
    }
}
