//! Checks every cell of the table of routes in `docs/levels.md`, and its table of roles.

use std::collections::BTreeSet;

use latchkey::domain::scope::Scope;
use serde_json::json;

use crate::support::client::Request;
use crate::support::documents::{assert_complete, place_after, read};
use crate::support::requests::Callers;
use crate::support::tour::{Operation, operations};
use crate::support::{App, Credential, specify_mailing};

const CALLERS: [&str; 7] = ["anonymous", "member", "another member", "auditor", "admin", "service key", "issued key"];

/// A row of the table of routes: method, path, and the status for each of [`CALLERS`].
struct Row {
    method: String,
    path: String,
    cells: Vec<String>,
}

impl Row {
    /// The name of the operation, such as `GET /page/{id}`.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The table of routes.
fn table() -> Vec<Row> {
    let page = read("docs/levels.md");
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

/// One new caller of each kind, in the order of [`CALLERS`].
struct CallerSet {
    number: usize,
    callers: [Credential; 7],
    /// The ids of the service key and of the issued key.
    keys: [i64; 2],
}

impl CallerSet {
    async fn create(app: &App, number: usize) -> Self {
        let email = |name: &str| format!("{name}{number}@example.org");
        let admin = app.admin(&email("admin")).await;
        let (service_key, service_key_id) = app.key_of(&admin, &["keys:issue"]).await;
        let scopes: Vec<_> = Scope::ALL.iter().map(|scope| scope.name()).chain(["translate:use"]).collect();
        let issued = app.post("/keys", &admin, &json!({ "name": "issued", "scopes": scopes })).await;
        let callers = [
            Credential::None,
            app.user(&email("member")).await,
            app.user(&email("another")).await,
            app.user_of_role(&email("auditor"), "auditor").await,
            admin,
            service_key,
            Credential::Token(issued.text_of("key")),
        ];
        Self { number, callers, keys: [service_key_id, issued.body["id"].as_i64().unwrap()] }
    }

    /// The `actor` of audit entries about a caller with a credential.
    async fn actor(&self, app: &App, caller: usize) -> String {
        if CALLERS[caller].ends_with(" key") {
            return format!("key:{}", self.keys[caller - 5]);
        }
        let me = app.get("/me", &self.callers[caller]).await;
        assert_eq!(me.status, 200, "{me:?}");
        format!("user:{}", me.body["id"])
    }

    /// A valid request to the route, on new objects and without a credential.
    async fn request(&self, app: &App, row: &Row) -> Request {
        let email = format!("another{}@example.org", self.number);
        let callers = Callers { client: app, member: &self.callers[1], admin: &self.callers[4], email: &email };
        callers.request(&row.name()).await
    }
}

specify_mailing! {
    async fn every_caller_gets_the_status_in_the_table_of_levels(app: App) {
        // `DELETE /me` deletes the admin of its row. This admin remains.
        let root = app.admin("root@example.org").await;
        let mut denied = Vec::new();
        for (number, row) in table().iter().enumerate() {
            let row_callers = CallerSet::create(&app, number).await;
            // The admin is last, because the keys end with the account of the admin.
            for caller in [0, 1, 2, 3, 5, 6, 4] {
                let cell = &row.cells[caller];
                let request = row_callers.request(&app, row).await;
                let answer = request.credential(&row_callers.callers[caller]).send().await;
                let expected = if cell == "no" { app.expected.no_credential } else { cell.parse().unwrap() };
                assert_eq!(answer.status, expected, "{} {} as {}: {answer:?}", row.method, row.path, CALLERS[caller]);
                if cell == "403" || cell == "401" && caller != 0 {
                    denied.push((row.name(), row_callers.actor(&app, caller).await));
                }
            }
        }
        let entries = app.trail(&root, "outcome=denied&order=oldest").await;
        assert_eq!(entries.len(), denied.len(), "each denied request with a valid credential has an audit entry");
        let mut requests = 0;
        for (entry, (route, actor)) in entries.iter().zip(&denied) {
            assert_eq!(entry["actor"], *actor, "{route}: {entry}");
            if entry["action"] == "request" {
                assert_eq!(entry["target"], *route, "{entry}");
                requests += 1;
            }
        }
        assert!(2 * requests > denied.len(), "the guard denied {requests} of {} requests", denied.len());
    }
}

specify_mailing! {
    async fn a_session_opens_what_the_token_of_its_user_opens(app: App) {
        let served = operations();
        let accepts_session = |row: &Row| served.iter().any(|operation| operation.name() == row.name() && operation.accepts_session());
        let rows: Vec<Row> = table().into_iter().filter(accepts_session).collect();
        assert!(rows.len() > 25, "{} routes accept a session", rows.len());
        for (number, row) in rows.iter().enumerate() {
            let row_callers = CallerSet::create(&app, number).await;
            for (caller, name) in [(1, "member"), (2, "another"), (3, "auditor"), (4, "admin")] {
                let request = row_callers.request(&app, row).await;
                let (session, _) = app.session_of(&format!("{name}{number}@example.org")).await;
                let answer = request.credential(&session).send().await;
                let expected: u16 = if row.path == "/session" { 200 } else { row.cells[caller].parse().unwrap() };
                assert_eq!(answer.status, expected, "{} {} in a session of {name}: {answer:?}", row.method, row.path);
            }
        }
    }
}

#[test]
fn the_table_of_levels_has_every_route() {
    let served: BTreeSet<String> = operations().iter().map(Operation::name).collect();
    let documented: BTreeSet<String> = table().iter().map(Row::name).collect();
    let place = place_after("docs/levels.md", "| `GET /audit` |");
    let missing = served.difference(&documented).map(|route| format!("{place}: add a row for `{route}`"));
    let surplus = documented.difference(&served).map(|route| format!("docs/levels.md: remove the row of `{route}`"));
    assert_complete(&missing.chain(surplus).collect::<Vec<_>>());
}

#[test]
fn the_table_of_roles_matches_the_code() {
    use latchkey::domain::role::BuiltInRole;

    let page = read("docs/levels.md");
    for scope in Scope::ALL {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` |", scope.name())));
        let place = || place_after("docs/levels.md", "| `tokens:introspect` |");
        let line = line.unwrap_or_else(|| panic!("{}: add a row for the scope `{}`", place(), scope.name()));
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for (role, cell) in BuiltInRole::ALL.into_iter().zip(&cells[2..]) {
            assert_eq!(role.scopes().contains(*scope), *cell == "yes", "{role} {}", scope.name());
        }
    }
}
