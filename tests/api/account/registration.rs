//! The settings of registration, and the users that admins create (`POST /users`).

use latchkey::config::{RegistrationMode, Settings};
use latchkey::domain::audit::RequestContext;
use latchkey::domain::password::Password;
use latchkey::domain::role::BuiltInRole;
use latchkey::error::AppError;
use latchkey::metrics::TextFormat;
use latchkey::server::open_service;
use latchkey::service::account::creation::Person;
use latchkey::service::account::registration::Registration;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{PASSWORD, registration};
use crate::support::program::{failure, latchkey, out, run, with_input};
use crate::support::{App, Credential, specify};

/// Creates a user as the command line does; returns their access token as a `Token` header.
async fn created_by_command(app: &App, email: &str, role: BuiltInRole) -> Credential {
    app.create_user(email, role.name()).await;
    Credential::Token(app.new_token_of(email).await)
}

fn with_role(email: &str, role: &str) -> Value {
    let mut user = registration(email);
    user["role"] = json!(role);
    user
}

fn with_name(email: &str, name: &str) -> Value {
    let mut user = registration(email);
    user["name"] = json!(name);
    user
}

fn domains(settings: &mut Settings, domains: &[&str]) {
    settings.registration.email_domains = serde_json::from_value(json!(domains)).unwrap();
}

#[tokio::test]
async fn a_closed_registration_gives_every_request_the_same_error_and_hashes_no_password() {
    for app in App::start_on_all(|settings| settings.registration.mode = RegistrationMode::Closed).await {
        let hashes = async || {
            let metrics = app.service.metrics_text(TextFormat::Prometheus).await.unwrap();
            let count = metrics.lines().find_map(|line| line.strip_prefix("latchkey_hash_wait_seconds_count "));
            count.unwrap().parse::<u64>().unwrap()
        };
        let root = created_by_command(&app, "root@example.org", BuiltInRole::Admin).await;
        let before = app.trail(&root, "").await.len();
        let hashed = hashes().await;
        let mut details = Vec::new();
        for body in [
            registration("root@example.org"),
            registration("new@example.org"),
            with_name("new@example.org", "x"),
            json!({}),
            json!("no object"),
        ] {
            for credential in [&Credential::None, &root] {
                let answer = app.post("/register", credential, &body).await;
                answer.assert_error(403, "registration_closed");
                details.push(answer.text_of("detail"));
            }
        }
        for (content_type, body) in [("application/json", "{"), ("text/plain", "x")] {
            let answer = app.request("POST", "/register").body(content_type, body).send().await;
            answer.assert_error(403, "registration_closed");
            details.push(answer.text_of("detail"));
        }
        assert_eq!(hashes().await, hashed);
        details.dedup();
        assert_eq!(details, ["Registration is closed (registration.mode). Ask an admin to create an account."]);
        assert_eq!(app.trail(&root, "").await.len(), before);
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 1);
    }
}

#[tokio::test]
async fn admins_create_users_whatever_the_settings_of_registration() {
    let apps = App::start_on_all(|settings| {
        settings.registration.mode = RegistrationMode::Closed;
        domains(settings, &["example.org"]);
        settings.limits.enabled = true;
        settings.limits.registrations.burst = 1;
    });
    for app in apps.await {
        let root = created_by_command(&app, "root@example.com", BuiltInRole::Admin).await;
        let created = app.post("/users", &root, &registration("Ada@example.com")).await;
        assert_eq!((created.status, created.header("location")), (201, "/users/2"), "{created:?}");
        assert_eq!((&created.body["email"], &created.body["role"]), (&json!("Ada@example.com"), &json!("member")));
        assert!(!created.text.contains(PASSWORD));
        assert_eq!(app.get("/users/2", &root).await.body, created.body);
        for (id, role) in [(3, "member"), (4, "auditor"), (5, "admin")] {
            let email = format!("{role}@example.com");
            let created = app.post("/users", &root, &with_role(&email, role)).await;
            assert_eq!((created.status, &created.body["role"]), (201, &json!(role)), "{created:?}");
            let entry = &app.trail(&root, &format!("target=user:{id}")).await[0];
            let recorded =
                ["actor", "action", "role", "outcome", "detail"].map(|member| entry[member].as_str().unwrap());
            assert_eq!(recorded, ["user:1", "user.register", "admin", "success", role], "{entry}");
            assert_eq!(app.sign_in(&email, PASSWORD).await.status, 200);
        }
    }
}

specify! {
    async fn a_role_cannot_exceed_the_credential_that_grants_it(app: App) {
        let root = app.admin("root@example.org").await;
        let (key, _) = app.key_of(&root, &["users:write"]).await;
        for (role, lacking) in [("auditor", "users:read audit:read"), ("admin", "keys:issue")] {
            let answer = app.post("/users", &key, &with_role("eve@example.org", role)).await;
            answer.assert_error(422, "invalid");
            let error = &answer.body["errors"][0];
            assert_eq!((&error["field"], &error["code"]), (&json!("role"), &json!("scope_not_held")), "{answer:?}");
            assert!(error["message"].as_str().unwrap().contains(lacking), "{answer:?}");
            let entry = &app.trail(&root, "outcome=failure").await[0];
            assert_eq!((&entry["action"], &entry["detail"]), (&json!("user.register"), &json!("scope_not_held")));
        }
        let (auditors, _) = app.key_of(&root, &["users:write", "users:read", "audit:read"]).await;
        for (credential, email, role) in [(&auditors, "one@example.org", "auditor"), (&key, "two@example.org", "member")] {
            let created = app.post("/users", credential, &with_role(email, role)).await;
            assert_eq!((created.status, &created.body["role"]), (201, &json!(role)), "{created:?}");
        }
        let unknown = app.post("/users", &root, &with_role("eve@example.org", "owner")).await;
        assert_eq!((unknown.status, unknown.bad_fields()), (422, vec!["role"]));
        let ada = app.user("ada@example.org").await;
        app.post("/users", &ada, &registration("eve@example.org")).await.assert_error(403, "insufficient_scope");
        assert_eq!(app.database.number("SELECT count(*) FROM users WHERE email = 'eve@example.org'").await, 0);
    }

    async fn a_created_user_has_valid_data_and_an_email_of_their_own(app: App) {
        let root = app.admin("root@example.org").await;
        let long = "x".repeat(256);
        let wrong = json!({ "name": "Ada", "surname": long, "email": "nobody", "website": long, "password": "short" });
        let answer = app.post("/users", &root, &wrong).await;
        answer.assert_error(422, "invalid");
        assert_eq!(answer.bad_fields(), ["email", "name", "password", "surname", "website"]);
        app.post("/users", &root, &registration("ROOT@example.org")).await.assert_error(409, "email_taken");
        // A role that cannot be granted does not reveal whether the address is known.
        let (key, _) = app.key_of(&root, &["users:write"]).await;
        for email in ["root@example.org", "new@example.org"] {
            app.post("/users", &key, &with_role(email, "admin")).await.assert_error(422, "invalid");
        }
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 1);
    }
}

#[tokio::test]
async fn the_minimum_length_of_a_name_applies_wherever_a_name_is_set() {
    for app in App::start_on_all(|settings| settings.registration.name_min_length = 2).await {
        let root = app.admin("root@example.org").await;
        let document = app.get("/openapi.json", &Credential::None).await.body;
        for schema in ["RegisterRequest", "UserCreateRequest", "AccountPatch"] {
            let name = &document["components"]["schemas"][schema]["properties"]["name"];
            assert_eq!((&name["minLength"], &name["maxLength"]), (&json!(2), &json!(255)), "{schema}");
        }
        for (name, status) in [("A", 422), ("\u{1f600}", 422), ("Al", 201), ("\u{1f600}\u{1f600}", 201)] {
            let email = |by: &str| format!("{by}-{}@example.org", name.len());
            let changed = app.patch("/me", &root, &json!({ "name": name })).await;
            let registered = app.post("/register", &Credential::None, &with_name(&email("self"), name)).await;
            let created = app.post("/users", &root, &with_name(&email("admin"), name)).await;
            for (answer, status) in
                [(changed, status.min(if status == 201 { 200 } else { 422 })), (registered, status), (created, status)]
            {
                assert_eq!(answer.status, status, "{name}: {answer:?}");
                if status == 422 {
                    let error = json!({ "field": "name", "code": "length", "message": "Use 2 to 255 characters." });
                    assert_eq!(answer.body["errors"], json!([error]));
                }
            }
        }
    }
}

#[test]
fn the_command_line_applies_the_minimum_length_and_no_other_setting_of_registration() {
    let home = TempDir::new().unwrap();
    out(&run(&mut latchkey(home.path(), &["migrate", "up"])));
    let create = |name: &str| {
        let mut command = latchkey(home.path(), &["user", "create", "ada@example.org", "--name", name]);
        command.env("LATCHKEY__REGISTRATION__NAME_MIN_LENGTH", "3").env("LATCHKEY__REGISTRATION__MODE", "closed");
        with_input(command.env("LATCHKEY__REGISTRATION__EMAIL_DOMAINS", "example.com"), PASSWORD)
    };
    let error = failure(&create("Al"));
    assert!(error.contains("name") && error.contains("Use 3 to 255 characters."), "{error}");
    assert_eq!(out(&create("Ada")), "created member 1 ada@example.org\n");
}

#[tokio::test]
async fn users_register_with_and_change_to_addresses_of_the_listed_domains_only() {
    for app in App::start_on_all(|settings| domains(settings, &["Example.org", "b\u{fc}cher.example"])).await {
        let allowed = ["ada@example.org", "eve@EXAMPLE.ORG", "ada@xn--bcher-kva.example", "eve@B\u{dc}CHER.example"];
        for email in allowed {
            let answer = app.register(email).await;
            assert_eq!(answer.status, 201, "{email}: {answer:?}");
        }
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let error = json!([{
            "field": "email", "code": "domain",
            "message": "Use an address of one of these domains: Example.org, b\u{fc}cher.example.",
        }]);
        let change = |email: &str| json!({ "email": email, "current_password": PASSWORD });
        for email in ["ada@mail.example.org", "ada@example.com", "ada@notexample.org", "ada@example.org.example.com"] {
            for answer in [app.register(email).await, app.patch("/me", &ada, &change(email)).await] {
                answer.assert_error(422, "invalid");
                assert_eq!(answer.body["errors"], error, "{email}");
            }
        }
        let both = app.post("/register", &Credential::None, &with_name("ada@example.com", "Ada")).await;
        assert_eq!(both.bad_fields(), ["email", "name"], "{both:?}");
        assert_eq!(app.patch("/me", &ada, &change("new@b\u{fc}cher.example")).await.status, 200);

        // A user of another domain can keep the address, and write it in another way.
        let tim = created_by_command(&app, "tim@example.com", BuiltInRole::Member).await;
        let kept = app.patch("/me", &tim, &change("Tim@Example.com")).await;
        assert_eq!((kept.status, &kept.body["email"]), (200, &json!("Tim@Example.com")), "{kept:?}");
        app.patch("/me", &tim, &change("tom@example.com")).await.assert_error(422, "invalid");
        assert_eq!(app.patch("/me", &tim, &json!({ "website": "elsewhere" })).await.status, 200);
    }
}

#[tokio::test]
async fn the_use_case_itself_rejects_a_registration_that_is_closed() {
    for app in App::start_on_all(|_| ()).await {
        let mut settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
        settings.registration.mode = RegistrationMode::Closed;
        let service = open_service(&settings, app.clock.clone()).await.unwrap();
        let user = Registration {
            person: Person {
                name: String::new(),
                surname: String::new(),
                website: String::new(),
                password: Password::new(String::new()),
            },
            email: String::new(),
        };
        let error = service.register(RequestContext::anonymous(Default::default()), user, None).await.unwrap_err();
        assert!(matches!(error, AppError::Forbidden(_)), "{error}");
    }
}
