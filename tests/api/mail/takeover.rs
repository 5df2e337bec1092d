//! An attacker who knows a password must not keep the account once its owner has acted.

use latchkey::domain::audit::RequestContext;
use latchkey::domain::password::Password;
use serde_json::json;

use super::{
    CHANGED, COMPLETE, CONFIRM, NEW_PASSWORD, advance, all_sent, change_email, confirm, confirm_reset, created_admin,
    mailing, post, reset_secret, settle, verified_mode, verified_user, verify,
};
use crate::support::app::{PASSWORD, registration};
use crate::support::smtp::{Behaviour, SmtpServer};
use crate::support::{Answer, App, Credential};

const ADA: &str = "ada@example.org";
const EVE: &str = "eve@evil.example";
const TEMPORARY: Behaviour = Behaviour::Reply("451 4.7.1 greylisted");

async fn undo(app: &App, secret: &str) -> Answer {
    post(app, "/email-change/undo", &json!({ "secret": secret })).await
}

/// Changes the address of an account whose password is that of the registration, and confirms it.
async fn move_account(app: &App, smtp: &SmtpServer, from: &str, to: &str) {
    let user = Credential::Token(app.new_token_of(from).await);
    let before = smtp.count(to, CONFIRM);
    assert_eq!(change_email(app, &user, to).await.status, 202);
    let mail = smtp.wait_for_mails(to, CONFIRM, before + 1).await;
    assert_eq!(confirm(app, "/email-change/confirm", mail.secret()).await.status, 204);
}

/// Ways to set a new password.
#[derive(Clone, Copy, Debug)]
enum NewPassword {
    Own,
    Operator,
    Link,
}

impl NewPassword {
    const ALL: [Self; 3] = [Self::Own, Self::Operator, Self::Link];

    async fn set(self, app: &App, smtp: &SmtpServer) {
        match self {
            Self::Own => {
                let ada = Credential::Token(app.new_token_of(ADA).await);
                let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
                assert_eq!(app.put("/me/password", &ada, &body).await.status, 204);
            }
            Self::Operator => {
                let (context, new) = (RequestContext::command_line(), Password::new(NEW_PASSWORD.to_owned()));
                app.service.reset_password(context, 1.into(), new, true).await.unwrap();
            }
            Self::Link => {
                let secret = reset_secret(app, smtp, ADA).await;
                assert_eq!(confirm_reset(app, &secret, NEW_PASSWORD).await.status, 204);
            }
        }
    }
}

/// The user after a sign-in with the new password.
async fn me(app: &App) -> serde_json::Value {
    let token = app.sign_in(ADA, NEW_PASSWORD).await.text_of("access_token");
    app.get("/me", &Credential::Token(token)).await.body
}

#[tokio::test]
async fn a_new_password_ends_a_change_of_the_address_that_is_pending() {
    for way in NewPassword::ALL {
        for (app, smtp) in mailing(|_| ()).await {
            verified_user(&app, ADA).await;
            let eve = Credential::Token(app.new_token_of(ADA).await);
            change_email(&app, &eve, EVE).await;
            let mail = smtp.wait_for_mail(EVE, CONFIRM).await;
            way.set(&app, &smtp).await;
            assert_eq!(me(&app).await["pending_email"], json!(null), "{way:?}");
            let body = json!({ "secret": mail.secret(), "password": NEW_PASSWORD });
            post(&app, "/email-change/confirm", &body).await.assert_error(410, "link_invalid");
            assert_eq!(me(&app).await["email"], ADA, "{way:?}");
            let changes = "SELECT count(*) FROM audit_entries WHERE changed = 'password pending_email'";
            assert_eq!(app.database.number(changes).await, 1, "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_mail_that_waits_makes_no_link_after_a_new_password() {
    for way in NewPassword::ALL {
        for (app, smtp) in mailing(|_| ()).await {
            verified_user(&app, ADA).await;
            all_sent(&app).await;
            let eve = Credential::Token(app.new_token_of(ADA).await);
            smtp.behave(TEMPORARY);
            change_email(&app, &eve, EVE).await;
            settle(&app).await;
            smtp.behave(Behaviour::Accept);
            way.set(&app, &smtp).await;
            advance(&app, 120).await;
            all_sent(&app).await;
            assert!(smtp.mails().iter().all(|mail| mail.to != EVE), "{way:?}: {:#?}", smtp.mails());
            let links = "SELECT count(*) FROM mail_secrets WHERE purpose = 'email_change'";
            assert_eq!(app.database.number(links).await, 0, "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_mail_to_a_later_address_makes_no_link_after_the_owner_has_undone_the_change() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        all_sent(&app).await;
        let eve = Credential::Token(app.new_token_of(EVE).await);
        change_email(&app, &eve, "mallory@evil.example").await;
        let mail = smtp.wait_for_mail("mallory@evil.example", CONFIRM).await;
        all_sent(&app).await;
        smtp.behave(TEMPORARY);
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        settle(&app).await;
        assert_eq!(undo(&app, link.secret()).await.status, 200);
        settle(&app).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 120).await;
        all_sent(&app).await;
        assert!(!smtp.mails().iter().any(|mail| mail.to == EVE && mail.subject == CHANGED), "{:#?}", smtp.mails());
        let links = "SELECT count(*) FROM mail_secrets WHERE purpose = 'email_undo'";
        assert_eq!(app.database.number(links).await, 0);
    }
}

#[tokio::test]
async fn the_old_address_can_undo_the_change_for_seven_days() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        let eve = Credential::Token(app.new_token_of(ADA).await);
        let (key, _) = app.key_of(&eve, &["pages:read"]).await;
        move_account(&app, &smtp, ADA, EVE).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        // Eve sets a new password by mail, which must not end the link of Ada.
        let reset = reset_secret(&app, &smtp, EVE).await;
        assert_eq!(confirm_reset(&app, &reset, NEW_PASSWORD).await.status, 204);
        app.clock.advance(6 * 86_400);
        let undone = undo(&app, link.secret()).await;
        assert_eq!((undone.status, &undone.body["expires_in"]), (200, &json!(1_800)), "{undone:?}");
        assert_ne!(app.get("/me", &key).await.status, 200);
        for (email, password) in [(EVE, NEW_PASSWORD), (ADA, NEW_PASSWORD), (ADA, PASSWORD)] {
            assert_eq!(app.sign_in(email, password).await.status, app.expected.bad_password, "{email} {password}");
        }
        undo(&app, link.secret()).await.assert_error(410, "link_invalid");
        let mail = smtp.wait_for_mail(ADA, "Your e-mail address was restored").await;
        assert!(mail.text.contains("The old password is not valid any more"), "{}", mail.text);
        assert_eq!(confirm_reset(&app, &undone.text_of("secret"), "a third password").await.status, 204);
        assert_eq!(app.sign_in(ADA, "a third password").await.status, 200);
        confirm_reset(&app, mail.secret(), "a fourth password").await.assert_error(410, "link_invalid");
    }
}

#[tokio::test]
async fn the_undo_gives_a_secret_for_a_new_password_also_if_the_address_gets_no_mail() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        all_sent(&app).await;
        smtp.behave(Behaviour::Reply("550 5.1.1 no such user"));
        let undone = undo(&app, link.secret()).await;
        assert_eq!(confirm_reset(&app, &undone.text_of("secret"), NEW_PASSWORD).await.status, 204);
        assert_eq!(app.sign_in(ADA, NEW_PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn further_changes_do_not_end_the_link_of_the_first_address_and_are_limited() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        let mut address = ADA.to_owned();
        for number in 1..=5 {
            let next = format!("eve{number}@evil.example");
            move_account(&app, &smtp, &address, &next).await;
            address = next;
        }
        let eve = Credential::Token(app.new_token_of(&address).await);
        change_email(&app, &eve, "eve6@evil.example").await.assert_error(409, "too_many_email_changes");
        // The undo by a later address ends only what is later.
        let link = smtp.wait_for_mail("eve1@evil.example", CHANGED).await;
        assert_eq!(undo(&app, link.secret()).await.status, 200);
        let later = smtp.wait_for_mail("eve3@evil.example", CHANGED).await;
        undo(&app, later.secret()).await.assert_error(410, "link_invalid");
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        let undone = undo(&app, link.secret()).await;
        assert_eq!(undone.status, 200, "{undone:?}");
        assert_eq!(confirm_reset(&app, &undone.text_of("secret"), NEW_PASSWORD).await.status, 204);
        assert_eq!(me(&app).await["email"], ADA);
        let left = "SELECT (SELECT count(*) FROM mail_secrets) + (SELECT count(*) FROM replaced_emails)";
        assert_eq!(app.database.number(left).await, 0);
    }
}

#[tokio::test]
async fn an_address_that_can_be_restored_counts_as_taken() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = app.admin("root@example.org").await;
        verified_user(&app, ADA).await;
        verified_user(&app, "tim@example.org").await;
        // The mail with the link is not even sent yet.
        let eve = Credential::Token(app.new_token_of(ADA).await);
        change_email(&app, &eve, EVE).await;
        let mail = smtp.wait_for_mail(EVE, CONFIRM).await;
        all_sent(&app).await;
        smtp.behave(TEMPORARY);
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        let spelling = "ADA@Example.org";
        app.register(spelling).await.assert_error(409, "email_taken");
        app.post("/users", &root, &registration(spelling)).await.assert_error(409, "email_taken");
        let invitation = json!({ "email": spelling });
        app.post("/users/invitations", &root, &invitation).await.assert_error(409, "email_taken");
        settle(&app).await;
        smtp.behave(Behaviour::Accept);
        advance(&app, 120).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        all_sent(&app).await;
        app.register(ADA).await.assert_error(409, "email_taken");
        let tim = Credential::Token(app.new_token_of("tim@example.org").await);
        assert_eq!(change_email(&app, &tim, ADA).await.status, 202, "as for every address");
        all_sent(&app).await;
        assert!(!smtp.mails().iter().any(|mail| mail.to == ADA && mail.subject == CONFIRM));
        assert_eq!(undo(&app, link.secret()).await.status, 200);
    }
}

#[tokio::test]
async fn an_address_is_free_again_when_its_change_can_no_longer_be_undone() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        all_sent(&app).await;
        app.register(ADA).await.assert_error(409, "email_taken");
        app.clock.advance(8 * 86_400 + 1);
        assert_eq!(app.register(ADA).await.status, 201);
        // The owner of an account frees what it can restore.
        let ada = Credential::Token(app.new_token_of(ADA).await);
        change_email(&app, &ada, "ada@new.example").await;
        let mail = smtp.wait_for_mail("ada@new.example", CONFIRM).await;
        assert_eq!(confirm(&app, "/email-change/confirm", mail.secret()).await.status, 204);
        let ada = Credential::Token(app.new_token_of("ada@new.example").await);
        assert_eq!(app.delete("/me", &ada).await.status, 204);
        assert_eq!(app.register(ADA).await.status, 201);
    }
}

#[tokio::test]
async fn a_verified_registration_of_an_address_that_can_be_restored_sends_no_link() {
    for (app, smtp) in mailing(verified_mode).await {
        let root = created_admin(&app, "root@example.org").await;
        assert_eq!(app.post("/users", &root, &registration(ADA)).await.status, 201);
        verify(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        assert_eq!(app.register(ADA).await.status, 202);
        all_sent(&app).await;
        assert!(smtp.mails().iter().all(|mail| mail.subject != COMPLETE), "{:#?}", smtp.mails());
        assert_eq!(undo(&app, link.secret()).await.status, 200);
    }
}

#[tokio::test]
async fn a_disabled_account_cannot_be_restored_until_it_is_enabled() {
    for (app, smtp) in mailing(|_| ()).await {
        let root = app.admin("root@example.org").await;
        verified_user(&app, ADA).await;
        move_account(&app, &smtp, ADA, EVE).await;
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        app.patch("/users/2", &root, &json!({ "disabled": true })).await;
        undo(&app, link.secret()).await.assert_error(410, "link_invalid");
        app.patch("/users/2", &root, &json!({ "disabled": false })).await;
        assert_eq!(undo(&app, link.secret()).await.status, 200);
    }
}

#[tokio::test]
async fn the_link_that_undoes_a_change_is_sent_for_each_change() {
    for (app, smtp) in mailing(|_| ()).await {
        verified_user(&app, ADA).await;
        for (from, to, sent) in [(ADA, EVE, 1), (EVE, ADA, 1), (ADA, EVE, 2)] {
            app.clock.advance(61);
            move_account(&app, &smtp, from, to).await;
            all_sent(&app).await;
            assert_eq!(smtp.count(ADA, CHANGED), sent, "other notices are sent once an hour");
        }
        let link = smtp.wait_for_mail(ADA, CHANGED).await;
        assert_eq!(undo(&app, link.secret()).await.status, 200);
    }
}
