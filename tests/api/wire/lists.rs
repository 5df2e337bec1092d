//! Responses with lists have a bounded size, whatever the database contains.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{App, Backend, Credential, Profile, requests};

/// The largest response in bytes: 256 KiB of items, and some space for the members around them.
const RESPONSE_MAX: usize = 257 * 1024;

/// Inserts rows of at least the largest possible size into each listed table.
async fn fill(app: &App) {
    let many = |rows: i64, insert: &str| {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) {insert} FROM n")
    };
    let repeated = |text: &str, times: i64| match app.database.backend {
        Backend::Postgres => format!("repeat('{text}', {times})"),
        Backend::Sqlite => format!("replace(hex(zeroblob({times})), '00', '{text}')"),
    };
    let (now, later) = ("'2026-11-25 20:00:00'", "'2099-01-01 00:00:00'");
    let name = repeated("\u{1f600}", 255);
    let scopes = repeated("a:bcdefghijklmnopqrstuvwxyz ", 460);
    let metadata = format!("'{{\"x\":\"' || {} || '\"}}'", repeated("y", 4080));
    let key = |issued: bool, order: &str, external: &str, metadata: &str| {
        format!(
            "INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, order_id, metadata, created_at, expires_at) \
         SELECT 1, {issued}, {name}, 'pages:read', {external}, {order}, {metadata}, {now}, {now}"
        )
    };
    for (rows, insert) in [
        (
            501,
            format!(
                "INSERT INTO users (name, surname, email, email_key, website, hashed_password, created_at, updated_at) \
             SELECT {name}, {name}, {} || i, i || '@', {}, 'x', {now}, {now}",
                repeated("e", 250),
                repeated("\\", 255)
            ),
        ),
        (
            10,
            format!(
                "INSERT INTO sessions (user_id, digest, created_at, last_used_at, expires_at, client, user_agent) \
             SELECT 1, CAST(i AS TEXT), {now}, {later}, {later}, {}, {name}",
                repeated("c", 45)
            ),
        ),
        (
            501,
            format!(
                "INSERT INTO invitations (email, email_key, role, locale, created_at, expires_at) \
             SELECT {} || i, i || '@', {}, 'en', {now}, {now}",
                repeated("e", 250),
                repeated("r", 32)
            ),
        ),
        (99, key(false, "NULL", "''", "NULL")),
        (101, key(true, "CAST(i AS TEXT)", &scopes, &metadata)),
        (
            30,
            format!(
                "INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by) \
             SELECT 1, {}, {}, 1, {now}, {now}, 1",
                repeated("\u{1}", 200),
                repeated("\n", 39_000)
            ),
        ),
        (
            300,
            format!(
                "INSERT INTO audit_entries (at, actor, user_id, credential, role, scopes, action, target, subject_id, changed, outcome, \
             detail, client, request_id) \
             SELECT {now}, 'user:1', 1, 'token:1', 'admin', 'pages:read pages:write', 'page.update', 'page:1', 1, 'title body', 'success', \
             {scopes}, {}, {}",
                repeated("c", 45),
                repeated("r", 128)
            ),
        ),
    ] {
        app.database.execute(many(rows, &insert)).await;
    }
}

/// Lists that [`fill`] fills.
const FILLED: [&str; 9] = [
    "/audit",
    "/keys",
    "/me/activity",
    "/me/keys",
    "/me/sessions",
    "/page/",
    "/page/1/history",
    "/users",
    "/users/invitations",
];
/// The number of objects in each other list.
const ITEMS_OF_OTHERS: usize = 150;

/// Whether the response to GET has `items`, and is not a series of times: it has no objects, and a test of its own.
fn returns_items(document: &Value, item: &Value) -> bool {
    let reference = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].as_str();
    let schema = reference.and_then(|reference| document.pointer(reference.strip_prefix('#').unwrap()));
    schema.is_some_and(|schema| {
        schema["properties"]["items"]["type"] == "array" && schema["properties"]["step"].is_null()
    })
}

/// Creates the largest objects that the document permits, with the route that creates the objects of the list.
async fn fill_by_route(app: &App, document: &Value, list: &str, root: &Credential) {
    let create = requests::entry(&format!("GET {list}")).2;
    let (method, path) =
        create.split_once(' ').unwrap_or_else(|| panic!("GET {list} names no route that creates objects"));
    let mut body = requests::json_of(create);
    let content = &document["paths"][path][method.to_lowercase()]["requestBody"]["content"]["application/json"];
    let reference = content["schema"]["$ref"].as_str().unwrap();
    let schema = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
    for (property, rules) in schema["properties"].as_object().unwrap() {
        if let Some(length) = rules["maxLength"].as_u64() {
            // It begins with the valid value, because a value may have to match a pattern.
            let valid = body[property].as_str().unwrap_or_default();
            let rest = usize::try_from(length).unwrap() - valid.chars().count();
            body[property] = json!([valid, &"\u{1f600}".repeat(rest)].concat());
        }
    }
    for _ in 0..ITEMS_OF_OTHERS {
        let answer = app.post(path, root, &body).await;
        assert_eq!(answer.status, 201, "{create}: {answer:?}");
    }
}

async fn every_list_is_bounded(app: App) {
    let root = app.admin("root@example.org").await;
    let document = app.get("/openapi.json", &root).await.body;
    let (mut lists, mut others) = (Vec::new(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        let list = path.replace("{id}", "1");
        if returns_items(&document, item) && !FILLED.contains(&list.as_str()) {
            fill_by_route(&app, &document, path, &root).await;
            others.insert(list);
        }
    }
    fill(&app).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !returns_items(&document, item) {
            continue;
        }
        let parameter = |name: &str| {
            let mut parameters = item["get"]["parameters"].as_array().into_iter().flatten();
            parameters.find(|parameter| parameter["name"] == name).cloned()
        };
        let size = ["limit", "size"].into_iter().find_map(parameter);
        let size = size.map(|size| format!("{}={}", size["name"].as_str().unwrap(), size["schema"]["maximum"]));
        let (size, path) = (size.unwrap_or_default(), path.replace("{id}", "1"));
        let (mut seen, mut next) = (Vec::new(), json!(0));
        while !next.is_null() {
            let after = if parameter("after").is_some() { format!("&after={next}") } else { String::new() };
            let answer = app.get(&format!("{path}?{size}{after}"), &root).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.text.len() <= RESPONSE_MAX, "{path}: {} bytes", answer.text.len());
            let ids: Vec<i64> =
                answer.body["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
            assert!(!ids.is_empty(), "{path}");
            seen.extend(ids);
            next = answer.body["next"].clone();
        }
        let mut distinct = seen.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), seen.len(), "{path} returns no item twice");
        lists.push((path, seen.len()));
    }
    let audit = usize::try_from(app.database.number("SELECT count(*) FROM audit_entries").await).unwrap();
    lists.sort();
    let expected = [
        ("/audit", audit),
        ("/keys", 101),
        ("/me/activity", audit),
        ("/me/keys", 99),
        ("/me/sessions", 10),
        ("/page/", 30),
        ("/page/1/history", 300),
        ("/users", 502),
        ("/users/invitations", 501),
    ];
    for (path, count) in lists.iter().filter(|(path, _)| others.contains(path)) {
        assert_eq!(*count, ITEMS_OF_OTHERS, "{path} returns every item");
    }
    lists.retain(|(path, _)| !others.contains(path));
    assert_eq!(lists, expected.map(|(path, count)| (path.to_owned(), count)));

    let numbered = app.get("/page/?size=100", &root).await;
    assert!(numbered.text.len() <= RESPONSE_MAX, "{} bytes", numbered.text.len());
    assert_eq!(numbered.body["items"].as_array().map(Vec::len), Some(30));
}

async fn a_scan_is_bounded(app: App) {
    let root = app.admin("root@example.org").await;
    app.register("ada@example.org").await;
    // Several statements, because a statement times out after 1.5 s.
    for _ in 0..7 {
        let entries = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                       INSERT INTO audit_entries (at, actor, user_id, credential, scopes, action, target, changed, outcome) \
                       SELECT '2026-11-25 20:00:00', 'user:1', 1, 'token:1', '', 'page.update', 'page:7', '', 'denied' FROM n";
        app.database.execute(entries).await;
    }
    let read_all = async |path: &str| {
        let (mut found, mut requests, mut next) = (Vec::<Value>::new(), 0, json!(0));
        while !next.is_null() {
            let list = app.get(&format!("{path}&after={next}"), &root).await;
            assert_eq!(list.status, 200, "{path}: {list:?}");
            found.extend(list.body["items"].as_array().unwrap().iter().cloned());
            (requests, next) = (requests + 1, list.body["next"].clone());
        }
        (found, requests)
    };
    for (query, count, expected_requests) in [
        ("action=user.register", 2, 3),
        ("action=user.register&order=oldest", 2, 3),
        ("outcome=success&user=1", 1, 3),
        ("actor=user:1&outcome=failure", 0, 3),
        ("target=page:7&action=page.create", 0, 3),
        ("since=2030-01-01T00:00:00Z", 0, 1),
        ("until=2020-01-01T00:00:00Z&action=page.create", 0, 1),
        ("target=user:2", 1, 1),
    ] {
        let (found, requests) = read_all(&format!("/audit?{query}")).await;
        assert_eq!((found.len(), requests), (count, expected_requests), "{query}: {found:?}");
    }
    app.get("/page/8/history?limit=1", &root).await.assert_error(404, "not_found");
    let lines =
        app.request("GET", "/audit?action=user.register").credential(&root).header("Accept", "application/x-ndjson");
    assert_eq!(lines.send().await.text.lines().count(), 2, "the stream contains every entry");
}

/// Runs the check on each database, in one status profile only: the profile does not affect lists, and filling them is
/// slow.
async fn on_each_database(check: impl AsyncFn(App)) {
    for (backend, profile) in [(Backend::Sqlite, Profile::Fastapi), (Backend::Postgres, Profile::Rfc)] {
        if let Some(app) = App::start(backend, profile).await {
            check(app).await;
        }
    }
}

#[tokio::test]
async fn every_documented_list_is_bounded_in_bytes_and_complete() {
    on_each_database(every_list_is_bounded).await;
}

#[tokio::test]
async fn a_filter_without_an_index_reads_a_bounded_part_of_the_trail() {
    on_each_database(a_scan_is_bounded).await;
}
