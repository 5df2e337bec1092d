//! The binary: commands, settings, start and stop.

use std::collections::BTreeMap;

use latchkey::domain::secret::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::program::{Serving, failure, latchkey, out, run, with_input};
use crate::support::specify_database;

/// Sends the head of a request, and resets the connection when the server waits for the body.
async fn abandon(address: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let request = "POST /register HTTP/1.1\r\nHost: x\r\nX-Request-Id: request-18\r\nContent-Type: application/json\r\n\
                   Expect: 100-continue\r\nContent-Length: 100\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.set_zero_linger().unwrap();
}

specify_database! {
    async fn users_are_managed_from_the_command_line(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        let user = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url);
            command
        };
        let created = with_input(&mut user(&["user", "create", "Ada@example.org", "--name", "Adaline"]), PASSWORD);
        assert_eq!(out(&created), "created member 1 Ada@example.org\n");
        assert_eq!(out(&run(&mut user(&["user", "list"]))), "1\tAda@example.org\tAdaline\t\tmember\tenabled\n");

        let duplicate = with_input(&mut user(&["user", "create", "ada@EXAMPLE.org", "--name", "Adaline"]), PASSWORD);
        assert!(failure(&duplicate).contains("already exists"), "{duplicate:?}");
        let bad = failure(&with_input(&mut user(&["user", "create", "nobody", "--name", "Ada"]), "short"));
        for field in ["email:", "name:", "password:"] {
            assert!(bad.contains(field), "{bad}");
        }

        database
            .execute(
                "INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date) \
                 VALUES (1, 'digest', '', '2026-01-01 00:00:00', '2027-01-01 00:00:00')",
            )
            .await;
        let hash = "SELECT hashed_password AS row FROM users";
        let before = database.rows(hash).await;
        assert!(before[0].starts_with("$bcrypt-sha256$v=2,t=2b,r=10$"), "{before:?}");
        let changed = with_input(&mut user(&["user", "set-password", "ada@example.org"]), "another password\n");
        assert!(out(&changed).starts_with("changed the password"));
        assert_eq!(database.number("SELECT count(*) FROM access_tokens").await, 0, "the token is revoked");
        assert_ne!(database.rows(hash).await, before);
        let changed = out(&with_input(&mut user(&["user", "set-password", "ada@example.org", "--json"]), "a third password\n"));
        assert_eq!(changed, out(&run(&mut user(&["user", "show", "ada@example.org", "--json"]))), "the user after the change");
        let unknown = with_input(&mut user(&["user", "set-password", "eve@example.org"]), PASSWORD);
        assert!(failure(&unknown).contains("user not found"), "{unknown:?}");
        let two_lines = with_input(&mut user(&["user", "set-password", "ada@example.org"]), "another password\nand more\n");
        assert!(failure(&two_lines).contains("standard input contains 2 lines"), "{two_lines:?}");

        assert_eq!(out(&run(&mut user(&["user", "delete", "ADA@example.org"]))), "deleted ADA@example.org\n");
        assert_eq!(out(&run(&mut user(&["user", "list"]))), "");
        assert!(failure(&run(&mut user(&["user", "delete", "ada@example.org"]))).contains("user not found"));
    }

    async fn a_user_is_created_if_absent_and_compared_if_present(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        let create = |arguments: &[&str]| {
            let arguments = [&["user", "create", "--if-absent"], arguments].concat();
            with_input(latchkey(home.path(), &arguments).env("DATABASE_URL", &database.url), PASSWORD)
        };
        let admin = ["ada@example.org", "--name", "Adaline", "--role", "admin"];
        assert_eq!(out(&create(&admin)), "created admin 1 ada@example.org\n");
        assert_eq!(out(&create(&admin)), "exists admin 1 ada@example.org\n");
        assert_eq!(out(&create(&[" ADA@example.org ", "--name", "Augusta", "--role", "admin"])), "exists admin 1 ada@example.org, differs in name\n");
        assert_eq!(database.number("SELECT count(*) FROM audit_entries").await, 1, "no other change was attempted");

        let json = |output: &std::process::Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
        let created = create(&["eve@example.org", "--name", "Evelyn", "--json"]);
        assert_eq!((&json(&created)["created"], &json(&created)["id"]), (&true.into(), &2.into()));
        let member = create(&["ada@example.org", "--name", "Adaline", "--json"]);
        assert_eq!(member.status.code(), Some(3));
        assert!(failure(&member).contains("the role is admin, not member (latchkey user set-role ada@example.org member)"));
        assert_eq!((&json(&member)["created"], &json(&member)["differs"]), (&false.into(), &serde_json::json!(["role"])));
        database.execute("UPDATE users SET disabled_at = '2026-01-01 00:00:00' WHERE id = 2").await;
        let disabled = create(&["eve@example.org", "--name", "Evelyn"]);
        assert_eq!(disabled.status.code(), Some(3));
        assert!(failure(&disabled).contains("the user is disabled"), "{disabled:?}");

        let bad = create(&["nobody", "--name", "Adaline"]);
        assert!(bad.status.code() == Some(1) && failure(&bad).contains("email:"), "{bad:?}");
    }

    async fn roles_and_states_are_set_from_the_command_line(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url);
            command
        };
        let json = |output: &std::process::Output| -> Vec<Value> {
            out(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let created = with_input(&mut command(&["user", "create", "root@example.org", "--name", "Rooot", "--role", "admin", "--json"]), PASSWORD);
        assert_eq!(json(&created)[0]["role"], "admin");
        with_input(&mut command(&["user", "create", "ada@example.org", "--name", "Adaline"]), PASSWORD);
        let run = |arguments: &[&str]| run(&mut command(arguments));

        assert!(failure(&run(&["user", "set-role", "ada@example.org", "emperor"])).contains("member, auditor, admin"));
        assert_eq!(json(&run(&["user", "set-role", "ADA@example.org", "auditor", "--json"]))[0]["role"], "auditor");
        assert_eq!(out(&run(&["user", "show", "ada@example.org"])), "2\tada@example.org\tAdaline\t\tauditor\tenabled\n");
        assert!(out(&run(&["user", "disable", "ada@example.org"])).contains("disabled"));
        assert_eq!(json(&run(&["user", "enable", "--json", "ada@example.org"]))[0]["disabled"], false);
        for attempt in [["user", "set-role", "root@example.org", "member"].as_slice(), &["user", "disable", "root@example.org"], &["user", "delete", "root@example.org"]] {
            assert!(failure(&run(attempt)).contains("last admin"), "{attempt:?}");
        }
        assert_eq!(json(&run(&["user", "list", "--search", "adaline", "--json"])).len(), 1);

        database.execute(
            "INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date) \
             SELECT id, email, '*', '2026-01-01 00:00:00', '2027-01-01 00:00:00' FROM users",
        ).await;
        out(&run(&["token", "revoke", "--user", "ada@example.org"]));
        assert_eq!(database.number("SELECT count(*) FROM access_tokens").await, 1);
        assert_eq!(out(&run(&["token", "revoke", "--all"])), "revoked 1 tokens, and ended 0 sessions\n");
        assert_eq!(database.number("SELECT count(*) FROM access_tokens").await, 0);
        assert!(!run(&["token", "revoke"]).status.success() && !run(&["token", "revoke", "--all", "--user", "x"]).status.success());

        let trail = json(&run(&["audit", "list", "--oldest", "--json"]));
        let recorded: Vec<String> = trail.iter().map(|entry| {
            assert_eq!((&entry["actor"], &entry["client"]), (&"command-line".into(), &Value::Null), "{entry}");
            format!("{} {} {}", entry["action"].as_str().unwrap(), entry["target"].as_str().unwrap(), entry["outcome"].as_str().unwrap())
        }).collect();
        assert_eq!(recorded, [
            "user.register user:1 success", "user.register user:2 success", "user.role user:2 success",
            "user.disable user:2 success", "user.enable user:2 success", "user.role user:1 failure",
            "user.disable user:1 failure", "user.delete user:1 failure", "token.revoke token-of-user:2 success",
            "token.revoke tokens success",
        ]);
        assert_eq!(out(&run(&["audit", "list", "--action", "user.role", "--outcome", "success"])).lines().count(), 1);
        assert_eq!(out(&run(&["audit", "list", "--limit", "3"])).lines().count(), 3);
        for (filter, value, form) in
            [("--action", "nonsense", "page.update"), ("--actor", "users:1", "actor: Use one of: user:<id>"), ("--target", "x", "page:<id>")]
        {
            assert!(failure(&run(&["audit", "list", filter, value])).contains(form), "{filter}");
        }
        assert!(!run(&["audit", "list", "--since", "yesterday"]).status.success());
    }

    async fn a_stopped_account_is_shown_and_unlocked_from_the_command_line(database: Database) {
        let home = TempDir::new().unwrap();
        database.open().migrate_up().await.unwrap();
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url);
            command
        };
        for email in ["ada@example.org", "eve@example.org"] {
            out(&with_input(&mut command(&["user", "create", email, "--name", "Adaline"]), PASSWORD));
        }
        let run = |arguments: &[&str]| run(&mut command(arguments));
        assert_eq!(out(&run(&["user", "unlock", "ada@example.org"])), "ada@example.org has no failed sign-ins\n");
        let account = Digest::of("ada@example.org").to_hex();
        let stop = format!(
            "INSERT INTO sign_in_failures (account, failures, first_at, last_at) \
             VALUES ('{account}', 100, '2026-11-01 00:00:00', '2026-11-02 00:00:00')"
        );
        database.execute(&stop).await;

        assert_eq!(out(&run(&["user", "show", "ada@example.org"])), "1\tada@example.org\tAdaline\t\tmember\tstopped\n");
        let states = |list: &str| list.lines().map(|line| line.rsplit('\t').next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(states(&out(&run(&["user", "list"]))), ["stopped", "enabled"]);
        out(&run(&["user", "disable", "ada@example.org"]));
        assert_eq!(states(&out(&run(&["user", "list"]))), ["disabled", "enabled"]);
        let shown: Value = serde_json::from_str(&out(&run(&["user", "show", "ada@example.org", "--json"]))).unwrap();
        assert_eq!((&shown["disabled"], &shown["sign_in_stopped"]), (&true.into(), &true.into()));

        assert_eq!(out(&run(&["user", "unlock", "ADA@example.org"])), "unlocked ADA@example.org\n");
        assert_eq!(states(&out(&run(&["user", "list"]))), ["disabled", "enabled"], "the user stays disabled");
        out(&run(&["user", "enable", "ada@example.org"]));
        assert_eq!(states(&out(&run(&["user", "list"]))), ["enabled", "enabled"]);
        database.execute(&stop).await;
        assert_eq!(out(&run(&["user", "unlock", "ada@example.org", "--json"])), "{\"id\":1,\"unlocked\":true}\n");
        let trail = out(&run(&["audit", "list", "--action", "user.unlock", "--json"]));
        let entries: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries.len(), 2, "{trail}");
        assert!(entries.iter().all(|entry| entry["target"] == "user:1" && entry["actor"] == "command-line"), "{trail}");
        assert!(failure(&run(&["user", "unlock", "nobody@example.org"])).contains("user not found"));
    }

    async fn keys_are_issued_rotated_and_revoked_from_the_command_line(database: Database) {
        database.open().migrate_up().await.unwrap();
        let home = TempDir::new().unwrap();
        let command = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", &database.url);
            command
        };
        with_input(&mut command(&["user", "create", "shop@example.org", "--name", "A shop"]), PASSWORD);
        let run = |arguments: &[&str]| run(&mut command(arguments));
        let issue = ["key", "issue", "shop@example.org", "--name", "k", "--scope", "translate:use", "--scope", "pages:read", "--order", "7"];
        let issued = out(&run(&issue));
        let (line, secret) = issued.trim_end().split_once('\n').unwrap();
        assert_eq!(line, "issued key 1 on the account of shop@example.org");
        assert!(secret.starts_with("lkk_") && secret.len() == 53, "{issued}");
        assert_eq!(out(&run(&issue)).trim_end(), "key 1 was already issued; its secret was shown at that time");

        let claim: Value = serde_json::from_str(&out(&run(&["key", "issue", "shop@example.org", "--name", "k", "--claim", "--metadata", r#"{"a":1}"#, "--json"]))).unwrap();
        assert!(claim["claim"].as_str().unwrap().starts_with("lkc_") && claim["metadata"]["a"] == 1, "{claim}");
        assert!(failure(&run(&["key", "issue", "shop@example.org", "--name", "k", "--scope", "users:write"])).contains("users:write"), "beyond the owner's role");
        assert!(failure(&run(&["key", "issue", "shop@example.org", "--name", "k", "--metadata", "[]"])).contains("metadata"));

        let rotated = out(&run(&["key", "rotate", "1", "--overlap-seconds", "60"]));
        assert!(rotated.contains("lkk_") && !rotated.contains(secret), "{rotated}");
        assert!(failure(&run(&["key", "rotate", "2"])).contains("claimed"));
        assert_eq!(out(&run(&["key", "revoke", "1"])), "revoked key 1\n");
        assert!(failure(&run(&["key", "rotate", "1"])).contains("revoked"));
        assert!(failure(&run(&["key", "revoke", "9"])).contains("not found"));
        let list = out(&run(&["key", "list", "--user", "shop@example.org"]));
        let states: Vec<&str> = list.lines().map(|line| line.split('\t').nth(4).unwrap()).collect();
        assert_eq!(states, ["revoked", "unclaimed"], "{list}");
        assert_eq!(out(&run(&["key", "list", "--json"])).lines().count(), 2);

        out(&run(&["key", "issue", "shop@example.org", "--name", "acts", "--scope", "pages:read"]));
        for (arguments, state) in [(["--keep-keys"].as_slice(), "issued"), (&[], "revoked")] {
            let set = [&["user", "set-password", "shop@example.org"], arguments].concat();
            let changed = with_input(&mut command(&set), "another long password");
            let (keys, hint) = if state == "issued" { ("", "") } else { (", 1 issued key", "; --keep-keys keeps the keys") };
            let before = String::from_utf8_lossy(&changed.stderr);
            let expected = format!("latchkey: a new password of shop@example.org will revoke the sign-in token, all sessions{keys}{hint}\n");
            assert!(before.contains(&expected), "{before}");
            let expected = format!("changed the password of shop@example.org, and revoked the sign-in token, all sessions{keys}\n");
            assert_eq!(out(&changed), expected);
            let list = out(&run(&["key", "list"]));
            assert_eq!(list.lines().last().unwrap().split('\t').nth(4), Some(state), "{list}");
        }
    }

    async fn migrations_are_applied_reverted_and_listed(database: Database) {
        let home = TempDir::new().unwrap();
        let migrate = |step: &str| {
            let mut command = latchkey(home.path(), &["migrate", step]);
            run(command.env("DATABASE_URL", &database.url))
        };
        // Creates the SQLite file.
        database.execute("SELECT 1").await;
        assert!(failure(&migrate("status")).contains("not up to date"));
        assert!(out(&migrate("up")).contains("applied 2026"));
        let applied = out(&migrate("status"));
        assert!(applied.starts_with("applied 2026-11-23-000000_users_tokens_pages"), "{applied}");
        for _ in applied.lines() {
            assert!(out(&migrate("down")).contains("reverted 2026"));
        }
        let pending = migrate("status");
        assert!(failure(&pending).contains("not up to date"));
        assert!(String::from_utf8_lossy(&pending.stdout).contains("pending 2026"), "{pending:?}");
        assert!(out(&migrate("down")).contains("no migration to revert"));
        assert!(out(&migrate("up")).contains("is up to date"));

        let mut old = latchkey(home.path(), &["serve"]);
        out(&migrate("down"));
        old.env("DATABASE_URL", &database.url).env("LATCHKEY__DATABASE__MIGRATE_ON_START", "false");
        assert!(failure(&run(&mut old)).contains("latchkey migrate up"));
    }

    async fn only_serve_and_migrate_up_migrate_and_other_commands_name_them(database: Database) {
        let home = TempDir::new().unwrap();
        // Creates the SQLite file.
        database.execute("SELECT 1").await;
        let before = database.dump_all().await;
        for arguments in [
            &["user", "create", "ada@example.org", "--name", "Adaline"][..],
            &["role", "list"],
            &["key", "list"],
            &["token", "revoke", "--all"],
            &["audit", "list"],
        ] {
            let mut command = latchkey(home.path(), arguments);
            let message = failure(&with_input(command.env("DATABASE_URL", &database.url), PASSWORD));
            assert!(message.contains("latchkey migrate up") && message.contains("start the server"), "{message}");
        }
        assert_eq!(database.dump_all().await, before);
        let mut serve = latchkey(home.path(), &[]);
        Serving::start(serve.env("DATABASE_URL", &database.url)).address();
        let mut list = latchkey(home.path(), &["user", "list"]);
        assert_eq!(out(&run(list.env("DATABASE_URL", &database.url))), "");
    }

    async fn a_migration_that_drops_rows_is_reverted_only_with_yes(database: Database) {
        let home = TempDir::new().unwrap();
        let down = |arguments: &[&str]| {
            let mut command = latchkey(home.path(), &[&["migrate", "down"], arguments].concat());
            run(command.env("DATABASE_URL", &database.url))
        };
        let db = database.open();
        db.migrate_up().await.unwrap();
        database.execute("INSERT INTO sign_in_failures (account, failures, last_at) VALUES ('a', 1, '2026-01-01 00:00:00')").await;
        // The latest migrations drop nothing that holds rows.
        let known_networks = "2026-11-25-050000_known_networks";
        let refused = loop {
            let output = down(&[]);
            if !output.status.success() {
                break failure(&output);
            }
        };
        assert!(refused.contains(known_networks) && refused.contains("column sign_in_failures.first_at (1 row)"), "{refused}");
        assert!(!refused.contains("known_networks (") && refused.contains("--yes"), "an empty table is no loss: {refused}");
        assert_eq!(database.number("SELECT count(*) FROM sign_in_failures WHERE first_at IS NULL").await, 1, "nothing was changed");
        let reverted = out(&down(&["--yes"]));
        assert_eq!(reverted, format!("reverted {known_networks}\ndropped table known_networks (0 rows)\ndropped column sign_in_failures.first_at (1 row)\n"));
        let migrations = db.migration_status().await.unwrap();
        assert!(migrations.iter().any(|migration| migration.name == known_networks && !migration.applied));
    }

    async fn the_server_logs_its_address_and_stops_on_a_signal(database: Database) {
        let home = TempDir::new().unwrap();
        for (format, signal) in [("text", "-TERM"), ("json", "-QUIT")] {
            let mut command = latchkey(home.path(), &[]);
            let with_password = database.url.replace("user=postgres", "user=postgres&password=hunter2");
            command.env("DATABASE_URL", with_password).env("LATCHKEY__LOG__FORMAT", format);
            let mut serving = Serving::start(&mut command);
            let address = serving.address();
            assert!(!serving.line("database ").contains("hunter2"));
            serving.line("/docs/");

            let mut health = latchkey(home.path(), &["health"]);
            health.env("LATCHKEY__SERVER__LISTEN", &address);
            assert_eq!(out(&run(&mut health)), "ready\n");

            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = http.get(format!("http://{address}/me?token=secret")).header("X-Request-Id", "request-17");
            assert!(request.send().await.unwrap().status().is_client_error());
            let line = serving.line("request-17");
            assert!(!line.contains("secret"), "{line}");
            if format == "json" {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["request_id"], "request-17");
                assert_eq!((&line["path"], &line["status"]), (&"/me".into(), &403.into()));
                for key in ["time", "level", "target", "message"] {
                    assert!(line[key].is_string(), "{key} in {line}");
                }
            }

            abandon(&address).await;
            let abandoned = serving.line("request-18");
            assert!(abandoned.contains("499"), "{abandoned}");

            serving.signal(signal);
            assert!(serving.child.wait().unwrap().success(), "{signal}");
            let unreachable = failure(&run(&mut health));
            assert!(unreachable.contains("refused") && unreachable.contains(&format!("http://{address}/health/ready")), "{unreachable}");
            assert!(unreachable.contains("server.listen (LATCHKEY__SERVER__LISTEN)"), "{unreachable}");
        }
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_audited_changes_nothing() {
    let home = TempDir::new().unwrap();
    let database = crate::support::database::Database::create(crate::support::Backend::Sqlite).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = latchkey(home.path(), arguments);
        command.env("DATABASE_URL", &database.url);
        command
    };
    database.open().migrate_up().await.unwrap();
    for (name, role, disabled_at) in
        [("root", "admin", "NULL"), ("eve", "member", "NULL"), ("bob", "member", "'2026-01-01 00:00:00'")]
    {
        let (email, at) = (format!("'{name}@example.org'"), "'2026-01-01 00:00:00'");
        let columns =
            "name, surname, email, email_key, website, hashed_password, role, disabled_at, created_at, updated_at";
        let values = format!("'{name}', '', {email}, {email}, '', '', '{role}', {disabled_at}, {at}, {at}");
        database.execute(format!("INSERT INTO users ({columns}) VALUES ({values})")).await;
    }
    database
        .execute(
            "INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date) \
             VALUES (2, 'digest', '', '2026-01-01 00:00:00', '2027-01-01 00:00:00')",
        )
        .await;
    out(&run(&mut command(&["key", "issue", "root@example.org", "--name", "k"])));
    let full = "CREATE TRIGGER full BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'no more'); END";
    database.execute(full).await;
    let before = database.dump_all().await;
    for (arguments, input) in [
        (&["user", "create", "new@example.org", "--name", "Newton"][..], PASSWORD),
        (&["user", "set-role", "eve@example.org", "auditor"], ""),
        (&["user", "set-password", "eve@example.org"], PASSWORD),
        (&["user", "disable", "eve@example.org"], ""),
        (&["user", "enable", "bob@example.org"], ""),
        (&["user", "delete", "eve@example.org"], ""),
        (&["key", "issue", "root@example.org", "--name", "another"], ""),
        (&["key", "rotate", "1"], ""),
        (&["key", "revoke", "1"], ""),
        (&["token", "revoke", "--user", "eve@example.org"], ""),
        (&["token", "revoke", "--all"], ""),
    ] {
        let mut command = command(arguments);
        let ended = if input.is_empty() { run(&mut command) } else { with_input(&mut command, input) };
        let message = failure(&ended);
        assert!(message.contains("no more") && ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
        assert_eq!(database.dump_all().await, before, "{arguments:?}");
    }
}

#[test]
fn settings_come_from_defaults_then_file_then_environment() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("latchkey.toml");
    std::fs::write(&file, "[auth]\ntoken_ttl = 60\npassword_min_length = 12\n").unwrap();
    std::fs::write(home.path().join("key"), "key-from-a-file\n").unwrap();
    let mut command = latchkey(home.path(), &["config", "--config", "latchkey.toml"]);
    command
        .env("LATCHKEY__AUTH__TOKEN_TTL", "120")
        .env("LATCHKEY__AUTH__API_KEY_TOKEN_FILE", home.path().join("key"))
        .env("DATABASE_URL", "postgres://ada:hunter2@localhost/x");
    let shown = out(&run(&mut command));
    for line in [
        "listen = \"127.0.0.1:8080\"",
        "token_ttl = 120 # LATCHKEY__AUTH__TOKEN_TTL",
        "password_min_length = 12 # latchkey.toml, line 3",
        "bcrypt_cost = 10 # LATCHKEY__AUTH__BCRYPT_COST",
        "api_key_token = \"***\" # LATCHKEY__AUTH__API_KEY_TOKEN_FILE",
        "url = \"postgres://ada:***@localhost/x\" # DATABASE_URL",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in:\n{shown}");
    }
    command.env("LATCHKEY__DATABASE__URL", "sqlite://other.db");
    assert!(
        out(&run(&mut command)).contains("url = \"sqlite://other.db\""),
        "LATCHKEY__DATABASE__URL takes precedence over DATABASE_URL"
    );

    std::fs::write(&file, "[auth]\ntoken_life = 60\n").unwrap();
    let message = failure(&run(&mut command));
    assert!(message.contains("token_life"), "{message}");
    let message = failure(&run(&mut latchkey(home.path(), &["config", "--config", "missing.toml"])));
    assert!(message.contains("missing.toml"), "{message}");
}

/// Prefixes of settings that are documented on other pages than the README.
const DOCUMENTED_ELSEWHERE: [&str; 3] = ["limits.", "links.", "mail."];

/// Collects the settings of a TOML table, with values in the notation of the README.
fn flatten(prefix: &str, table: &toml::Table, found: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        match value {
            toml::Value::Table(table) => flatten(&format!("{name}."), table, found),
            toml::Value::String(text) => drop(found.insert(name, text.clone())),
            toml::Value::Array(values) if values.is_empty() => drop(found.insert(name, String::new())),
            value => drop(found.insert(name, value.to_string())),
        }
    }
}

#[test]
fn the_readme_states_every_setting_with_its_default() {
    let mut defaults = BTreeMap::new();
    flatten("", &latchkey::config::DEFAULTS.parse().unwrap(), &mut defaults);
    defaults.retain(|name, _| !DOCUMENTED_ELSEWHERE.iter().any(|prefix| name.starts_with(prefix)));
    // This setting has no default, so the file of defaults does not set it.
    defaults.insert("auth.api_key_token".to_owned(), String::new());

    let mut stated = BTreeMap::new();
    let rows = include_str!("../../../README.md").lines().skip_while(|line| !line.starts_with("| Key | Default |"));
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let default = match cells[1].trim_matches('`') {
            "empty" | "none" | "unset" => "",
            default => default,
        };
        for name in cells[0].split('`').skip(1).step_by(2) {
            stated.insert(name.to_owned(), default.to_owned());
        }
    }
    stated.retain(|name, _| !DOCUMENTED_ELSEWHERE.iter().any(|prefix| name.starts_with(prefix)));
    assert_eq!(stated, defaults);
}

#[test]
fn the_defaults_for_passwords_and_tokens_match_the_design() {
    let auth = latchkey::config::Settings::defaults().unwrap().auth;
    assert_eq!((auth.bcrypt_cost, auth.token_ttl), (12, 86_400));
    assert_eq!((auth.password_min_length, auth.password_max_length), (8, 128));
    assert!(latchkey::config::Settings::defaults().unwrap().limits.enabled);
}

#[test]
fn a_missing_database_is_an_error_and_no_other_one_is_created() {
    let home = TempDir::new().unwrap();
    for (url, cause) in [
        ("postgres://localhost:1/x", "refused"),
        ("postgres:///x?host=/nonexistent", "No such file"),
        ("sqlite:///nonexistent/latchkey.db", "The directory /nonexistent does not exist"),
        ("sqlite://var/lib/latchkey.db", "sqlite:///var/lib/latchkey.db"),
    ] {
        for command in [&["serve"][..], &["migrate", "up"], &["user", "list"]] {
            let mut latchkey = latchkey(home.path(), command);
            // With a time-out, the server would wait for a database that refuses connections.
            latchkey.env("DATABASE_URL", url).env("LATCHKEY__DATABASE__START_TIMEOUT", "0");
            let message = failure(&run(&mut latchkey));
            assert!(message.contains("database") && message.contains(cause), "{url}: {message}");
        }
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was created");
}

#[test]
fn only_serve_and_migrate_up_create_a_database_and_other_commands_state_where_they_looked() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("latchkey.db");
    for arguments in [
        &["user", "list"][..],
        &["user", "create", "ada@example.org", "--name", "Adaline"],
        &["role", "list"],
        &["key", "list"],
        &["token", "revoke", "--all"],
        &["audit", "list"],
        &["migrate", "status"],
        &["migrate", "down", "--yes"],
    ] {
        let message = failure(&run(&mut latchkey(home.path(), arguments)));
        for part in [
            "settings: database.url: There is no database at ",
            file.to_str().unwrap(),
            "latchkey migrate up",
            "relative to the working directory",
        ] {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
        let mut elsewhere = latchkey(home.path(), arguments);
        let message = failure(&run(elsewhere.env("DATABASE_URL", format!("sqlite://{}", file.display()))));
        assert!(message.contains(&format!("database.url (DATABASE_URL): There is no database at {}", file.display())));
        assert!(!message.contains("relative"), "{message}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "{arguments:?} created a file");
    }
    for arguments in [&["openapi"][..], &["config"], &["scan-regex"]] {
        out(&run(&mut latchkey(home.path(), arguments)));
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    out(&run(&mut latchkey(home.path(), &["migrate", "up"])));
    assert_eq!(out(&run(&mut latchkey(home.path(), &["user", "list"]))), "");
}

/// Valid and invalid database URLs with a password.
const URLS_WITH_A_PASSWORD: [&str; 33] = [
    "postgres://ada:hunter2@localhost:1/x",
    "postgres://ada:hunter2%zz@localhost/x",
    "postgres://ada:hunter2%00@localhost/x",
    "postgres://ada:%40hunter2%2F@localhost:1/x",
    "postgres://ada:#hunter2@localhost:1/x",
    "postgres://ada:5432#hunter2@localhost:1/x",
    "postgres://ada:1?hunter2@localhost:1/x",
    "postgres://ada:1/hunter2@localhost:1/x",
    "postgres://localhost:1/hunter2@localhost/x",
    "postgres://ada:x@hunter2@nowhere.invalid/x",
    "postgres://ada:x@/hunter2@localhost:1/x",
    "postgres://ada:hunter2 and more@localhost/x",
    "postgres://ada:hunter2 connection to server%zz@localhost/x",
    "postgres://ada:hunter2@[::1]y/x",
    "postgres://ada:hunter2@[::1/x",
    "postgres://ada:hunter2@nowhere.invalid/x",
    "postgres://ada:hunter2@localhost:port/x",
    "postgres://ada:hunter2@localhost/x?nonsense=1",
    "postgres://ada:hunter2/x",
    "postgres://localhost:1/x?password=hunter2",
    "postgres://localhost:1/x?password=a@/?#hunter2",
    "postgres://localhost:1?password=a@hunter2",
    "postgres://localhost:1/x?password=a&hunter2",
    "postgres://localhost:1/x?password=a&hunter2=b",
    "postgres://localhost:1/x?pass%77ord=hunter2",
    "postgres://localhost:1/x?sslpassword=hunter2&oauth_client_secret=hunter2",
    "postgres://localhost:1/x?pwd=hunter2",
    "postgres//ada:hunter2@localhost/x",
    "//ada:hunter2@localhost/x",
    "ada:hunter2@localhost/x",
    "sqlite://ada:hunter2@localhost/x",
    "mysql://ada:hunter2@localhost/x",
    "host=localhost user=ada password=hunter2",
];

#[test]
fn no_message_and_no_displayed_setting_contains_the_database_password() {
    let home = TempDir::new().unwrap();
    for url in URLS_WITH_A_PASSWORD {
        for arguments in [&["serve"][..], &["migrate", "up"], &["config"]] {
            let mut command = latchkey(home.path(), arguments);
            command.env("DATABASE_URL", url).env("LATCHKEY__DATABASE__TLS", "any").env("RUST_LOG", "trace");
            command.env("LATCHKEY__DATABASE__START_TIMEOUT", "0");
            let output = run(&mut command);
            let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!printed.contains("hunter2"), "{url}: {printed}");
            assert!(printed.contains("database"), "{url}: {printed}");
            assert!(arguments == ["config"] || !output.status.success(), "{url}: {printed}");
        }
        let environment = [("DATABASE_URL", url), ("LATCHKEY__DATABASE__TLS", "any")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = latchkey::config::Settings::load(None, environment);
        assert!(!format!("{loaded:?}").contains("hunter2"), "{url}: {loaded:?}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was created");
}

#[test]
fn no_message_about_a_wrong_setting_quotes_a_secret() {
    let home = TempDir::new().unwrap();
    for (variable, value) in [
        ("LATCHKEY__DATABASE", "postgres://ada:hunter2@localhost/x"),
        ("LATCHKEY__DATABASE__POOL_SIZE", "postgres://ada:hunter2@localhost/x"),
        ("LATCHKEY__DATABASE__MIGRATE_ON_START", "hunter2"),
        ("LATCHKEY__DATABASE__URL_FILE", "postgres://ada:hunter2@localhost/x"),
        ("LATCHKEY__AUTH__API_KEY_TOKEN", "hunter2, and more"),
        ("LATCHKEY__AUTH__API_KEY_TOKEN_FILE", "hunter2"),
        ("LATCHKEY__AUTH", "hunter2"),
        ("LATCHKEY__HTTP__PUBLIC_URL", "https://ada:hunter2@auth.example.com"),
    ] {
        let message = failure(&run(latchkey(home.path(), &["config"]).env(variable, value)));
        assert!(!message.contains("hunter2") && message.starts_with("latchkey: settings: "), "{variable}: {message}");
    }
    let file = home.path().join("broken.toml");
    for line in ["api_key_token = \"hunter2", "token_ttl = hunter2", "[auth\napi_key_token = \"hunter2\""] {
        std::fs::write(&file, format!("[auth]\n{line}\n")).unwrap();
        let message = failure(&run(&mut latchkey(home.path(), &["config", "--config", file.to_str().unwrap()])));
        assert!(!message.contains("hunter2") && message.contains("broken.toml, line 2"), "{message}");
    }
}

#[test]
fn printing_to_a_closed_pipe_is_not_a_failure() {
    let home = TempDir::new().unwrap();
    let mut child = latchkey(home.path(), &["openapi"]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_address_in_use_is_a_clear_error_and_no_database_is_created() {
    let home = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, setting) in
        [("LATCHKEY__SERVER__LISTEN", "server.listen"), ("LATCHKEY__METRICS__LISTEN", "metrics.listen")]
    {
        let mut command = latchkey(home.path(), &[]);
        command.env("LATCHKEY__SERVER__LISTEN", "127.0.0.1:0").env(variable, &address);
        let message = failure(&run(&mut command));
        for part in
            [&format!("{setting} ({variable}): cannot listen on {address}"), "Another program listens on this address."]
        {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was created");
    }
}

#[test]
fn the_openapi_document_is_printed() {
    let home = TempDir::new().unwrap();
    let printed = out(&run(&mut latchkey(home.path(), &["openapi"])));
    let snapshot = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).unwrap();
    assert!(printed == snapshot, "the printed document is not docs/openapi.json");
}

#[test]
fn the_scanner_patterns_match_every_secret_and_nothing_similar() {
    use latchkey::domain::secret::{Secret, SecretKind};

    let home = TempDir::new().unwrap();
    let patterns = out(&run(&mut latchkey(home.path(), &["scan-regex"])));
    assert_eq!(patterns.lines().count(), SecretKind::ALL.len(), "{patterns}");
    std::fs::write(home.path().join("patterns"), &patterns).unwrap();
    let finds = |text: &str| {
        let mut grep = std::process::Command::new("grep");
        grep.args(["-oE", "-f", "patterns"]).current_dir(home.path()).stdout(std::process::Stdio::piped());
        with_input(&mut grep, text).stdout
    };
    for kind in SecretKind::ALL {
        let secret = Secret::generate(kind).unwrap().reveal();
        for text in [
            secret.clone(),
            format!("key = \"{secret}\";"),
            format!("https://x.test/?t={secret}&b"),
            format!("a,{secret},b"),
        ] {
            assert_eq!(String::from_utf8(finds(&text)).unwrap(), format!("{secret}\n"), "{text}");
        }
        for near in [
            &secret[1..],
            &secret[..secret.len() - 1],
            &format!("{secret}x"),
            &format!("x{secret}"),
            &secret.replace('_', "-"),
        ] {
            assert_eq!(finds(near), b"", "{near}");
        }
    }
}
