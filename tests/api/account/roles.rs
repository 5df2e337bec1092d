//! Roles of the settings, and external scopes that users hold through their role.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::app::PASSWORD;
use crate::support::{Answer, App, Backend, Credential, Profile};

const ROLES: &str = r#"
    [member]
    external = ["wiki:read"]

    [admin]
    external = ["wiki:read", "wiki:write"]

    [editor]
    description = "Writes for the wiki"
    scopes = ["pages:read", "keys:read", "keys:write"]
    external = ["wiki:read", "wiki:write"]

    [helper]
    scopes = ["users:read", "users:write"]

    [publisher]
    external = ["press:publish"]
"#;

/// A server with these roles.
async fn with(roles: &str, backend: Backend, profile: Profile) -> Option<App> {
    App::start_with(backend, profile, |settings| settings.roles = toml::from_str(roles).unwrap()).await
}

/// Servers with [`ROLES`] on both databases and in both profiles.
async fn apps() -> Vec<App> {
    let mut apps = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        for profile in [Profile::Fastapi, Profile::Rfc] {
            apps.extend(with(ROLES, backend, profile).await);
        }
    }
    apps
}

async fn sign_in_for(app: &App, email: &str, scope: &str) -> Answer {
    let form = [("grant_type", "password"), ("username", email), ("password", PASSWORD), ("scope", scope)];
    app.request("POST", "/token").form(&form).send().await
}

async fn introspected(app: &App, by: &Credential, of: &Credential) -> Value {
    let answer = app.request("POST", "/introspect").credential(by).form(&[("token", of.secret())]).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["scope"].clone()
}

async fn set_role(app: &App, by: &Credential, user: i64, role: &str) -> Answer {
    app.patch(&format!("/users/{user}"), by, &json!({ "role": role })).await
}

async fn authorized(app: &App, credential: &Credential, scope: &str) -> u16 {
    app.get(&format!("/authz?scope={scope}"), credential).await.status
}

const EDITOR_SCOPES: &str = "pages:read keys:read keys:write wiki:read wiki:write";

#[tokio::test]
async fn a_user_holds_the_scopes_of_an_own_role_at_once_and_everywhere() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        assert_eq!(authorized(&app, &ada, "wiki:read").await, 200, "a member");
        assert_eq!(authorized(&app, &ada, "wiki:write").await, 403);

        let changed = set_role(&app, &root, 2, "editor").await;
        assert_eq!((changed.status, &changed.body["role"]), (200, &json!("editor")), "{changed:?}");
        assert_eq!(changed.body["role_is_defined"], true);
        let answer = app.get("/authz?scope=wiki:write", &ada).await;
        assert_eq!((answer.status, answer.header("remote-scopes")), (200, EDITOR_SCOPES), "{answer:?}");
        assert_eq!(introspected(&app, &root, &ada).await, EDITOR_SCOPES);
        assert_eq!(app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.status, 403);
        assert_eq!(app.get("/me", &ada).await.body["role"], "editor");

        assert_eq!(set_role(&app, &root, 2, "auditor").await.status, 200);
        assert_eq!(authorized(&app, &ada, "wiki:read").await, 403);
        let details: Vec<Value> = app
            .trail(&root, "action=user.role&order=oldest")
            .await
            .into_iter()
            .map(|entry| entry["detail"].clone())
            .collect();
        assert_eq!(details, ["member to editor", "editor to auditor"]);
    }
}

#[tokio::test]
async fn the_audit_trail_has_the_own_role_and_the_external_scopes_in_force() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        let ada = app.user_of_role("ada@example.org", "editor").await;
        app.key_of(&ada, &["wiki:read"]).await;
        let all: Vec<&str> = EDITOR_SCOPES.split(' ').collect();
        for action in ["key.create", "user.sign_in"] {
            let entry = &app.trail(&root, &format!("action={action}&actor=user:2")).await[0];
            assert_eq!((&entry["role"], &entry["scopes"]), (&json!("editor"), &json!(all)), "{entry}");
        }
        // A shop's key has them, too.
        let sold = app.post("/keys", &root, &json!({ "name": "sold", "scopes": ["translate:use"] })).await;
        let sold = Credential::Token(sold.text_of("key"));
        assert_eq!(app.get("/users", &sold).await.status, 403);
        let entry = &app.trail(&root, "outcome=denied").await[0];
        assert_eq!((&entry["role"], &entry["scopes"]), (&json!("admin"), &json!(["translate:use"])), "{entry}");
    }
}

#[tokio::test]
async fn a_sign_in_can_be_narrowed_to_external_scopes_of_the_role() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        app.user_of_role("ada@example.org", "editor").await;
        let full = app.sign_in("ada@example.org", PASSWORD).await;
        assert_eq!(full.text_of("scope"), EDITOR_SCOPES);
        let narrowed = sign_in_for(&app, "ada@example.org", "wiki:write pages:read").await;
        assert_eq!(narrowed.text_of("scope"), "pages:read wiki:write", "{narrowed:?}");
        let narrowed = Credential::Token(narrowed.text_of("access_token"));
        assert_eq!(introspected(&app, &root, &narrowed).await, "pages:read wiki:write");
        assert_eq!(authorized(&app, &narrowed, "wiki:read").await, 403);
        app.delete("/me", &narrowed).await.assert_error(403, "insufficient_scope");

        for beyond in ["press:publish", "wiki:read press:publish", "nobody:knows", "wiki:read wiki:read", "*"] {
            let refused = sign_in_for(&app, "ada@example.org", beyond).await;
            refused.assert_error(400, "invalid_scope");
        }

        // Narrowed tokens never gain scopes, and regain those that the role holds again.
        set_role(&app, &root, 2, "member").await;
        assert_eq!(introspected(&app, &root, &narrowed).await, "pages:read");
        set_role(&app, &root, 2, "editor").await;
        assert_eq!(introspected(&app, &root, &narrowed).await, "pages:read wiki:write");
    }
}

#[tokio::test]
async fn own_keys_hold_external_scopes_of_their_owner_while_the_role_holds_them() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        let ada = app.user_of_role("ada@example.org", "editor").await;
        let (key, id) = app.key_of(&ada, &["wiki:write", "pages:read"]).await;
        assert_eq!(introspected(&app, &root, &key).await, "pages:read wiki:write");
        assert_eq!(app.get(&format!("/me/keys/{id}"), &ada).await.body["scopes"], json!(["pages:read", "wiki:write"]));

        let create = |scopes: Value| json!({ "name": "a key", "scopes": scopes });
        for (scopes, code) in
            [(json!(["press:publish"]), "scope_not_held"), (json!(["translate:use"]), "unknown_scope")]
        {
            let refused = app.post("/me/keys", &ada, &create(scopes)).await;
            assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (422, &json!(code)), "{refused:?}");
        }
        // A key creates no key with more scopes than its own.
        let (maker, _) = app.key_of(&ada, &["keys:write", "wiki:read"]).await;
        assert_eq!(app.post("/me/keys", &maker, &create(json!(["wiki:read"]))).await.status, 201);
        let refused = app.post("/me/keys", &maker, &create(json!(["wiki:write"]))).await;
        assert_eq!(refused.body["errors"][0]["code"], "scope_not_held", "{refused:?}");
        // It cannot take over a key with more of them, either.
        let refused = app.post(&format!("/me/keys/{id}/rotate"), &maker, &json!({})).await;
        assert_eq!(refused.body["errors"][0]["code"], "scope_not_held", "{refused:?}");

        let path = format!("/me/keys/{id}");
        let edited = app.patch(&path, &ada, &json!({ "scopes": ["wiki:read"] })).await;
        assert_eq!(edited.body["scopes"], json!(["wiki:read"]), "{edited:?}");
        assert_eq!(introspected(&app, &root, &key).await, "wiki:read");
        let entry = &app.trail(&root, "action=key.update").await[0];
        assert_eq!(entry["changed"], json!(["scopes"]), "{entry}");

        set_role(&app, &root, 2, "auditor").await;
        assert_eq!(introspected(&app, &root, &key).await, Value::Null);
        assert_eq!(authorized(&app, &key, "wiki:read").await, 403);
        set_role(&app, &root, 2, "member").await;
        assert_eq!(introspected(&app, &root, &key).await, "wiki:read");
    }
}

#[tokio::test]
async fn external_scopes_of_issued_keys_do_not_depend_on_a_role() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        let request = json!({ "name": "sold", "scopes": ["press:publish", "translate:use", "pages:read"] });
        let sold = app.post("/keys", &root, &request).await;
        assert_eq!(sold.status, 201, "keys:issue allows every external scope: {sold:?}");
        let sold = Credential::Token(sold.text_of("key"));
        let other = app.admin("other@example.org").await;
        assert_eq!(introspected(&app, &other, &sold).await, "pages:read press:publish translate:use");
        assert_eq!(set_role(&app, &other, 1, "helper").await.status, 200);
        assert_eq!(introspected(&app, &other, &sold).await, "press:publish translate:use");
    }
}

#[tokio::test]
async fn a_role_with_scopes_that_the_caller_lacks_cannot_be_assigned() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        app.user("ada@example.org").await;
        let helper = app.user_of_role("helper@example.org", "helper").await;
        for (by, role, lacks) in [
            (&root, "publisher", "press:publish"),
            (&helper, "editor", "cannot give: wiki:write."),
            (&helper, "admin", "keys:issue"),
        ] {
            let refused = set_role(&app, by, 2, role).await;
            let error = &refused.body["errors"][0];
            assert_eq!((refused.status, &error["code"]), (422, &json!("scope_not_held")), "{refused:?}");
            assert!(error["message"].as_str().unwrap().contains(lacks), "{error}");
        }
        // The user already holds the external scope of a member.
        assert_eq!(set_role(&app, &helper, 2, "helper").await.status, 200);
        assert_eq!(set_role(&app, &helper, 2, "member").await.status, 422);
        // A key of an admin assigns what it holds itself.
        let (writer, _) = app.key_of(&root, &["users:write", "users:read"]).await;
        assert_eq!(set_role(&app, &writer, 2, "editor").await.status, 422);
        assert_eq!(set_role(&app, &root, 2, "editor").await.status, 200);
        let (writer, _) =
            app.key_of(&root, &["users:write", "wiki:read", "pages:read", "pages:write", "keys:read"]).await;
        assert_eq!(set_role(&app, &writer, 2, "member").await.status, 200, "the user already holds keys:write");
    }
}

#[tokio::test]
async fn a_key_cannot_extend_its_access_by_a_role() {
    const SHOP_AND_WRITER: &str = r#"
        [shop]
        scopes = ["keys:issue"]

        [writer]
        external = ["wiki:write"]
    "#;
    for (backend, profile) in [(Backend::Sqlite, Profile::Rfc), (Backend::Postgres, Profile::Fastapi)] {
        let Some(app) = with(SHOP_AND_WRITER, backend, profile).await else { continue };
        let root = app.admin("root@example.org").await;
        app.user("ada@example.org").await;
        // `keys:issue` allows every external scope, also those that no role of the owner holds.
        let request = json!({ "name": "k", "scopes": ["users:write", "keys:issue", "wiki:write"] });
        let issued = Credential::Token(app.post("/keys", &root, &request).await.text_of("key"));
        let (own, _) = app.key_of(&root, &["users:write", "keys:issue"]).await;
        for (key, role) in [(&issued, "writer"), (&issued, "shop"), (&own, "shop"), (&own, "writer")] {
            let created = json!({
                "name": "Adaline", "surname": "", "email": "new@example.org", "password": PASSWORD, "role": role,
            });
            for refused in [set_role(&app, key, 2, role).await, app.post("/users", key, &created).await] {
                let error = &refused.body["errors"][0];
                assert_eq!((refused.status, &error["code"]), (422, &json!("scope_not_held")), "{role}: {refused:?}");
            }
        }
        assert_eq!(set_role(&app, &root, 2, "shop").await.status, 200, "a full sign-in token can give its scopes");
    }
}

#[tokio::test]
async fn an_undefined_role_is_refused_with_the_names_of_all_roles() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        for name in ["emperor", "Editor", "", "editor ", "*"] {
            let refused = set_role(&app, &root, 1, name).await;
            let error = &refused.body["errors"][0];
            assert_eq!((refused.status, &error["field"], &error["code"]), (422, &json!("role"), &json!("unknown")));
            assert_eq!(error["message"], "Use one of: member, auditor, admin, editor, helper, publisher.", "{error}");
        }
    }
}

#[tokio::test]
async fn a_role_that_is_not_defined_grants_nothing_and_is_shown_as_such() {
    for app in apps().await {
        let root = app.admin("root@example.org").await;
        let ada = app.user_of_role("ada@example.org", "editor").await;
        let (key, _) = app.key_of(&ada, &["wiki:read", "pages:read"]).await;
        assert_eq!(app.get("/page/", &key).await.status, 200);
        app.database.execute("UPDATE users SET role = 'gone' WHERE id = 2").await;
        // The change log of the database is read every 50 ms.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        for credential in [&ada, &key] {
            app.get("/page/", credential).await.assert_error(403, "insufficient_scope");
            assert_eq!(introspected(&app, &root, credential).await, Value::Null);
            assert_eq!(authorized(&app, credential, "wiki:read").await, 403);
        }
        let shown = app.get("/users/2", &root).await.body;
        assert_eq!((&shown["role"], &shown["role_is_defined"]), (&json!("gone"), &json!(false)));
        let me = app.get("/me", &ada).await;
        assert_eq!((me.status, &me.body["role_is_defined"]), (200, &json!(false)), "routes without a scope stay open");
        let signed_in = app.sign_in("ada@example.org", PASSWORD).await;
        assert_eq!((signed_in.status, &signed_in.body["scope"]), (200, &json!("")));
        let entry = &app.trail(&root, "outcome=denied&user=2").await[0];
        assert_eq!((&entry["role"], &entry["scopes"]), (&json!("gone"), &json!([])), "{entry}");
        assert_eq!(set_role(&app, &root, 2, "gone").await.status, 422, "it cannot be assigned");
        assert_eq!(set_role(&app, &root, 2, "member").await.status, 200);
    }
}

#[tokio::test]
async fn the_served_documents_list_the_roles_and_their_external_scopes() {
    let roles = format!("{ROLES}\n[odd]\nexternal = [\"https://example.org/a.b(c)+[d]$?{{e}}|^f*\"]");
    let start = |settings: &mut latchkey::config::Settings| {
        settings.roles = toml::from_str(&roles).unwrap();
        settings.http.public_url = "https://auth.example.org".to_owned();
    };
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, start).await.unwrap();
    let document = app.get("/openapi.json", &Credential::None).await.body;
    let schemas = &document["components"]["schemas"];
    let names = json!(["member", "auditor", "admin", "editor", "helper", "odd", "publisher"]);
    assert_eq!(schemas["UserPatch"]["properties"]["role"]["enum"], names);
    assert_eq!(schemas["UserResponse"]["properties"]["role"]["enum"], Value::Null);

    let metadata = app.get("/.well-known/oauth-authorization-server", &Credential::None).await.body;
    let key_scopes = &schemas["Scope"]["enum"];
    let flow = &document["components"]["securitySchemes"]["password"]["flows"]["password"]["scopes"];
    let texts = |values: &Value| -> BTreeSet<String> {
        values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let listed = texts(key_scopes);
    assert_eq!(texts(&metadata["scopes_supported"]), listed);
    assert_eq!(flow.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>(), listed);
    for scope in ["pages:read", "wiki:read", "wiki:write", "press:publish"] {
        assert!(listed.contains(scope), "{scope} in {listed:?}");
    }

    let form = "application/x-www-form-urlencoded";
    let token = &document["paths"]["/token"]["post"]["requestBody"]["content"][form]["schema"]["properties"]["scope"];
    let pattern = token["pattern"].as_str().unwrap();
    let escaped = r"https:\/\/example\.org\/a\.b\(c\)\+\[d\]\$\?\{e\}\|\^f\*";
    assert!(pattern.contains(escaped), "{pattern}");
}
