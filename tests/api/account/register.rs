//! Registration (`POST /register`).

use serde_json::json;

use crate::support::app::{PASSWORD, registration};
use crate::support::{Credential, specify};

specify! {
    async fn a_new_user_is_created_and_shown_without_password(app: App) {
        let answer = app.register("Ada@Example.org").await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.members(), ["created_at", "disabled", "email", "email_verified", "id", "language", "name", "pending_email", "role", "role_is_defined", "sign_in_notices", "sign_in_stopped", "surname", "updated_at", "website"]);
        assert_eq!(answer.body["id"], 1);
        assert_eq!(answer.body["name"], "Adaline");
        assert_eq!(answer.body["surname"], "Lovelace");
        assert_eq!(answer.body["email"], "Ada@Example.org");
        assert_eq!(answer.body["website"], "https://example.org");
        assert_eq!(answer.header("location"), "/me");
        assert!(!answer.text.contains(PASSWORD));

        let stored = app.database.rows("SELECT hashed_password AS row FROM users").await;
        assert!(stored[0].starts_with("$bcrypt-sha256$v=2,t=2b,r=4$"), "{stored:?}");
    }

    async fn surname_may_be_empty_and_website_absent(app: App) {
        let answer = app
            .post("/register", &Credential::None, &json!({
                "name": "Adaline", "surname": "", "email": "ada@example.org", "password": PASSWORD,
            }))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.body["website"], "");
    }

    async fn a_known_email_is_a_conflict_in_every_equivalent_spelling(app: App) {
        for (known, equivalents) in [
            ("ada@example.org", vec!["ada@example.org", "ADA@EXAMPLE.ORG", "Ada@Example.Org"]),
            ("caf\u{e9}@example.org", vec!["cafe\u{301}@example.org", "CAF\u{c9}@example.org"]),
            ("ada@b\u{fc}cher.example", vec!["ada@xn--bcher-kva.example", "ada@B\u{dc}CHER.example"]),
            ("kelvin@example.org", vec!["\u{212a}elvin@example.org"]),
        ] {
            assert_eq!(app.register(known).await.status, 201, "{known}");
            for equivalent in equivalents {
                let answer = app.register(equivalent).await;
                answer.assert_error(409, "email_taken");
                assert_eq!(app.sign_in(equivalent, PASSWORD).await.status, 200, "{equivalent} signs in");
            }
        }
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 4);
    }

    async fn all_invalid_fields_are_reported_at_once(app: App) {
        let answer = app
            .post("/register", &Credential::None, &json!({
                "name": "Ada", "surname": "x".repeat(256), "email": "nobody", "website": "x".repeat(256),
                "password": "short",
            }))
            .await;
        answer.assert_error(422, "invalid");
        assert_eq!(answer.bad_fields(), ["email", "name", "password", "surname", "website"]);

        let answer = app.post("/register", &Credential::None, &json!({ "name": 1, "admin": true })).await;
        answer.assert_error(422, "invalid");
        assert_eq!(answer.bad_fields(), ["admin", "email", "name", "password", "surname"]);
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 0);
    }

    async fn each_bound_is_exact(app: App) {
        for (number, (field, value, status)) in [
            ("name", "x".repeat(4), 422),
            ("name", "x".repeat(5), 201),
            ("name", "\u{1f600}".repeat(5), 201),
            ("name", "x".repeat(255), 201),
            ("name", "x".repeat(256), 422),
            ("name", "control\u{7}".to_owned(), 422),
            ("surname", "x".repeat(255), 201),
            ("surname", "line\nbreak".to_owned(), 422),
            ("website", "any text, \u{1f600} even".to_owned(), 201),
            ("website", "x".repeat(255), 201),
            ("password", "x".repeat(7), 422),
            ("password", "xq7-xq7-".to_owned(), 201),
            ("password", "x".repeat(128), 201),
            ("password", "\u{1f600}".repeat(128), 201),
            ("password", "x".repeat(129), 422),
        ]
        .into_iter()
        .enumerate()
        {
            let email = format!("user{number}@example.org");
            let mut body = registration(&email);
            body[field] = value.into();
            let answer = app.post("/register", &Credential::None, &body).await;
            assert_eq!(answer.status, status, "{body} → {answer:?}");
            if status == 422 {
                assert_eq!(answer.bad_fields(), [field]);
            } else {
                let password = body["password"].as_str().unwrap();
                assert_eq!(app.sign_in(&email, password).await.status, 200, "{body} signs in");
            }
        }
    }

    async fn every_character_of_a_password_counts(app: App) {
        for (number, (password, wrong)) in [
            ("x".repeat(128), "x".repeat(127)),
            ("\u{1f600}".repeat(64), "\u{1f600}".repeat(63)),
            (format!("{}a", "y".repeat(72)), format!("{}b", "y".repeat(72))),
            (" with blanks ".to_owned(), "with blanks".to_owned()),
            ("MixedCase".to_owned(), "mixedcase".to_owned()),
            ("caf\u{e9} caf\u{e9}".to_owned(), "cafe\u{301} cafe\u{301}".to_owned()),
            ("a+b%20\u{e9}&=;c".to_owned(), "a b%20\u{e9}&=;c".to_owned()),
        ]
        .into_iter()
        .enumerate()
        {
            let email = format!("user{number}@example.org");
            let mut body = registration(&email);
            body["password"] = password.clone().into();
            assert_eq!(app.post("/register", &Credential::None, &body).await.status, 201);
            let signed_in = app.sign_in(&email, &password).await;
            assert_eq!(signed_in.status, 200, "{password:?}");
            app.sign_in(&email, &wrong).await.assert_error(app.expected.bad_password, "invalid_grant");

            let user = Credential::Token(signed_in.text_of("access_token"));
            let change = |current: &str, new: &str| json!({ "current_password": current, "new_password": new });
            app.put("/me/password", &user, &change(&wrong, "another password")).await.assert_error(403, "wrong_password");
            let changed = app.put("/me/password", &user, &change(&password, &wrong)).await;
            assert_eq!(changed.status, 204, "{password:?} to {wrong:?}: {changed:?}");
            app.sign_in(&email, &password).await.assert_error(app.expected.bad_password, "invalid_grant");
            let signed_in = app.sign_in(&email, &wrong).await;
            assert_eq!(signed_in.status, 200, "{wrong:?}");
            let user = Credential::Token(signed_in.text_of("access_token"));
            let changed = app.put("/me/password", &user, &change(&wrong, &password)).await;
            assert_eq!(changed.status, 204, "{wrong:?} to {password:?}: {changed:?}");
            assert_eq!(app.sign_in(&email, &password).await.status, 200, "{password:?} as a new password");
        }
    }
}
