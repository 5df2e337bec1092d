//! Mails that wait: for an account that is locked, and for an SMTP server that can be used again.

use diesel::prelude::*;
use latchkey::config::Settings;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{RESET, VERIFY, advance, all_sent, created_admin, mailing, request_reset, settle};
use crate::support::smtp::{Behaviour, SmtpServer};
use crate::support::{App, Backend, Profile};

/// Another connection that holds the locks of users.
struct Lock {
    end: std::sync::mpsc::Sender<()>,
    holder: JoinHandle<()>,
}

impl Lock {
    #[expect(clippy::disallowed_methods, reason = "the connections of the server have time limits")]
    /// Changes the users with ids up to `last` in a transaction that lasts until [`Self::release`].
    async fn take(app: &App, last: i64, change: &'static str) -> Self {
        let (taken_sender, taken) = oneshot::channel();
        let (end, until) = std::sync::mpsc::channel::<()>();
        let url = app.database.url.clone();
        let holder = tokio::task::spawn_blocking(move || {
            let mut conn = PgConnection::establish(&url).unwrap();
            let changed: QueryResult<()> = conn.transaction(|conn| {
                diesel::sql_query(format!("UPDATE users SET {change} WHERE id <= {last}")).execute(conn)?;
                taken_sender.send(()).unwrap();
                until.recv().unwrap();
                Ok(())
            });
            changed.unwrap();
        });
        taken.await.unwrap();
        Self { end, holder }
    }

    async fn release(self) {
        self.end.send(()).unwrap();
        self.holder.await.unwrap();
    }
}

/// A server on PostgreSQL with two users. SQLite has one writer at a time.
async fn two_users(smtp: &SmtpServer) -> Option<App> {
    let configure = |settings: &mut Settings| smtp.configure(settings);
    let app = App::start_with(Backend::Postgres, Profile::Fastapi, configure).await?;
    for email in ["ada@example.org", "eve@example.org"] {
        app.register(email).await;
    }
    all_sent(&app).await;
    Some(app)
}

#[tokio::test]
async fn an_account_that_somebody_has_locked_delays_only_the_decision_about_its_own_mails() {
    let smtp = SmtpServer::start().await;
    let Some(app) = two_users(&smtp).await else { return };
    // The account is deleted while the server decides about its mail.
    let lock = Lock::take(&app, 1, "deleted_at = created_at").await;
    assert_eq!(request_reset(&app, "ada@example.org").await.status, 202);
    assert_eq!(request_reset(&app, "eve@example.org").await.status, 202);
    smtp.wait_for_mail("eve@example.org", RESET).await;
    lock.release().await;
    all_sent(&app).await;
    assert_eq!(smtp.count("ada@example.org", RESET), 0);
}

#[tokio::test]
async fn many_locked_accounts_do_not_keep_later_mails_from_being_sent() {
    let smtp = SmtpServer::start().await;
    let Some(app) = two_users(&smtp).await else { return };
    let emails: Vec<String> = (3..=6).map(|id| format!("user{id}@example.org")).collect();
    for email in &emails {
        app.register(email).await;
    }
    all_sent(&app).await;
    let lock = Lock::take(&app, 5, "name = 'Ada'").await;
    for email in emails.iter().map(String::as_str).chain(["ada@example.org", "eve@example.org"]).rev() {
        assert_eq!(request_reset(&app, email).await.status, 202);
    }
    app.service.mail_delivery().wake();
    smtp.wait_for_mail("user6@example.org", RESET).await;
    assert_eq!(smtp.count("ada@example.org", RESET), 0);
    lock.release().await;
}

#[tokio::test]
async fn an_account_that_somebody_has_locked_delays_only_the_sending_of_its_own_mails() {
    let smtp = SmtpServer::start().await;
    let Some(app) = two_users(&smtp).await else { return };
    smtp.behave(Behaviour::ReplyToData("451 4.3.0 later"));
    for email in ["ada@example.org", "eve@example.org"] {
        assert_eq!(request_reset(&app, email).await.status, 202);
        settle(&app).await;
    }
    let lock = Lock::take(&app, 1, "name = 'Ada'").await;
    smtp.behave(Behaviour::Accept);
    // Both are due, that of the locked account first.
    advance(&app, 31).await;
    smtp.wait_for_mail("eve@example.org", RESET).await;
    assert_eq!(smtp.count("ada@example.org", RESET), 0);
    lock.release().await;
    advance(&app, 31).await;
    smtp.wait_for_mail("ada@example.org", RESET).await;
}

#[tokio::test]
async fn a_mail_that_was_delayed_states_how_long_its_link_is_still_valid() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = created_admin(&app, "root@example.org").await;
        smtp.behave(Behaviour::ReplyToData("451 4.3.0 later"));
        let invited = app.post("/users/invitations", &root, &json!({ "email": "ada@example.org" })).await;
        assert_eq!(invited.status, 201, "{invited:?}");
        settle(&app).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 10 * 3_600).await;
        all_sent(&app).await;
        let mail = smtp.mails().into_iter().find(|mail| mail.to == "ada@example.org").unwrap();
        assert!(mail.text.contains("valid for 62 hours"), "{}", mail.text);
        let later = "SELECT count(*) FROM mail_secrets link JOIN invitations invitation \
                     ON link.invitation_id = invitation.id WHERE link.expires_at > invitation.expires_at";
        assert_eq!(app.database.number(later).await, 0);
    }
}

#[tokio::test]
async fn links_of_mails_that_were_not_delivered_do_not_displace_those_that_were() {
    for (app, smtp) in mailing(|_| ()).await {
        app.register("ada@example.org").await;
        let delivered = smtp.wait_for_mail("ada@example.org", VERIFY).await;
        all_sent(&app).await;
        smtp.behave(Behaviour::ReplyToData("451 4.3.0 later"));
        app.clock.advance(61);
        super::post(&app, "/email-verification", &json!({ "email": "ada@example.org" })).await;
        settle(&app).await;
        for attempts in 2..24 {
            advance(&app, 3_601).await;
            super::wait_until_none(&app, &format!("done_at IS NULL AND attempts < {attempts}")).await;
            app.service.mail_delivery().finished().await;
        }
        assert_eq!(app.database.number("SELECT count(*) FROM mail_secrets").await, 1);
        let verified = super::confirm(&app, "/email-verification/confirm", delivered.secret()).await;
        assert_eq!(verified.status, 204, "{verified:?}");
    }
}
