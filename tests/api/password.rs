//! Which passwords are taken.

use serde_json::{Value, json};

use crate::support::app::{PASSWORD, registration};
use crate::support::{Answer, Credential, specify};

fn assert_refused(answer: &Answer, field: &str, code: &str) {
    answer.assert_error(422, "invalid");
    let errors: Vec<(&Value, &Value)> =
        answer.body["errors"].as_array().unwrap().iter().map(|error| (&error["field"], &error["code"])).collect();
    assert_eq!(errors, [(&json!(field), &json!(code))], "{answer:?}");
}

specify! {
    async fn common_ones_and_ones_that_everybody_knows_are_refused_with_the_reason(app: App) {
        let ada = app.user("ada.lovelace@example.org").await;
        for (password, code) in [
            ("password", "common"),
            ("PassWord", "common"),
            ("12345678", "common"),
            ("iloveyou1", "common"),
            ("latchkey", "common"),
            ("ada.lovelace@example.org", "own_name"),
            ("Ada.Lovelace", "own_name"),
            ("Lovelace", "own_name"),
        ] {
            let mut body = registration("Ada.Lovelace@example.org");
            body["password"] = json!(password);
            assert_refused(&app.post("/register", &Credential::None, &body).await, "password", code);
            let change = json!({ "current_password": PASSWORD, "new_password": password });
            assert_refused(&app.put("/me/password", &ada, &change).await, "new_password", code);
        }
        assert_eq!(app.get("/me", &ada).await.status, 200, "nothing has changed");
    }
}

#[test]
fn the_list_holds_more_than_ten_thousand_that_are_long_enough() {
    use latchkey::domain::password::Password;

    let list = include_str!("../../assets/common-passwords.txt");
    let entries: Vec<&str> = list.lines().collect();
    assert!(entries.len() >= 10_000);
    for entry in entries {
        assert!(entry.chars().count() >= 8, "{entry}");
        assert!(Password::new(entry.to_owned()).is_common(), "{entry} is not found: is the list sorted?");
        assert!(!Password::new(format!("{entry}, and then some")).is_common());
    }
}
