//! Roles of the settings, on the command line and across restarts with other settings.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::PASSWORD;
use crate::support::program::{Serving, failure, latchkey, out, run, with_input};
use crate::support::{Credential, specify_database};

const EDITOR: &str = r#"
[roles.member]
external = ["wiki:read"]

[roles.editor]
description = "Writes for the wiki"
scopes = ["pages:read"]
external = ["wiki:read", "wiki:write"]
"#;

fn write_settings(home: &Path, text: &str) {
    std::fs::write(home.join("latchkey.toml"), text).unwrap();
}

specify_database! {
    async fn own_roles_are_assigned_and_listed_and_grant_nothing_once_they_are_removed(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        write_settings(home.path(), EDITOR);
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url).env("LATCHKEY_CONFIG", "latchkey.toml");
            command
        };
        let run = |arguments: &[&str]| run(&mut command(arguments));
        let create = |email: &str, role: &str| {
            with_input(&mut command(&["user", "create", email, "--name", "Adaline", "--role", role]), PASSWORD)
        };
        assert_eq!(out(&create("ada@example.org", "editor")), "created editor 1 ada@example.org\n");
        assert_eq!(out(&create("root@example.org", "admin")), "created admin 2 root@example.org\n");
        let unknown = failure(&create("eve@example.org", "writer"));
        assert!(unknown.contains("role: Use one of: member, auditor, admin, editor."), "{unknown}");
        assert!(out(&run(&["user", "set-role", "root@example.org", "admin"])).contains("\tadmin\t"));

        let list = out(&run(&["role", "list"]));
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines[0], "member\tbuilt-in\tpages:read pages:write keys:read keys:write wiki:read\tManages their own pages and API keys");
        assert_eq!(lines[3], "editor\town\tpages:read wiki:read wiki:write\tWrites for the wiki");
        assert_eq!(lines.len(), 4);
        let listed: Vec<Value> =
            out(&run(&["role", "list", "--json"])).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let editor = json!({
            "name": "editor", "kind": "own", "scopes": ["pages:read", "wiki:read", "wiki:write"],
            "description": "Writes for the wiki",
        });
        assert_eq!(listed[3], editor);

        let server = Serving::start(&mut command(&["serve"]));
        let client = server.client();
        let ada = Credential::Token(client.new_token_of("ada@example.org").await);
        assert_eq!(client.get("/authz?scope=wiki:write", &ada).await.status, 200);
        server.signal("-QUIT");
        assert!(!server.remaining_lines().iter().any(|line| line.contains("WARN")));
        drop(server);

        // The same token after a restart with other scopes.
        write_settings(home.path(), "[roles.editor]\nexternal = [\"wiki:read\"]");
        let server = Serving::start(&mut command(&["serve"]));
        let client = server.client();
        assert_eq!(client.get("/authz?scope=wiki:read", &ada).await.status, 200);
        assert_eq!(client.get("/authz?scope=wiki:write", &ada).await.status, 403);
        assert_eq!(client.get("/page/", &ada).await.status, 403);
        drop(server);

        write_settings(home.path(), "");
        let server = Serving::start(&mut command(&["serve"]));
        server.line("role \"editor\" is not defined, so it grants nothing; users with this role: 1");
        let client = server.client();
        client.get("/authz?scope=wiki:read", &ada).await.assert_error(403, "insufficient_scope");
        assert_eq!(client.get("/me", &ada).await.body["role_is_defined"], false);
        drop(server);
        let shown = out(&run(&["user", "show", "ada@example.org"]));
        assert!(shown.contains("\teditor (undefined)\tenabled"), "{shown}");
        let list = out(&run(&["role", "list"]));
        assert!(list.ends_with("editor\tundefined\t\tGrants nothing; users with this role: 1\n"), "{list}");
        assert!(failure(&run(&["user", "set-role", "root@example.org", "editor"])).contains("Use one of: member, auditor, admin."));
    }
}

#[test]
fn roles_are_set_by_variables_and_printed_as_a_valid_file() {
    let home = TempDir::new().unwrap();
    let mut config = latchkey(home.path(), &["config"]);
    config.env("LATCHKEY__ROLES__TEAM_LEAD__SCOPES", "pages:read, users:read");
    config.env("LATCHKEY__ROLES__TEAM_LEAD__EXTERNAL", "wiki:write");
    config.env("LATCHKEY__ROLES__ADMIN__EXTERNAL", "wiki:write");
    let printed = out(&run(&mut config));
    for line in [
        "scopes = [\"pages:read\", \"users:read\"] # LATCHKEY__ROLES__TEAM_LEAD__SCOPES",
        "external = [\"wiki:write\"] # LATCHKEY__ROLES__TEAM_LEAD__EXTERNAL",
        "external = [\"wiki:write\"] # LATCHKEY__ROLES__ADMIN__EXTERNAL",
        "[roles.team_lead]",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    write_settings(home.path(), &printed);
    let again = out(&run(latchkey(home.path(), &["config"]).env("LATCHKEY_CONFIG", "latchkey.toml")));
    assert!(again.contains("[roles.team_lead]"), "{again}");
}

/// The error about a settings file with this text.
fn error_of(text: &str) -> String {
    let home = TempDir::new().unwrap();
    write_settings(home.path(), text);
    failure(&run(latchkey(home.path(), &["config"]).env("LATCHKEY_CONFIG", "latchkey.toml")))
}

const INVALID: &[(&str, &str)] = &[
    (
        "[roles.editor]\nscopes = [\"pages:read\", \"wiki:read\"]",
        "roles.editor.scopes (latchkey.toml, line 2): Entry 2 is not one of Latchkey's scopes: pages:read, ",
    ),
    (
        "[roles.editor]\nscopes = [\"page:read\"]",
        "Did you mean pages:read? Write scopes of other services to `external`.",
    ),
    (
        "[roles.editor]\nscopes = [\"pages:read\", \"pages:read\"]",
        "roles.editor.scopes (latchkey.toml, line 2): Entry 2 repeats an earlier one.",
    ),
    (
        "[roles.editor]\n\nexternal = [\"wiki:read\", \"wiki:read\"]",
        "roles.editor.external (latchkey.toml, line 3): Entry 2 repeats an earlier one.",
    ),
    (
        "[roles.member]\nexternal = [\"pages:read\"]",
        "roles.member.external (latchkey.toml, line 2): Entry 1 is Latchkey's own scope pages:read.",
    ),
    (
        "[roles.member]\nexternal = [\"users:delete\"]",
        "roles.member.external (latchkey.toml, line 2): Entry 1 looks like Latchkey's own scope users:write.",
    ),
    ("[roles.editor]\nexternal = [\"ages:read\"]", "looks like Latchkey's own scope pages:read."),
    (
        "[roles.editor]\nexternal = [\"*\"]",
        "roles.editor.external (latchkey.toml, line 2): Entry 1 is not the name of a scope.",
    ),
    ("[roles.editor]\nexternal = [\"two words\"]", "Entry 1 is not the name of a scope."),
    ("[roles.editor]\nexternal = [1]", "roles.editor.external (latchkey.toml, line 2): Write a list of strings"),
    (
        "[roles.member]\nscopes = []",
        "roles.member.scopes (latchkey.toml, line 2): The role member is built in, and its scopes cannot be changed.",
    ),
    (
        "[roles.admin]\ndescription = \"x\"",
        "roles.admin.description (latchkey.toml, line 2): The role admin is built in",
    ),
    (
        "[roles.admin]\nexternals = []",
        "roles.admin.externals (latchkey.toml, line 2): There is no such setting. The only setting of [roles.admin] is external.",
    ),
    (
        "[roles.editor]\nscope = []",
        "roles.editor.scope (latchkey.toml, line 2): There is no such setting. Settings of [roles.editor]: description, scopes, external.",
    ),
    ("[roles.editor.extra]\nscopes = []", "roles.editor.extra (latchkey.toml, line 1): There is no such setting."),
    (
        "[roles.Editor]\nscopes = []",
        "roles.Editor.scopes (latchkey.toml, line 2): This is not the name of a role. Use 1 to 32 lower-case letters",
    ),
    ("[roles.\"a.b\"]\nscopes = []", "This is not the name of a role."),
    ("[roles.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\nscopes = []", "This is not the name of a role."),
    (
        "[roles.editor]",
        "roles.editor (latchkey.toml, line 1): This is a section. Write [roles.editor], and below it: description, scopes, external.",
    ),
    ("[roles]\neditor = 1", "roles.editor (latchkey.toml, line 2): This is a section."),
    ("roles = 1", "roles (latchkey.toml, line 1): This is a section. Write [roles.NAME] for each role"),
    (
        "[roles.editor]\nscopes = []\n[roles.editor]\nscopes = []",
        "latchkey.toml, line 3: This is not TOML: duplicate key.",
    ),
    ("[roles.editor]\ndescription = 1", "roles.editor.description (latchkey.toml, line 2): Write text in quotes"),
];

#[test]
fn an_invalid_role_is_rejected_with_the_key_and_the_line() {
    for (text, expected) in INVALID {
        let error = error_of(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let long = error_of(&format!("[roles.editor]\ndescription = \"{}\"", "a".repeat(256)));
    assert!(long.contains("roles.editor.description (latchkey.toml, line 2): Use at most 255 characters."), "{long}");
}

#[test]
fn the_numbers_of_roles_and_scopes_are_limited() {
    let roles = |count: usize| -> String {
        (1..=count).map(|number| format!("[roles.r{number:03}]\nexternal = [\"wiki:{number}\"]\n")).collect()
    };
    let load = |text: &str| {
        let home = TempDir::new().unwrap();
        write_settings(home.path(), text);
        latchkey::config::Settings::load(Some(&home.path().join("latchkey.toml")), [])
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(&roles(64)).unwrap().roles.roles().all().len(), 67);
    let error = load(&roles(65)).unwrap_err();
    assert!(error.contains("roles.r065.external") && error.contains("line 130"), "{error}");
    assert!(error.ends_with("There are 65 roles. Define at most 64."), "{error}");

    let list = |count: usize| format!("{:?}", (0..count).map(|number| format!("wiki:{number}")).collect::<Vec<_>>());
    let three = |counts: [usize; 3]| {
        let [one, two, three] = counts.map(list);
        format!("[roles.a]\nexternal = {one}\n[roles.b]\nexternal = {two}\n[roles.c]\nexternal = {three}\n")
    };
    load(&three([100, 99, 1])).unwrap();
    let error = load(&three([100, 99, 2])).unwrap_err();
    assert!(
        error.contains("roles.c.external")
            && error.contains("line 6): With this list, all roles together have more than 200 scopes."),
        "{error}"
    );
    let error = load(&three([1, 101, 1])).unwrap_err();
    assert!(
        error.contains("roles.b.external")
            && error.contains("line 4): With this list, the role has more than 100 scopes."),
        "{error}"
    );
    load(&format!("[roles.admin]\nexternal = {}", list(91))).unwrap();
    let error = load(&format!("[roles.admin]\nexternal = {}", list(92))).unwrap_err();
    assert!(error.contains("the role has more than 100 scopes"), "{error}");
}

#[test]
fn a_misspelt_variable_of_a_role_is_rejected_with_a_correction() {
    let error = |name: &str| {
        latchkey::config::Settings::load(None, [(name.to_owned(), "pages:read".to_owned())]).unwrap_err().to_string()
    };
    for (name, expected) in [
        (
            "LATCHKEY__ROLES__EDITOR__SCOPE",
            "roles.editor.scope (LATCHKEY__ROLES__EDITOR__SCOPE): There is no such setting.",
        ),
        ("LATCHKEY__ROLES__MEMBER__SCOPES", "The role member is built in"),
        ("LATCHKEY__ROLES__1__SCOPES", "This is not the name of a role."),
        ("LATCHKEY__ROLES__EDITOR", "Write LATCHKEY__ROLES__NAME__SCOPES, "),
        ("LATCHKEY__ROLE__EDITOR__SCOPES", "Write LATCHKEY__ROLES__NAME__SCOPES, "),
        ("latchkey__roles__editor__scopes", "Write LATCHKEY__ROLES__NAME__SCOPES, "),
    ] {
        let error = error(name);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn the_example_in_the_page_on_levels_is_valid() {
    let page = crate::support::documents::read("docs/levels.md");
    let (_, section) = page.split_once("## Own roles").unwrap();
    let (example, _) = section.split_once("```toml\n").unwrap().1.split_once("```").unwrap();
    let home = TempDir::new().unwrap();
    write_settings(home.path(), example);
    let settings = latchkey::config::Settings::load(Some(&home.path().join("latchkey.toml")), []).unwrap();
    assert_eq!(settings.roles.roles().names(), ["member", "auditor", "admin", "editor"]);
}
