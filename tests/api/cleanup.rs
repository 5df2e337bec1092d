//! Accounts that own so much that a change cannot touch every row: what it ends is ended at once, and the rows follow.

use latchkey::config::Settings;
use latchkey::server;
use latchkey::service::Service;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::program::{latchkey, out, run};
use crate::support::{App, Backend, Credential, Profile, specify};

/// More than a change takes along by itself.
const MANY: usize = 250;

/// That many live keys which user 2 issued, half of them with a scope of Latchkey's own, and that many pages.
async fn seed(database: &Database, keys: usize, pages: usize) {
    let numbers =
        |count: usize| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let then = "'2026-01-01 00:00:00'";
    if keys > 0 {
        let scopes = "CASE WHEN i % 2 = 0 THEN 'pages:read' ELSE '' END";
        database
            .execute(format!(
                "{} INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, digest, created_at, order_id)
                     SELECT 2, TRUE, 'sold key', {scopes}, 'translate:use', 'digest ' || i, {then}, 'seeded ' || i FROM n",
                numbers(keys)
            ))
            .await;
    }
    if pages > 0 {
        database
            .execute(format!(
                "{} INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by)
                     SELECT 2, 'title', 'body', 3, {then}, {then}, 2 FROM n",
                numbers(pages)
            ))
            .await;
    }
}

/// Nothing goes on in the background until it is let.
async fn hold(database: &Database) {
    let triggers = match database.backend {
        Backend::Sqlite => ["UPDATE", "DELETE"].map(|change| {
            format!(
                "CREATE TRIGGER held_{change} BEFORE {change} ON account_cleanups
                 BEGIN SELECT RAISE(ABORT, 'held'); END;"
            )
        }),
        Backend::Postgres => [
            "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'held'; END $$;"
                .into(),
            "CREATE TRIGGER held BEFORE UPDATE OR DELETE ON account_cleanups FOR EACH ROW EXECUTE FUNCTION held();"
                .into(),
        ],
    };
    database.execute(triggers.concat()).await;
}

async fn release(database: &Database) {
    database
        .execute(match database.backend {
            Backend::Sqlite => "DROP TRIGGER held_UPDATE; DROP TRIGGER held_DELETE",
            Backend::Postgres => "DROP TRIGGER held ON account_cleanups; DROP FUNCTION held",
        })
        .await;
}

/// Another process on the app's database, at the app's time, which does nothing by itself.
async fn process(app: &App) -> Service {
    let settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Does what is left to do, unless the app's own background does.
async fn clean_up(app: &App) {
    let process = process(app).await;
    while app.database.number("SELECT count(*) FROM account_cleanups").await > 0 {
        process.clean_up().await.unwrap();
    }
}

/// Who acted by what, in which request.
fn maker(entry: &Value) -> [&Value; 6] {
    ["actor", "user", "credential", "role", "scopes", "request_id"].map(|member| &entry[member])
}

async fn entries_of(app: &App, reader: &Credential, action: &str) -> Vec<Value> {
    app.trail(reader, &format!("action={action}")).await
}

specify! {
    async fn every_key_of_a_disabled_account_is_dead_at_once_however_many_there_are(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        seed(&app.database, MANY, 0).await;
        let order = json!({ "name": "k", "scopes": ["pages:read"], "order": "1" });
        let issued = app.post("/keys", &ada, &order).await;
        let key = Credential::Token(issued.text_of("key"));
        let claim = app.post("/keys", &ada, &json!({ "name": "k", "scopes": [], "delivery": "claim" })).await;
        let claim = json!({ "claim": claim.text_of("claim") });
        assert_eq!(app.get("/protected-route", &key).await.status, 200, "it is remembered");

        hold(&app.database).await;
        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
        let disabled = entries_of(&app, &root, "user.disable").await.remove(0);
        assert_eq!(disabled["detail"], "1 token, 0 own keys, others are counted later");
        let live = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL";
        assert_eq!(app.database.number(live).await, 252, "no row of a key was touched");
        let is_dead = async || {
            app.get("/protected-route", &key).await.assert_error(app.expected.bad_token_header, "invalid_token");
            let known = app.request("POST", "/introspect").credential(&root).form(&[("token", key.secret())]).send().await;
            assert_eq!(known.body, json!({ "active": false }));
            app.post("/keys/claim", &Credential::None, &claim).await.assert_error(410, "claim_revoked");
        };
        is_dead().await;

        assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": false })).await.status, 200);
        is_dead().await;
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
        assert!(ended_at.is_string() && listed.iter().all(|key| key["revoked_at"] == *ended_at), "all at one time");
        let again = app.post("/keys", &ada, &order).await;
        assert_eq!((again.status, &again.body["id"], &again.body["revoked_at"]), (200, &issued.body["id"], ended_at));
        assert_eq!(app.get("/keys?order=1", &ada).await.body["items"][0]["revoked_at"], *ended_at);
        let revoked = entries_of(&app, &root, "key.revoke").await.len();
        assert_eq!(app.delete(&format!("/keys/{}", issued.body["id"]), &ada).await.status, 204, "again is no harm");
        assert_eq!(entries_of(&app, &root, "key.revoke").await.len(), revoked);
        let new = app.post("/keys", &ada, &json!({ "name": "new", "scopes": ["pages:read"] })).await;
        let new = Credential::Token(new.text_of("key"));

        release(&app.database).await;
        clean_up(&app).await;
        is_dead().await;
        assert_eq!(app.get("/protected-route", &new).await.status, 200, "what was made after that lives");
        assert_eq!(app.database.number(live).await, 1);
        let row = "SELECT DISTINCT CAST(revoked_at AS TEXT) AS row FROM api_keys WHERE revoked_at IS NOT NULL";
        assert_eq!(app.database.rows(row).await.len(), 1, "the time is that of the change");
        let told = entries_of(&app, &root, "key.revoke").await;
        let mut targets: Vec<&str> = told.iter().map(|entry| entry["target"].as_str().unwrap()).collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!((told.len(), targets.len()), (MANY + 2, MANY + 2), "each key has one entry");
        let summary = entries_of(&app, &root, "user.cleanup").await.remove(0);
        assert_eq!((&summary["detail"], &summary["target"]), (&json!("252 issued keys"), &json!("user:2")));
        for entry in told.iter().chain([&summary]) {
            assert_eq!((maker(entry), &entry["subject"]), (maker(&disabled), &json!(2)));
        }
    }

    async fn a_new_password_ends_every_key_that_acts_for_its_user_and_no_other(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        seed(&app.database, 2 * MANY, 0).await;
        let key = async |scope: &str| {
            let issued = app.post("/keys", &ada, &json!({ "name": "k", "scopes": [scope] })).await;
            Credential::Token(issued.text_of("key"))
        };
        let (acting, foreign) = (key("pages:read").await, key("translate:use").await);
        hold(&app.database).await;
        let change = json!({ "current_password": PASSWORD, "new_password": "another password" });
        assert_eq!(app.put("/me/password", &ada, &change).await.status, 204);
        let check = async || {
            app.get("/protected-route", &acting).await.assert_error(app.expected.bad_token_header, "invalid_token");
            assert_eq!(app.get("/protected-route", &foreign).await.status, 200);
        };
        check().await;
        release(&app.database).await;
        clean_up(&app).await;
        check().await;
        let left = app.database.number("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL").await;
        assert_eq!(left, i64::try_from(MANY).unwrap() + 1, "those with scopes of others");
        let summary = entries_of(&app, &root, "user.cleanup").await.remove(0);
        assert_eq!((&summary["detail"], &summary["actor"]), (&json!("251 issued keys"), &json!("user:2")));
        let again = app.patch("/users/2", &root, &json!({ "disabled": true })).await;
        assert_eq!(again.status, 200);
        clean_up(&app).await;
        assert_eq!(entries_of(&app, &root, "user.cleanup").await[0]["detail"], "251 issued keys", "the others");
    }

    async fn a_deleted_account_is_gone_at_once_however_much_it_owned(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.admin("ada@example.org").await;
        seed(&app.database, MANY, MANY).await;
        let key = app.post("/keys", &ada, &json!({ "name": "k", "scopes": ["pages:read"] })).await.text_of("key");
        app.post("/page/", &root, &json!({ "title": "t", "body": "of somebody else" })).await;
        hold(&app.database).await;
        assert_eq!(app.delete("/me", &ada).await.status, 204);

        assert_eq!(app.database.number("SELECT count(*) FROM pages").await, 251, "no row of a page was touched");
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
        assert_eq!(app.register("ada@example.org").await.body["id"], 3, "the address is free");

        release(&app.database).await;
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
            assert_eq!(maker(entry), maker(deleted));
        }
        assert_eq!(app.get("/page/200/history", &root).await.body["items"][0]["action"], "page.delete");
    }

    async fn who_is_deleted_while_the_keys_of_a_disabled_account_are_counted_leaves_every_key_counted_once(app: App) {
        let root = app.admin("root@example.org").await;
        app.admin("ada@example.org").await;
        seed(&app.database, MANY, 3).await;
        hold(&app.database).await;
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
        release(&app.database).await;
        clean_up(&app).await;
        let summaries = app.trail(&root, "action=user.cleanup&order=oldest").await;
        let told: Vec<&Value> = summaries.iter().map(|entry| &entry["detail"]).collect();
        assert_eq!(told, ["250 issued keys", "0 issued keys, 3 pages"]);
        assert_eq!(entries_of(&app, &root, "key.revoke").await.len(), MANY);
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys").await, 0);
    }

    async fn the_command_line_leaves_the_rows_of_a_large_account_to_a_server_and_says_so(app: App) {
        app.admin("root@example.org").await;
        app.admin("ada@example.org").await;
        seed(&app.database, MANY, MANY).await;
        hold(&app.database).await;
        let home = TempDir::new().unwrap();
        let user = |command: &str| {
            run(latchkey(home.path(), &["user", command, "ada@example.org"]).env("DATABASE_URL", &app.database.url))
        };
        for (command, said) in [("disable", "disabled\n"), ("delete", "deleted ada@example.org\n")] {
            let answer = user(command);
            assert!(out(&answer).ends_with(said), "{answer:?}");
            let note = String::from_utf8(answer.stderr).unwrap();
            assert!(note.contains("a running server records and removes the rest"), "{note}");
        }
        release(&app.database).await;
        clean_up(&app).await;
        let told = app.database.rows("SELECT DISTINCT actor AS row FROM audit_entries WHERE action IN ('key.revoke', 'page.delete', 'user.cleanup')").await;
        assert_eq!(told, ["command-line"]);
        assert_eq!(app.database.number("SELECT count(*) FROM users").await, 1);
    }

    async fn all_tokens_are_ended_part_by_part(app: App) {
        let columns = "(name, surname, email, email_key, website, hashed_password, created_at, updated_at)";
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
        let (then, name) = ("'2026-01-01 00:00:00'", "CAST(i AS TEXT)");
        app.database.execute(format!(
            "{numbers} INSERT INTO users {columns} SELECT 'Adaline', '', {name}, {name}, '', '', {then}, {then} FROM n;
             INSERT INTO access_tokens (user_id, access_token, scopes, created_at, expiration_date, sign_in_id)
                SELECT id, email_key, '*', {then}, '2099-01-01 00:00:00', 0 FROM users"
        )).await;
        let home = TempDir::new().unwrap();
        let revoke = || {
            out(&run(latchkey(home.path(), &["token", "revoke", "--all"]).env("DATABASE_URL", &app.database.url)))
        };
        assert_eq!(revoke(), "ended 1200 tokens\n");
        assert_eq!(revoke(), "ended 0 tokens\n");
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 0);
        let details = app.database.rows("SELECT detail AS row FROM audit_entries ORDER BY id").await;
        assert_eq!(details, ["500 tokens", "500 tokens", "200 tokens", "0 tokens"]);
    }
}

/// However many pages of a deleted account are still there, a list passes over a bounded number of them, and goes on.
#[tokio::test]
async fn a_list_of_pages_goes_on_behind_the_pages_of_a_deleted_account() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        let root = app.admin("root@example.org").await;
        app.post("/page/", &root, &json!({ "title": "before", "body": "" })).await;
        app.user("ada@example.org").await;
        seed(&app.database, 0, 12_000).await;
        app.post("/page/", &root, &json!({ "title": "after", "body": "" })).await;
        hold(&app.database).await;
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
        release(&app.database).await;
    }
}

/// On SQLite nobody else writes meanwhile.
#[tokio::test]
async fn what_another_process_is_at_is_left_to_it() {
    use diesel::RunQueryDsl;

    let Some(app) = App::start(Backend::Postgres, Profile::Rfc).await else { return };
    let root = app.admin("root@example.org").await;
    app.user("ada@example.org").await;
    seed(&app.database, MANY, 0).await;
    hold(&app.database).await;
    assert_eq!(app.patch("/users/2", &root, &json!({ "disabled": true })).await.status, 200);
    let (began, begins) = tokio::sync::oneshot::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let other = app.database.open();
    let other = tokio::spawn(async move {
        other
            .write(move |conn| {
                diesel::sql_query("SELECT 1 FROM account_cleanups FOR UPDATE").execute(conn)?;
                began.send(()).unwrap();
                ends.recv().unwrap();
                Ok(())
            })
            .await
    });
    begins.await.unwrap();
    assert_eq!(process(&app).await.clean_up().await.unwrap(), 0);
    end.send(()).unwrap();
    other.await.unwrap().unwrap();
    release(&app.database).await;
    clean_up(&app).await;
}

/// What SQLite's files hold.
fn files(database: &Database) -> Vec<u8> {
    let file = database.url.strip_prefix("sqlite://").unwrap();
    ["", "-wal"].iter().flat_map(|suffix| std::fs::read(format!("{file}{suffix}")).unwrap_or_default()).collect()
}

#[tokio::test]
async fn nothing_of_a_deleted_account_is_left_in_the_files_of_sqlite() {
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
        let found = |text: &str| files(&app.database).windows(text.len()).any(|bytes| bytes == text.as_bytes());
        for text in personal {
            assert!(found(text), "{text} is stored");
        }
        assert_eq!(app.delete("/me", &user).await.status, 204);
        clean_up(&app).await;
        let process = process(&app).await;
        while !process.erase().await.unwrap() {
            tokio::task::yield_now().await;
        }
        for text in personal {
            assert!(!found(text), "{text} is erased");
        }
    }
}
