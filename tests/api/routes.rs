//! What holds for every route, read off the document and off the sources: a new one is covered without a new test.

use std::collections::BTreeSet;
use std::path::Path;

use latchkey::domain::role::Role;

use crate::support::app::{CONSTANT_KEY, PASSWORD};
use crate::support::tour::{Operation, operations};
use crate::support::{App, Credential, specify};

/// A token of the admin `root`, narrowed to these scopes.
async fn narrowed(app: &App, scopes: &str) -> Credential {
    let form =
        [("grant_type", "password"), ("username", "root@example.org"), ("password", PASSWORD), ("scope", scopes)];
    Credential::Token(app.request("POST", "/token").form(&form).send().await.text_of("access_token"))
}

specify! {
    async fn a_narrowed_token_opens_what_its_scopes_are_for_and_nothing_else(app: App) {
        app.admin("root@example.org").await;
        let mut opened = 0;
        for operation in operations() {
            let Some(scope) = operation.scope() else { continue };
            let (method, path) = (operation.method.as_str(), operation.path_to_first());
            let all = Role::Admin.scopes().to_string();
            let others: Vec<&str> = all.split(' ').filter(|name| *name != scope).collect();
            let others = narrowed(&app, &others.join(" ")).await;
            let answer = app.request(method, &path).credential(&others).send().await;
            // An OAuth endpoint says it in the words of OAuth.
            let (status, code) = if path == "/introspect" { (401, "invalid_client") } else { (403, "insufficient_scope") };
            answer.assert_error(status, code);
            if method == "GET" {
                let this = narrowed(&app, scope).await;
                let answer = app.get(&path, &this).await;
                assert!([200, 404].contains(&answer.status), "{path} with {scope}: {answer:?}");
                opened += 1;
            }
        }
        assert!(opened > 8, "{opened}");
    }

    async fn the_constant_key_opens_two_operations_and_no_other(app: App) {
        let constant = Credential::Token(CONSTANT_KEY.to_owned());
        let mut opened = BTreeSet::new();
        for operation in operations().into_iter().filter(Operation::is_locked) {
            let request = app.request(&operation.method, &operation.path_to_first()).credential(&constant);
            let (name, answer) = (operation.name(), request.send().await);
            if answer.status == 200 {
                opened.insert(name);
            } else {
                // An OAuth endpoint says it in the words of OAuth.
                let refused = if operation.path == "/introspect" { 401 } else { 403 };
                assert_eq!(answer.status, refused, "{name}: {answer:?}");
            }
        }
        assert_eq!(opened, BTreeSet::from(["GET /authz", "GET /protected-route"].map(str::to_owned)));
    }

    async fn no_route_traces(app: App) {
        let ada = app.user("ada@example.org").await;
        let paths: BTreeSet<String> = operations().into_iter().map(|operation| operation.path).collect();
        let paths = paths.iter().map(String::as_str).chain(UNDOCUMENTED).chain(["/", "/nothing"]);
        for path in paths.map(|path| path.replace("{id}", "1")) {
            let request = app.request("TRACE", &path).credential(&ada).header("X-Canary", "canary");
            let answer = request.send().await;
            // A proxy asks with the method of the request that it holds back.
            let is_refused = path == "/authz" || [404, 405].contains(&answer.status);
            assert!(is_refused, "{path}: {answer:?}");
            let shown = format!("{:?} {}", answer.headers, answer.text).to_lowercase();
            assert!(!shown.contains("canary") && !shown.contains(&ada.secret().to_lowercase()), "{path}: {answer:?}");
        }
    }

    async fn head_is_answered_like_get_to_everybody(app: App) {
        let ada = app.user("ada@example.org").await;
        let bad = Credential::Token("lkt_bad".to_owned());
        for operation in operations().into_iter().filter(|operation| operation.method == "GET") {
            let path = operation.path_to_first();
            for caller in [&Credential::None, &bad, &ada] {
                let get = app.get(&path, caller).await;
                let head = app.request("HEAD", &path).credential(caller).send().await;
                assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path} as {caller:?}");
            }
        }
    }
}

/// What is served beside the operations of the document: the document itself, the page that shows it, what depends on a
/// setting, and metrics, on a listener of their own.
const UNDOCUMENTED: [&str; 10] = [
    "/.well-known/oauth-authorization-server",
    "/docs",
    "/docs/",
    "/docs/favicon-32x32.png",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
    "/metrics",
    "/openapi.json",
    "/page",
];

/// What makes a route, and begins with its path.
const CALLS: [&str; 4] = ["web::resource(", "web::scope(", "page_list(", ".route(\""];

/// The paths of all routes in the sources.
fn served() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for (at, call) in code.match_indices(".service(") {
                let service = code[at + call.len()..].trim_start();
                assert!(CALLS.iter().any(|call| service.starts_with(call)), "{}: {service:.60}", path.display());
            }
            for call in CALLS {
                for (at, _) in code.match_indices(call) {
                    let rest = code[at + call.len()..].trim_start();
                    let rest = rest.strip_prefix('"').unwrap_or(rest);
                    // The function that makes the list's route gets its path.
                    if !rest.starts_with("path") {
                        found.insert(rest.split('"').next().unwrap().to_owned());
                    }
                }
            }
        }
    }
    found
}

#[test]
fn what_is_served_is_documented_or_on_the_list() {
    let documented: BTreeSet<String> = operations().into_iter().map(|operation| operation.path).collect();
    // Within the scope of pages.
    let whole = |path: String| match path.as_str() {
        "" => "/page".to_owned(),
        "/" | "/{id}" | "/{id}/history" => format!("/page{path}"),
        _ => path,
    };
    let served: BTreeSet<String> = served().into_iter().map(whole).collect();
    let listed: BTreeSet<String> = documented.into_iter().chain(UNDOCUMENTED.map(str::to_owned)).collect();
    assert_eq!(served, listed);
}
