//! Every cell of the table in `docs/levels.md`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::app::{PASSWORD, registration};
use crate::support::client::Request;
use crate::support::tour::{Operation, operations};
use crate::support::{App, Credential, specify};

const CALLERS: [&str; 7] = ["anonymous", "member", "another member", "auditor", "admin", "service key", "sold key"];

/// Method, path, and what each of [`CALLERS`] gets.
struct Row {
    method: String,
    path: String,
    cells: Vec<String>,
}

fn table() -> Vec<Row> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/levels.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| Route |"));
    assert_eq!(cells(lines.next().unwrap())[1..], CALLERS);
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let mut cells = cells(line);
        let route = cells.remove(0);
        let (method, path) = route.split_once(' ').unwrap();
        Row { method: method.to_owned(), path: path.to_owned(), cells }
    })
    .collect()
}

/// One caller of each kind, all of them new.
struct Cast {
    number: usize,
    callers: [Credential; 7],
    /// The ids of the service key and of the sold one.
    keys: [i64; 2],
}

impl Cast {
    async fn assemble(app: &App, number: usize) -> Self {
        let email = |name: &str| format!("{name}{number}@example.org");
        let admin = app.admin(&email("admin")).await;
        let (service_key, service_key_id) = app.key_of(&admin, &["keys:issue"]).await;
        let scopes = ["pages:read", "keys:read", "keys:write", "translate:use"];
        let sold = app.post("/keys", &admin, &json!({ "name": "sold", "scopes": scopes })).await;
        let callers = [
            Credential::None,
            app.user(&email("member")).await,
            app.user(&email("another")).await,
            app.user_of_role(&email("auditor"), "auditor").await,
            admin,
            service_key,
            Credential::Token(sold.text_of("key")),
        ];
        Self { number, callers, keys: [service_key_id, sold.body["id"].as_i64().unwrap()] }
    }

    /// What the trail calls a caller, who is known.
    async fn actor(&self, app: &App, caller: usize) -> String {
        if CALLERS[caller].ends_with(" key") {
            return format!("key:{}", self.keys[caller - 5]);
        }
        let me = app.get("/me", &self.callers[caller]).await;
        assert_eq!(me.status, 200, "{me:?}");
        format!("user:{}", me.body["id"])
    }

    fn member(&self) -> &Credential {
        &self.callers[1]
    }

    fn admin(&self) -> &Credential {
        &self.callers[4]
    }

    /// What the route takes, with objects that nobody has touched yet.
    async fn request(&self, app: &App, row: &Row, caller: usize) -> Request {
        let Row { method, path, .. } = row;
        let unique = format!("{}-{caller}", self.number);
        let new_id = |answer: crate::support::Answer| {
            assert_eq!(answer.status, 201, "{answer:?}");
            answer.body["id"].as_i64().unwrap()
        };
        let page = json!({ "title": "t", "body": "b" });
        let key = json!({ "name": "k", "scopes": [] });
        let id = if path.starts_with("/page/{id}") {
            new_id(app.post("/page/", self.member(), &page).await)
        } else if path.starts_with("/me/keys/{id}") {
            new_id(app.post("/me/keys", self.member(), &key).await)
        } else if path == "/keys/{id}" {
            new_id(app.post("/keys", self.admin(), &key).await)
        } else if path.starts_with("/users/{id}") {
            new_id(app.register(&format!("victim{unique}@example.org")).await)
        } else {
            0
        };
        let request = app.request(method, &path.replace("{id}", &id.to_string()));
        match (method.as_str(), path.as_str()) {
            ("POST", "/register") => request.json(&registration(&format!("new{unique}@example.org"))),
            ("POST", "/token") => {
                let email = format!("another{}@example.org", self.number);
                request.form(&[("grant_type", "password"), ("username", &email), ("password", PASSWORD)])
            }
            ("POST", "/revoke" | "/introspect") => request.form(&[("token", "lkt_unknown")]),
            ("PATCH", "/me") => request.json(&json!({ "website": "elsewhere" })),
            ("PUT", "/me/password") => {
                request.json(&json!({ "current_password": PASSWORD, "new_password": "another password" }))
            }
            ("POST", "/me/keys" | "/keys") => request.json(&key),
            ("PATCH", "/me/keys/{id}") => request.json(&json!({ "name": "renamed" })),
            ("POST", "/me/keys/{id}/rotate") => request.json(&json!({})),
            ("POST", "/keys/claim") => {
                let claimed = json!({ "name": "k", "scopes": [], "delivery": "claim" });
                let issued = app.post("/keys", self.admin(), &claimed).await;
                request.json(&json!({ "claim": issued.text_of("claim") }))
            }
            ("PATCH", "/users/{id}") => request.json(&json!({ "role": "auditor", "disabled": true })),
            ("POST" | "PUT" | "PATCH", "/page/" | "/page/{id}") => request.json(&page),
            ("GET" | "DELETE", _) => request,
            (method, path) => panic!("no body for {method} {path}"),
        }
    }
}

specify! {
    async fn every_role_gets_what_the_table_of_levels_says(app: App) {
        // Whatever the rows do to the admins of their casts, one is left.
        let root = app.admin("root@example.org").await;
        let mut denied = Vec::new();
        for (number, row) in table().iter().enumerate() {
            let cast = Cast::assemble(&app, number).await;
            // Their keys live as long as the admin, who therefore comes last.
            for caller in [0, 1, 2, 3, 5, 6, 4] {
                let cell = &row.cells[caller];
                let request = cast.request(&app, row, caller).await;
                let answer = request.credential(&cast.callers[caller]).send().await;
                let expected = if cell == "no" { app.expected.no_credential } else { cell.parse().unwrap() };
                assert_eq!(answer.status, expected, "{} {} as {}: {answer:?}", row.method, row.path, CALLERS[caller]);
                if cell == "403" || cell == "401" && caller != 0 {
                    denied.push((format!("{} {}", row.method, row.path), cast.actor(&app, caller).await));
                }
            }
        }
        let entries = app.trail(&root, "outcome=denied&order=oldest").await;
        assert_eq!(entries.len(), denied.len(), "each refusal of a known caller left an entry");
        let mut requests = 0;
        for (entry, (route, actor)) in entries.iter().zip(&denied) {
            assert_eq!(entry["actor"], *actor, "{route}: {entry}");
            if entry["action"] == "request" {
                assert_eq!(entry["target"], *route, "{entry}");
                requests += 1;
            }
        }
        assert!(2 * requests > denied.len(), "{requests} of {} were kept out of the route", denied.len());
    }
}

#[test]
fn the_table_of_levels_has_every_route() {
    let served: BTreeSet<String> = operations().iter().map(Operation::name).collect();
    let documented: BTreeSet<String> = table().iter().map(|row| format!("{} {}", row.method, row.path)).collect();
    assert_eq!(documented, served);
}

#[test]
fn the_table_of_roles_is_the_one_in_the_code() {
    use latchkey::domain::role::Role;
    use latchkey::domain::scope::Scope;

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/levels.md")).unwrap();
    for scope in Scope::ALL {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` |", scope.name())));
        let cells: Vec<&str> = line.unwrap_or_else(|| panic!("{}", scope.name())).split('|').map(str::trim).collect();
        for (role, cell) in Role::ALL.into_iter().zip(&cells[2..]) {
            assert_eq!(role.scopes().contains(*scope), *cell == "yes", "{role} {}", scope.name());
        }
    }
}
