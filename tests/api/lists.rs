//! No answer with a list grows without bound, whatever is stored.

use serde_json::{Value, json};

use crate::support::{App, Backend, Profile};

/// Items take 256 KiB at most, and what is around them little.
const ANSWER_MAX: usize = 257 * 1024;

/// Makes the largest rows that there can be, or larger ones, of everything that is listed.
async fn fill(app: &App) {
    let many = |rows: i64, insert: &str| {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) {insert} FROM n")
    };
    let repeated = |text: &str, times: i64| match app.database.backend {
        Backend::Postgres => format!("repeat('{text}', {times})"),
        Backend::Sqlite => format!("replace(hex(zeroblob({times})), '00', '{text}')"),
    };
    let now = "'2026-11-25 20:00:00'";
    let name = repeated("\u{1f600}", 255);
    let scopes = repeated("a:bcdefghijklmnopqrstuvwxyz ", 460);
    let metadata = format!("'{{\"x\":\"' || {} || '\"}}'", repeated("y", 4080));
    let key = |issued: bool, order: &str, foreign: &str, metadata: &str| {
        format!(
            "INSERT INTO api_keys (owner_id, issued, name, scopes, foreign_scopes, order_id, metadata, created_at, expires_at) \
         SELECT 1, {issued}, {name}, 'pages:read', {foreign}, {order}, {metadata}, {now}, {now}"
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

async fn every_list_is_bounded(app: App) {
    let root = app.admin("root@example.org").await;
    fill(&app).await;
    let document = app.get("/openapi.json", &root).await.body;
    let mut lists = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let reference = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let schema = reference.and_then(|reference| document.pointer(reference.strip_prefix('#').unwrap()));
        if schema.is_none_or(|schema| schema["properties"]["items"]["type"] != "array") {
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
            assert!(answer.text.len() <= ANSWER_MAX, "{path}: {} bytes", answer.text.len());
            let ids: Vec<i64> =
                answer.body["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
            assert!(!ids.is_empty(), "{path}");
            seen.extend(ids);
            next = answer.body["next"].clone();
        }
        let mut once = seen.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{path} shows nothing twice");
        lists.push((path, seen.len()));
    }
    let audit = usize::try_from(app.database.number("SELECT count(*) FROM audit_entries").await).unwrap();
    lists.sort();
    let expected = [
        ("/audit", audit),
        ("/keys", 101),
        ("/me/activity", audit),
        ("/me/keys", 99),
        ("/page/", 30),
        ("/page/1/history", 300),
        ("/users", 502),
    ];
    assert_eq!(lists, expected.map(|(path, count)| (path.to_owned(), count)));

    let numbered = app.get("/page/?size=100", &root).await;
    assert!(numbered.text.len() <= ANSWER_MAX, "{} bytes", numbered.text.len());
    assert_eq!(numbered.body["items"].as_array().map(Vec::len), Some(30));
}

async fn a_scan_is_bounded(app: App) {
    let root = app.admin("root@example.org").await;
    app.register("ada@example.org").await;
    // A statement has a second and a half.
    for _ in 0..7 {
        let entries = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                       INSERT INTO audit_entries (at, actor, user_id, credential, scopes, action, target, changed, outcome) \
                       SELECT '2026-11-25 20:00:00', 'user:1', 1, 'token:1', '', 'page.update', 'page:7', '', 'denied' FROM n";
        app.database.execute(entries).await;
    }
    let walk = async |path: &str| {
        let (mut found, mut answers, mut next) = (Vec::<Value>::new(), 0, json!(0));
        while !next.is_null() {
            let list = app.get(&format!("{path}&after={next}"), &root).await;
            assert_eq!(list.status, 200, "{path}: {list:?}");
            found.extend(list.body["items"].as_array().unwrap().iter().cloned());
            (answers, next) = (answers + 1, list.body["next"].clone());
        }
        (found, answers)
    };
    for (query, count, answers) in [
        ("action=user.register", 2, 3),
        ("action=user.register&order=oldest", 2, 3),
        ("outcome=success&user=1", 1, 3),
        ("actor=user:1&outcome=failure", 0, 3),
        ("target=page:7&action=page.create", 0, 3),
        ("since=2030-01-01T00:00:00Z", 0, 3),
        ("target=user:2", 1, 1),
    ] {
        let (found, asked) = walk(&format!("/audit?{query}")).await;
        assert_eq!((found.len(), asked), (count, answers), "{query}: {found:?}");
    }
    app.get("/page/8/history?limit=1", &root).await.assert_error(404, "not_found");
    let lines =
        app.request("GET", "/audit?action=user.register").credential(&root).header("Accept", "application/x-ndjson");
    assert_eq!(lines.send().await.text.lines().count(), 2, "a stream shows all");
}

/// One server on each database: what is stored does not depend on the profile, and there is much of it.
async fn on_each_database(check: impl AsyncFn(App)) {
    for (backend, profile) in [(Backend::Sqlite, Profile::Fastapi), (Backend::Postgres, Profile::Rfc)] {
        if let Some(app) = App::start(backend, profile).await {
            check(app).await;
        }
    }
}

#[tokio::test]
async fn every_list_of_the_document_is_bounded_in_bytes_and_shows_all_there_is() {
    on_each_database(every_list_is_bounded).await;
}

#[tokio::test]
async fn a_filter_without_an_index_looks_at_a_bounded_part_of_the_trail() {
    on_each_database(a_scan_is_bounded).await;
}
