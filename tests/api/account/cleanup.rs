//! Changes of accounts that own many keys and pages. These end at once, and the server updates their rows in the
//! background.

use latchkey::config::Settings;
use latchkey::server;
use latchkey::service::Service;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::program::{failure, latchkey, out, run};
use crate::support::{App, Backend, Credential, Profile, specify};

/// More rows than a change handles itself.
const MANY: usize = 250;

/// Inserts keys that user 2 issued, and pages of user 2. Half of the keys have one of Latchkey's own scopes.
async fn seed(database: &Database, keys: usize, pages: usize) {
    let numbers =
        |count: usize| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let created_at = "'2026-01-01 00:00:00'";
    if keys > 0 {
        let scopes = "CASE WHEN i % 2 = 0 THEN 'pages:read' ELSE '' END";
        database
            .execute(format!(
                "{} INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, digest, created_at, order_id)
                     SELECT 2, TRUE, 'issued key', {scopes}, 'translate:use', 'digest ' || i, {created_at},
                            'seeded ' || i
                     FROM n",
                numbers(keys)
            ))
            .await;
    }
    if pages > 0 {
        database
            .execute(format!(
                "{} INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by)
                     SELECT 2, 'title', 'body', 3, {created_at}, {created_at}, 2 FROM n",
                numbers(pages)
            ))
            .await;
    }
}

/// Blocks cleanups in the background until [`unblock_cleanups`].
async fn block_cleanups(database: &Database) {
    let triggers = match database.backend {
        Backend::Sqlite => ["UPDATE", "DELETE"].map(|change| {
            format!(
                "CREATE TRIGGER blocked_{change} BEFORE {change} ON account_cleanups
                 BEGIN SELECT RAISE(ABORT, 'blocked'); END;"
            )
        }),
        Backend::Postgres => [
            "CREATE FUNCTION blocked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'blocked'; END $$;"
                .into(),
            "CREATE TRIGGER blocked BEFORE UPDATE OR DELETE ON account_cleanups
             FOR EACH ROW EXECUTE FUNCTION blocked();"
                .into(),
        ],
    };
    database.execute(triggers.concat()).await;
}

/// Reverts [`block_cleanups`].
async fn unblock_cleanups(database: &Database) {
    database
        .execute(match database.backend {
            Backend::Sqlite => "DROP TRIGGER blocked_UPDATE; DROP TRIGGER blocked_DELETE",
            Backend::Postgres => "DROP TRIGGER blocked ON account_cleanups; DROP FUNCTION blocked",
        })
        .await;
}

/// Another process with the app's database and clock. It runs nothing in the background.
async fn open_process(app: &App) -> Service {
    let settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Runs the remaining cleanups, unless the app's own background task is faster.
async fn clean_up(app: &App) {
    let process = open_process(app).await;
    while app.database.number("SELECT count(*) FROM account_cleanups").await > 0 {
        process.lifecycle().cleanups().run_once().await.unwrap();
    }
}

/// The caller and the request of an entry.
fn caller_of(entry: &Value) -> [&Value; 6] {
    ["actor", "user", "credential", "role", "scopes", "request_id"].map(|member| &entry[member])
}

async fn entries_of(app: &App, reader: &Credential, action: &str) -> Vec<Value> {
    app.trail(reader, &format!("action={action}")).await
}

specify! {
    async fn disabling_an_account_revokes_any_number_of_keys_at_once(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        seed(&app.database, MANY, 0).await;
        let order = json!({ "name": "k", "scopes": ["pages:read"], "order": "1" });
        let issued = app.post("/keys", &ada, &order).await;
        let key = Credential::Token(issued.text_of("key"));
        let claim = app.post("/keys", &ada, &json!({ "name": "k", "scopes": [], "delivery": "claim" })).await;
        let claim = json!({ "claim": claim.text_of("claim") });
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "it is in the cache");

        block_cleanups(&app.database).await;
        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
        let disabled = entries_of(&app, &root, "user.disable").await.remove(0);
        assert_eq!(disabled["detail"], "1 token, 0 own keys, others are counted later");
        let active_keys = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL";
        assert_eq!(app.database.number(active_keys).await, 252, "no row of a key has changed");
        let assert_revoked = async || {
            app.get("/protected-route", &key).await.assert_error(app.expected.bad_token_header, "invalid_token");
            let introspection = app.request("POST", "/introspect").credential(&root).form(&[("token", key.secret())]);
            let introspected = introspection.send().await;
            assert_eq!(introspected.body, json!({ "active": false }));
            app.post("/keys/claim", &Credential::None, &claim).await.assert_error(410, "claim_revoked");
        };
        assert_revoked().await;

        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": false })).await.status, 200);
        assert_revoked().await;
        let ada = Credential::Token(app.new_token_of("ada@example.org").await);
        let mut path = "/keys?limit=100".to_owned();
        let mut listed = Vec::new();
        loop {
            let list = app.get(&path, &ada).await;
            listed.extend(list.body["items"].as_array().unwrap().clone());
            let Some(next) = list.body["next"].as_i64() else { break };
            path = format!("/keys?limit=100&after={next}");
        }
        assert_eq!(listed.len(), MANY + 2);
        let ended_at = &listed[0]["revoked_at"];
        assert!(ended_at.is_string() && listed.iter().all(|key| key["revoked_at"] == *ended_at), "at the same time");
        let again = app.post("/keys", &ada, &order).await;
        assert_eq!((again.status, &again.body["id"], &again.body["revoked_at"]), (200, &issued.body["id"], ended_at));
        assert_eq!(app.get("/keys?order=1", &ada).await.body["items"][0]["revoked_at"], *ended_at);
        let revoked = entries_of(&app, &root, "key.revoke").await.len();
        assert_eq!(app.delete(&format!("/keys/{}", issued.body["id"]), &ada).await.status, 204, "it can be repeated");
        assert_eq!(entries_of(&app, &root, "key.revoke").await.len(), revoked);
        let new = app.post("/keys", &ada, &json!({ "name": "new", "scopes": ["pages:read"] })).await;
        let new = Credential::Token(new.text_of("key"));

        unblock_cleanups(&app.database).await;
        clean_up(&app).await;
        assert_revoked().await;
        assert_eq!(app.get("/protected-route", &new).await.status, 200, "a key created later is valid");
        assert_eq!(app.database.number(active_keys).await, 1);
        let row = "SELECT DISTINCT CAST(revoked_at AS TEXT) AS row FROM api_keys WHERE revoked_at IS NOT NULL";
        assert_eq!(app.database.rows(row).await.len(), 1, "the time is that of the change");
        let revocations = entries_of(&app, &root, "key.revoke").await;
        let mut targets: Vec<&str> = revocations.iter().map(|entry| entry["target"].as_str().unwrap()).collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!((revocations.len(), targets.len()), (MANY + 2, MANY + 2), "each key has one entry");
        let summary = entries_of(&app, &root, "user.cleanup").await.remove(0);
        assert_eq!((&summary["detail"], &summary["target"]), (&json!("252 issued keys"), &json!("user:2")));
        for entry in revocations.iter().chain([&summary]) {
            assert_eq!((caller_of(entry), &entry["subject"]), (caller_of(&disabled), &json!(2)));
        }
    }

    async fn a_new_password_revokes_any_number_of_keys_that_act_for_the_user_and_no_others(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        seed(&app.database, 2 * MANY, 0).await;
        let key = async |scope: &str| {
            let issued = app.post("/keys", &ada, &json!({ "name": "k", "scopes": [scope] })).await;
            Credential::Token(issued.text_of("key"))
        };
        let (acting, external) = (key("pages:read").await, key("translate:use").await);
        block_cleanups(&app.database).await;
        let change = json!({ "current_password": PASSWORD, "new_password": "another password" });
        assert_eq!(app.put("/me/password", &ada, &change).await.status, 204);
        let check = async || {
            app.get("/protected-route", &acting).await.assert_error(app.expected.bad_token_header, "invalid_token");
            assert_eq!(app.get("/protected-route", &external).await.status, 200);
        };
        check().await;
        unblock_cleanups(&app.database).await;
        clean_up(&app).await;
        check().await;
        let left = app.database.number("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").await;
        assert_eq!(left, i64::try_from(MANY).unwrap() + 1, "those with external scopes only");
        let summary = entries_of(&app, &root, "user.cleanup").await.remove(0);
        assert_eq!((&summary["detail"], &summary["actor"]), (&json!("251 issued keys"), &json!("user:2")));
        let again = app.patch("/users/2", &root, &json!({ "disabled": true })).await;
        assert_eq!(again.status, 200);
        clean_up(&app).await;
        assert_eq!(entries_of(&app, &root, "user.cleanup").await[0]["detail"], "251 issued keys", "the remaining keys");
    }

    async fn a_deleted_account_is_gone_at_once_with_any_number_of_keys_and_pages(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        seed(&app.database, MANY, MANY).await;
        let key = app.post("/keys", &ada, &json!({ "name": "k", "scopes": ["pages:read"] })).await.text_of("key");
        app.post("/page/", &root, &json!({ "title": "t", "body": "of another user" })).await;
        block_cleanups(&app.database).await;
        assert_eq!(app.delete("/me", &ada).await.status, 204);

        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 251, "no row of a page has changed");
        for credential in [&ada, &Credential::Token(key)] {
            app.get("/protected-route", credential).await.assert_error(app.expected.bad_token_header, "invalid_token");
        }
        app.sign_in("ada@example.org", PASSWORD).await.assert_error(app.expected.bad_password, "invalid_grant");
        app.get("/users/2", &root).await.assert_error(404, "not_found");
        app.patch("/users/2", &root, &json!({ "disabled": false })).await.assert_error(404, "not_found");
        app.delete("/users/2", &root).await.assert_error(404, "not_found");
        for query in ["total=true", "search=example.org&total=true", "search=&total=true"] {
            let list = app.get(&format!("/users?{query}"), &root).await;
            assert_eq!((list.body["items"].as_array().unwrap().len(), &list.body["total"]), (1, &json!(1)), "{query}");
        }
        for query in ["search=deleted", "search=ada@example.org", "search=eleted:2"] {
            assert_eq!(app.get(&format!("/users?{query}"), &root).await.body["items"], json!([]), "{query}");
        }
        let list = app.get("/page/", &root).await;
        assert_eq!((list.body["items"].as_array().unwrap().len(), &list.body["total"]), (1, &json!(1)), "{list:?}");
        app.get("/page/200", &root).await.assert_error(404, "not_found");
        app.patch("/page/200", &root, &json!({ "title": "mine" })).await.assert_error(404, "not_found");
        let keys = out(&run(latchkey(TempDir::new().unwrap().path(), &["key", "list"]).env("DATABASE_URL", &app.database.url)));
        assert_eq!(keys, "");
        let left = "SELECT name || surname || email || email_key || website || hashed_password AS row FROM users WHERE id = 2";
        assert_eq!(app.database.rows(left).await, ["deleted:2"]);
        app.delete("/me", &root).await.assert_error(409, "last_admin");
        assert_eq!(app.register("ada@example.org").await.body["id"], 3, "the address can be registered again");

        unblock_cleanups(&app.database).await;
        clean_up(&app).await;
        for table in ["pages", "api_keys", "users"] {
            let column = if table == "users" { "id" } else { "owner_id" };
            assert_eq!(app.database.number(format!("SELECT count(*) FROM {table} WHERE {column} = 2")).await, 0, "{table}");
        }
        let deleted = entries_of(&app, &root, "user.delete").await;
        let deleted = deleted.iter().find(|entry| entry["outcome"] == "success").unwrap();
        assert_eq!(deleted["detail"], "1 token, 0 own keys, others are counted later");
        let (pages, keys) = (entries_of(&app, &root, "page.delete").await, entries_of(&app, &root, "key.revoke").await);
        assert_eq!((pages.len(), keys.len()), (MANY, MANY + 1));
        assert_eq!((&pages[0]["version_before"], &pages[0]["version_after"]), (&json!(3), &json!(null)));
        let summary = entries_of(&app, &root, "user.cleanup").await.remove(0);
        assert_eq!(summary["detail"], "251 issued keys, 250 pages");
        for entry in pages.iter().chain(&keys).chain([&summary]) {
            assert_eq!(caller_of(entry), caller_of(deleted));
        }
        assert_eq!(app.get("/page/200/history", &root).await.body["items"][0]["action"], "page.delete");
    }

    async fn deleting_an_account_during_its_cleanup_counts_each_key_once(app: App) {
        let root = app.admin("root@example.org").await;
        app.admin("ada@example.org").await;
        seed(&app.database, MANY, 3).await;
        block_cleanups(&app.database).await;
        for _ in 0..2 {
            assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
            assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": false })).await.status, 200);
        }
        assert_eq!(app.delete("/users/2", &root).await.status, 204);
        let details: Vec<Value> = ["user.disable", "user.delete"].map(|action| format!("order=oldest&action={action}"))
            .iter().map(|query| app.trail(&root, query)).collect::<futures_util::future::JoinAll<_>>().await
            .into_iter().flatten().map(|entry| entry["detail"].clone()).collect();
        assert_eq!(details, [
            "1 token, 0 own keys, others are counted later",
            "no token, 0 own keys, 0 issued keys",
            "no token, 0 own keys, others are counted later",
        ]);
        unblock_cleanups(&app.database).await;
        clean_up(&app).await;
        let summaries = app.trail(&root, "action=user.cleanup&order=oldest").await;
        let details: Vec<&Value> = summaries.iter().map(|entry| &entry["detail"]).collect();
        assert_eq!(details, ["250 issued keys", "0 issued keys, 3 pages"]);
        assert_eq!(entries_of(&app, &root, "key.revoke").await.len(), MANY);
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys").await, 0);
    }

    async fn the_command_line_leaves_the_rows_of_a_large_account_to_a_server_and_prints_a_note(app: App) {
        app.admin("root@example.org").await;
        app.admin("ada@example.org").await;
        seed(&app.database, MANY, MANY).await;
        block_cleanups(&app.database).await;
        let home = TempDir::new().unwrap();
        let user = |command: &str| {
            let arguments = ["user", command, "--yes", "ada@example.org"];
            run(latchkey(home.path(), &arguments).env("DATABASE_URL", &app.database.url))
        };
        for (command, output) in [("disable", "disabled\n"), ("delete", "deleted ada@example.org\n")] {
            let answer = user(command);
            assert!(out(&answer).ends_with(output), "{answer:?}");
            let note = String::from_utf8(answer.stderr).unwrap();
            assert!(note.contains("a running server removes and records the rest"), "{note}");
        }
        unblock_cleanups(&app.database).await;
        clean_up(&app).await;
        let actors = app.database.rows(
            "SELECT DISTINCT actor AS row FROM audit_entries \
             WHERE action IN ('key.revoke', 'page.delete', 'user.cleanup')"
        ).await;
        assert_eq!(actors, ["command-line"]);
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 1);
    }

    async fn the_command_line_ends_an_account_that_owns_something_only_with_yes(app: App) {
        app.admin("root@example.org").await;
        app.admin("ada@example.org").await;
        let home = TempDir::new().unwrap();
        let user = |arguments: &[&str]| {
            let arguments = [&["user"], arguments, &["ADA@example.org"]].concat();
            run(latchkey(home.path(), &arguments).env("DATABASE_URL", &app.database.url))
        };
        let refusal = |command: &str| {
            let message = failure(&user(&[command]));
            assert!(message.contains(&format!("run `latchkey user {command} --yes ada@example.org`")), "{message}");
            message
        };
        seed(&app.database, 0, 2).await;
        let before = app.database.dump_all().await;
        assert!(refusal("delete").contains("nothing was changed, because deleting the user deletes 2 pages."));
        assert_eq!(app.database.dump_all().await, before);
        assert!(out(&user(&["disable"])).ends_with("disabled\n"), "no issued key ends");
        out(&user(&["enable"]));

        seed(&app.database, 3, 0).await;
        app.database.execute("UPDATE api_keys SET revoked_at = '2026-01-01 00:00:00' WHERE id = 1").await;
        let before = app.database.dump_all().await;
        assert!(refusal("disable").contains("disabling the user permanently revokes 2 issued keys."));
        assert!(refusal("delete").contains("deleting the user deletes 3 issued keys, 2 pages."));
        assert_eq!(app.database.dump_all().await, before);
        assert!(out(&user(&["disable", "--yes"])).ends_with("disabled\n"));
        assert!(out(&user(&["disable"])).ends_with("disabled\n"), "no issued key is left that would end");
        assert_eq!(out(&user(&["delete", "--yes"])), "deleted ADA@example.org\n");
        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 0);
    }

    async fn all_tokens_are_revoked_in_batches(app: App) {
        let columns = "(name, surname, email, email_key, website, hashed_password, created_at, updated_at)";
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
        let (created_at, name) = ("'2026-01-01 00:00:00'", "CAST(i AS TEXT)");
        app.database.execute(format!(
            "{numbers} INSERT INTO users {columns}
                SELECT 'Adaline', '', {name}, {name}, '', '', {created_at}, {created_at} FROM n;
             INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date, sign_in_id)
                SELECT id, email_key, '*', {created_at}, '2099-01-01 00:00:00', 0 FROM users"
        )).await;
        let home = TempDir::new().unwrap();
        let revoke = || {
            out(&run(latchkey(home.path(), &["token", "revoke", "--all"]).env("DATABASE_URL", &app.database.url)))
        };
        assert_eq!(revoke(), "revoked 1200 tokens, and ended 0 sessions\n");
        assert_eq!(revoke(), "revoked 0 tokens, and ended 0 sessions\n");
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 0);
        let details = app.database.rows("SELECT detail AS row FROM audit_entries ORDER BY id").await;
        assert_eq!(details, ["500 tokens", "500 tokens", "200 tokens", "0 tokens"]);
    }
}

/// A list skips a bounded number of pages of a deleted account per request, and continues after them.
#[tokio::test]
async fn a_list_of_pages_continues_after_the_pages_of_a_deleted_account() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        let root = app.admin("root@example.org").await;
        app.post("/page/", &root, &json!({ "title": "before", "body": "" })).await;
        app.user("ada@example.org").await;
        seed(&app.database, 0, 12_000).await;
        app.post("/page/", &root, &json!({ "title": "after", "body": "" })).await;
        block_cleanups(&app.database).await;
        assert_eq!(app.delete("/users/2", &root).await.status, 204);
        let (mut titles, mut after, mut parts) = (Vec::new(), json!(0), 0);
        while !after.is_null() {
            let list = app.get(&format!("/page/?size=5&after={after}"), &root).await;
            titles.extend(list.body["items"].as_array().unwrap().iter().map(|page| page["title"].clone()));
            after = list.body["next"].clone();
            parts += 1;
        }
        assert_eq!((titles, parts), (vec![json!("before"), json!("after")], 3));
        let first = app.get("/page/", &root).await;
        assert_eq!((first.status, &first.body["items"][0]["title"]), (200, &json!("before")), "{first:?}");
        unblock_cleanups(&app.database).await;
    }
}

/// PostgreSQL only: on SQLite, no other process can write during the transaction.
#[tokio::test]
async fn a_cleanup_locked_by_another_process_is_skipped() {
    use diesel::RunQueryDsl;

    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    let root = app.admin("root@example.org").await;
    app.user("ada@example.org").await;
    seed(&app.database, MANY, 0).await;
    block_cleanups(&app.database).await;
    assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
    let (locked, until_locked) = tokio::sync::oneshot::channel();
    let (finish, until_finish) = std::sync::mpsc::channel::<()>();
    let other = app.database.open();
    let other = tokio::spawn(async move {
        other
            .write(move |conn| {
                diesel::sql_query("SELECT 1 FROM account_cleanups FOR UPDATE").execute(conn)?;
                locked.send(()).unwrap();
                until_finish.recv().unwrap();
                Ok(())
            })
            .await
    });
    until_locked.await.unwrap();
    assert_eq!(open_process(&app).await.lifecycle().cleanups().run_once().await.unwrap(), 0);
    finish.send(()).unwrap();
    other.await.unwrap().unwrap();
    unblock_cleanups(&app.database).await;
    clean_up(&app).await;
}

/// The contents of SQLite's database file and write-ahead log.
fn file_contents(database: &Database) -> Vec<u8> {
    let file = database.url.strip_prefix("sqlite://").unwrap();
    ["", "-wal"].iter().flat_map(|suffix| std::fs::read(format!("{file}{suffix}")).unwrap_or_default()).collect()
}

#[tokio::test]
async fn data_of_a_deleted_account_is_erased_from_the_files_of_sqlite() {
    let app = App::start(Backend::Sqlite, Profile::Rfc).await.unwrap();
    for (email, pages) in [("small@example.org", 0), ("large@example.org", MANY)] {
        let user = app.user(email).await;
        if pages > 0 {
            seed(&app.database, 0, pages).await;
        }
        let edit = json!({ "surname": "Personally", "website": "https://personal.example.org" });
        assert_eq!(app.patch("/me", &user, &edit).await.status, 200);
        for number in 0..5 {
            let body = "my own words ".repeat(number * 500 + 1);
            app.post("/page/", &user, &json!({ "title": "my own title", "body": body })).await;
        }
        app.post("/me/keys", &user, &json!({ "name": "my own key", "scopes": [] })).await;
        let hash = app.database.rows(format!("SELECT hashed_password AS row FROM users WHERE email = '{email}'")).await;
        let personal =
            [email, "Personally", "personal.example.org", &hash[0], "my own words", "my own title", "my own key"];
        let is_stored =
            |text: &str| file_contents(&app.database).windows(text.len()).any(|bytes| bytes == text.as_bytes());
        for text in personal {
            assert!(is_stored(text), "{text} is stored");
        }
        assert_eq!(app.delete("/me", &user).await.status, 204);
        clean_up(&app).await;
        let process = open_process(&app).await;
        while !process.lifecycle().cleanups().erase().await.unwrap() {
            tokio::task::yield_now().await;
        }
        for text in personal {
            assert!(!is_stored(text), "{text} is erased");
        }
    }
}

/// Stores a cleanup of a kind that this version does not know, so that each attempt to continue it fails.
async fn add_unknown_cleanup(database: &Database) {
    database
        .execute(
            "INSERT INTO account_cleanups (user_id, kind, entry_id, ended_at, key_after, key_through, keys, objects)
             VALUES (1, 'unknown', 1, '2026-01-01 00:00:00', 0, 0, 0, 'pages 17 3')",
        )
        .await;
}

specify! {
    async fn a_cleanup_that_fails_does_not_delay_the_others(app: App) {
        let root = app.admin("root@example.org").await;
        app.user("ada@example.org").await;
        seed(&app.database, MANY, 0).await;
        add_unknown_cleanup(&app.database).await;
        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
        let process = open_process(&app).await;
        loop {
            let error = process.lifecycle().cleanups().run_once().await.unwrap_err();
            assert!(error.to_string().contains("unknown kind of cleanup"), "{error}");
            if app.database.number("SELECT count(*) FROM account_cleanups").await == 1 {
                break;
            }
        }
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").await, 0);
    }

    async fn no_cleanup_continues_while_the_schema_is_of_a_newer_version(app: App) {
        let root = app.admin("root@example.org").await;
        app.user("ada@example.org").await;
        seed(&app.database, MANY, 0).await;
        let process = open_process(&app).await;
        app.database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('20991231235959')").await;
        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
        assert_eq!(process.lifecycle().cleanups().run_once().await.unwrap(), 0);
        assert_eq!(app.database.number("SELECT count(*) FROM account_cleanups").await, 1);
        app.database.execute("DELETE FROM __diesel_schema_migrations WHERE version = '20991231235959'").await;
        clean_up(&app).await;
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").await, 0);
    }

    async fn an_unfinished_cleanup_keeps_its_progress_when_its_migration_is_reverted(app: App) {
        add_unknown_cleanup(&app.database).await;
        let db = app.database.open();
        while !db.migrate_down(true).await.unwrap().unwrap().name.contains("owned_objects") {}
        let progress = "SELECT page_after || ' ' || pages AS row FROM account_cleanups";
        assert_eq!(app.database.rows(progress).await, ["17 3"]);
        db.migrate_up().await.unwrap();
        assert_eq!(app.database.rows("SELECT objects AS row FROM account_cleanups").await, ["pages 17 3"]);
    }
}
