//! What holds for every route, read off the document and off the sources: a new one is covered without a new test.

use std::collections::BTreeSet;
use std::path::Path;

use latchkey::config::Settings;
use latchkey::domain::role::Role;
use latchkey::http::openapi::Document;
use serde_json::Value;

use crate::support::app::{CONSTANT_KEY, PASSWORD};
use crate::support::{App, Credential, specify};

/// An operation of the document.
struct Operation {
    method: String,
    /// With `{id}` for an id.
    path: String,
    /// What a credential must hold.
    scope: Option<String>,
    /// Whether it takes a credential.
    is_locked: bool,
}

fn operations() -> Vec<Operation> {
    let settings = Settings::defaults().unwrap();
    let document: Value = serde_json::from_str(Document::build(&settings.http, &settings.auth).json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schemes = operation["security"].as_array().map(Vec::as_slice).unwrap_or_default();
            let scope = schemes.iter().find_map(|scheme| scheme["password"][0].as_str());
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                scope: scope.map(str::to_owned),
                is_locked: !schemes.is_empty(),
            });
        }
    }
    assert!(operations.len() > 30, "the document was read");
    operations
}

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
        for Operation { method, path, scope, .. } in operations() {
            let Some(scope) = scope else { continue };
            let path = path.replace("{id}", "1");
            let all = Role::Admin.scopes().to_string();
            let others: Vec<&str> = all.split(' ').filter(|name| *name != scope).collect();
            let others = narrowed(&app, &others.join(" ")).await;
            let answer = app.request(&method, &path).credential(&others).send().await;
            // An OAuth endpoint says it in the words of OAuth.
            let (status, code) = if path == "/introspect" { (401, "invalid_client") } else { (403, "insufficient_scope") };
            answer.assert_error(status, code);
            if method == "GET" {
                let this = narrowed(&app, &scope).await;
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
        for Operation { method, path, .. } in operations().into_iter().filter(|operation| operation.is_locked) {
            let answer = app.request(&method, &path.replace("{id}", "1")).credential(&constant).send().await;
            if answer.status == 200 {
                opened.insert(format!("{method} {path}"));
            } else {
                // An OAuth endpoint says it in the words of OAuth.
                assert_eq!(answer.status, if path == "/introspect" { 401 } else { 403 }, "{method} {path}: {answer:?}");
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
        for Operation { method, path, .. } in operations() {
            if method != "GET" {
                continue;
            }
            let path = path.replace("{id}", "1");
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
