//! Checks that every route, scope, action and owned object is also registered in the documents, the tests and the
//! database layer. Each failure names the file and the line to change.

use std::collections::BTreeSet;

use latchkey::config::Settings;
use latchkey::db::{GRANTS, OWNED};
use latchkey::domain::audit::Action;
use latchkey::http::routes::document;
use serde_json::Value;

use crate::support::documents::{assert_complete, place_after, read};
use crate::support::requests::{Callers, REQUESTS};
use crate::support::specify_mailing;
use crate::support::tour::{Operation, operations};

/// Tables with a column `owner_id` that are not in [`OWNED`]. API keys also end without the account, and issue requests
/// are deleted with their key.
const OWNED_OTHERWISE: [&str; 2] = ["api_keys", "issue_requests"];

/// The names of the tables of `src/db/schema.rs` and `src/db/schema/mail.rs`, and whether each has a column `owner_id`.
fn tables() -> Vec<(String, bool)> {
    let mut tables = Vec::new();
    let text = [read("src/db/schema.rs"), read("src/db/schema/mail.rs")].concat();
    for line in text.lines().map(str::trim) {
        if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            tables.push((name.to_owned(), false));
        } else if line == "owner_id -> BigInt," {
            tables.last_mut().unwrap().1 = true;
        }
    }
    assert!(tables.len() > 5, "src/db/schema.rs has more tables: {tables:?}");
    assert!(tables.iter().any(|(_, has_owner)| *has_owner), "some tables have an owner: {tables:?}");
    tables
}

fn tables_with_owners() -> BTreeSet<String> {
    tables().into_iter().filter(|(_, has_owner)| *has_owner).map(|(table, _)| table).collect()
}

#[test]
fn every_table_has_its_grants() {
    let place = place_after("src/db/schema.rs", "audit_entries: \"SELECT, INSERT\",");
    let missing = tables().into_iter().map(|(table, _)| table);
    let missing = missing.filter(|table| !GRANTS.iter().any(|(granted, _)| granted == table));
    let missing = missing.map(|table| format!("{place}: add `{table}: \"SELECT, INSERT, UPDATE, DELETE\",`"));
    assert_complete(&missing.collect::<Vec<_>>());
}

#[test]
fn every_table_with_an_owner_is_deleted_with_the_owner() {
    let declared: BTreeSet<&str> = OWNED.iter().map(|owned| owned.table).chain(OWNED_OTHERWISE).collect();
    let place = place_after("src/db/mod.rs", "pub const OWNED");
    let missing = tables_with_owners().into_iter().filter(|table| !declared.contains(table.as_str()));
    let missing = missing.map(|table| format!("{place}: add `{table}::OWNED` to the line before"));
    assert_complete(&missing.collect::<Vec<_>>());
}

#[test]
fn every_route_has_a_request_and_every_request_a_route() {
    let served: BTreeSet<String> = operations().iter().map(Operation::name).collect();
    let listed: BTreeSet<String> = REQUESTS.iter().map(|entry| entry.0.to_owned()).collect();
    assert_eq!(listed.len(), REQUESTS.len(), "tests/api/support/requests.rs has one request for each route");
    let place = place_after("tests/api/support/requests.rs", "/history\", Member");
    let missing = served.difference(&listed).map(|route| format!("{place}: add a request for {route}"));
    let surplus = listed.difference(&served).map(|route| format!("tests/api/support/requests.rs: remove {route}"));
    assert_complete(&missing.chain(surplus).collect::<Vec<_>>());
}

/// Routes that `docs/forward-auth.md` and `docs/operations.md` describe.
const DESCRIBED_ELSEWHERE: [&str; 3] = ["GET /authz", "GET /health/live", "GET /health/ready"];

#[test]
fn every_route_is_in_the_page_on_http() {
    let page = read("docs/http.md");
    let place = place_after("docs/http.md", "| `GET /page/{id}/history` |");
    let missing = operations().into_iter().map(|operation| operation.name());
    let missing = missing.filter(|route| !DESCRIBED_ELSEWHERE.contains(&route.as_str()));
    let missing = missing.filter(|route| !page.contains(&format!("`{route}`")));
    assert_complete(&missing.map(|route| format!("{place}: add a row for `{route}`")).collect::<Vec<_>>());
}

#[test]
fn every_action_has_a_row_in_the_page_on_the_audit_trail() {
    let page = read("docs/audit.md");
    let place = place_after("docs/audit.md", "| `page.delete` |");
    let missing = Action::ALL.iter().filter(|action| !page.contains(&format!("\n| `{}` |", action.name())));
    let missing = missing.map(|action| format!("{place}: add a row for `{}`", action.name()));
    assert_complete(&missing.collect::<Vec<_>>());
}

#[test]
fn every_kind_of_owned_target_is_in_the_pages_on_http_and_the_audit_trail() {
    let mut missing = Vec::new();
    for owned in OWNED {
        let target = (owned.target)(1).to_string();
        let kind = target.strip_suffix(":1").unwrap();
        for (file, near, name) in [
            ("docs/audit.md", "`page:ID`", format!("`{kind}:ID`")),
            ("docs/http.md", "`page:<id>`", format!("`{kind}:<id>`")),
        ] {
            if !read(file).contains(&name) {
                missing.push(format!("{}: add {name} to the line before", place_after(file, near)));
            }
        }
    }
    assert_complete(&missing);
}

#[test]
fn every_tag_of_an_operation_is_described() {
    let document: Value = serde_json::from_str(document(&Settings::defaults().unwrap()).json()).unwrap();
    let described: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let used: BTreeSet<&str> =
        items.flat_map(|operation| operation["tags"].as_array().unwrap()).map(|tag| tag.as_str().unwrap()).collect();
    let place = place_after("src/http/routes.rs", "page::resource(),");
    let missing = used.difference(&described);
    let missing = missing.map(|tag| format!("{place}: add the `resource()` with the tag {tag}"));
    let surplus = described.difference(&used).map(|tag| format!("no operation has the tag {tag}"));
    assert_complete(&missing.chain(surplus).collect::<Vec<_>>());
}

#[test]
fn the_items_of_every_list_have_a_schema_of_their_own() {
    let document: Value = serde_json::from_str(document(&Settings::defaults().unwrap()).json()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let lists: Vec<(&String, &Value)> =
        schemas.iter().filter(|(_, schema)| schema["properties"]["items"]["type"] == "array").collect();
    assert!(lists.len() > 5, "the document has more lists: {lists:?}");
    let inline = lists.iter().filter(|(_, schema)| schema["properties"]["items"]["items"]["$ref"].is_null());
    let missing = inline.map(|(name, _)| format!("add {name} and its items to `lists` of the `resource()` next to it"));
    assert_complete(&missing.collect::<Vec<_>>());
}

#[test]
fn every_grant_is_in_the_page_on_operations() {
    let page = read("docs/operations.md");
    let granted: BTreeSet<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("GRANT ")?.strip_suffix(" TO serve;")?.split_once(" ON "))
        .flat_map(|(privileges, tables)| tables.split(", ").map(move |table| (table, privileges)))
        .collect();
    let place = place_after("docs/operations.md", "ON account_cleanups TO serve;");
    let missing = GRANTS.iter().filter(|grant| !granted.contains(*grant));
    let missing = missing.map(|(table, privileges)| format!("{place}: add `GRANT {privileges} ON {table} TO serve;`"));
    assert_complete(&missing.collect::<Vec<_>>());
}

specify_mailing! {
    async fn owned_objects_are_deleted_with_their_user_and_have_audit_entries(app: App) {
        let root = app.admin("root@example.org").await;
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        let callers = Callers { client: &app, member: &ada, admin: &root, email: "tim@example.org" };
        let others = Callers { member: &eve, ..callers };
        let create_routes: BTreeSet<&str> = REQUESTS.iter().map(|entry| entry.2).filter(|route| !route.is_empty()).collect();
        for route in create_routes {
            for callers in [&callers, &others] {
                let answer = callers.permitted(route).await.send().await;
                assert_eq!(answer.status, 201, "{route}: {answer:?}");
            }
        }
        let owned_by = async |table: &str, user: i64| {
            app.database.number(format!("SELECT count(*) FROM {table} WHERE owner_id = {user}")).await
        };
        for owned in OWNED {
            let place = "tests/api/support/requests.rs: name a route that creates a row of";
            assert_eq!(owned_by(owned.table, 2).await, 1, "{place} {}", owned.table);
        }
        assert_eq!(app.delete("/me", &ada).await.status, 204);
        for table in tables_with_owners() {
            assert_eq!(owned_by(&table, 2).await, 0, "{table}");
        }
        let entry = &app.trail(&root, "action=user.delete").await[0];
        for owned in OWNED {
            assert_eq!(owned_by(owned.table, 3).await, 1, "{} of other users remain", owned.table);
            let detail = entry["detail"].as_str().unwrap();
            assert!(detail.contains(&format!(", 1 {}", owned.table)), "{detail}");
            let entries = app.trail(&root, &format!("action={}", owned.action.name())).await;
            let entry = entries.first().unwrap_or_else(|| panic!("{} has no entry", owned.action.name()));
            let kind = (owned.target)(1).to_string();
            assert!(entry["target"].as_str().unwrap().starts_with(kind.trim_end_matches('1')), "{entry}");
            assert_eq!((&entry["actor"], &entry["subject"]), (&"user:2".into(), &2.into()), "{entry}");
        }
    }
}
