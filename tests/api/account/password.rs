//! The rules for new passwords.

use latchkey::config::Settings;
use latchkey::domain::audit::RequestContext;
use latchkey::domain::id::UserId;
use latchkey::domain::password::Password;
use latchkey::error::AppError;
use latchkey::server;
use latchkey::service::Service;
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, registration};
use crate::support::{Answer, App, Credential, specify};

/// The service of the command line, on the database of the app.
async fn command_line(app: &App) -> Service {
    let mut settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    settings.auth.bcrypt_cost = 4;
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Asserts a 422 with one invalid field and this code.
fn assert_rejected(answer: &Answer, field: &str, code: &str) {
    answer.assert_error(422, "invalid");
    let errors: Vec<(&Value, &Value)> =
        answer.body["errors"].as_array().unwrap().iter().map(|error| (&error["field"], &error["code"])).collect();
    assert_eq!(errors, [(&json!(field), &json!(code))], "{answer:?}");
}

specify! {
    async fn common_and_guessable_passwords_are_rejected_with_the_reason(app: App) {
        let ada = app.user("ada.lovelace@example.org").await;
        assert_eq!(app.patch("/me", &ada, &json!({ "name": "Adaline Augusta" })).await.status, 200);
        let service = command_line(&app).await;
        for (password, code) in [
            ("password", "common"),
            ("PassWord", "common"),
            ("12345678", "common"),
            ("iloveyou1", "common"),
            ("latchkey", "common"),
            ("LatchKey", "common"),
            ("ada.lovelace@example.org", "own_name"),
            ("Ada.Lovelace", "own_name"),
            ("Lovelace", "own_name"),
            ("adaline augusta", "own_name"),
            ("latch-k", "length"),
            ("latch\0key", "nul"),
        ] {
            let mut body = registration("Ada.Lovelace@example.org");
            body["name"] = json!("Adaline Augusta");
            body["password"] = json!(password);
            assert_rejected(&app.post("/register", &Credential::None, &body).await, "password", code);
            let change = json!({ "current_password": PASSWORD, "new_password": password });
            assert_rejected(&app.put("/me/password", &ada, &change).await, "new_password", code);
            let reset = service.reset_password(RequestContext::command_line(), UserId(1), Password::new(password.to_owned()), true).await;
            let Err(AppError::Invalid(errors)) = &reset else { panic!("{password}: {reset:?}") };
            let errors: Vec<_> = errors.iter().map(|error| (error.field.as_str(), error.code)).collect();
            assert_eq!(errors, [("password", code)], "{password}");
        }
        assert_eq!(app.get("/me", &ada).await.status, 200, "nothing has changed");
    }
}

#[test]
fn the_list_has_at_least_ten_thousand_passwords_of_sufficient_length() {
    let list = include_str!("../../../assets/common-passwords.txt");
    let entries: Vec<&str> = list.lines().collect();
    assert!(entries.len() >= 10_000);
    for entry in entries {
        assert!(entry.chars().count() >= 8, "{entry}");
        assert!(Password::new(entry.to_owned()).is_common(), "{entry} is not found: is the list sorted?");
        assert!(!Password::new(format!("{entry}, and more")).is_common());
    }
}
