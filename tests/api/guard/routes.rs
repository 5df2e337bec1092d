//! Rules for every route. The routes are read from the OpenAPI document and the sources, so a new route requires no new
//! test.

use std::collections::BTreeSet;
use std::path::Path;

use latchkey::domain::role::BuiltInRole;

use crate::support::app::{PASSWORD, STATIC_KEY};
use crate::support::tour::{Operation, operations};
use crate::support::{App, Credential, specify};

/// Signs in the admin `root` with these scopes; returns the narrowed token.
async fn narrowed(app: &App, scopes: &str) -> Credential {
    let form =
        [("grant_type", "password"), ("username", "root@example.org"), ("password", PASSWORD), ("scope", scopes)];
    Credential::Token(app.request("POST", "/token").form(&form).send().await.text_of("access_token"))
}

specify! {
    async fn a_narrowed_token_opens_only_the_operations_of_its_scopes(app: App) {
        app.admin("root@example.org").await;
        let mut opened = 0;
        for operation in operations() {
            let Some(scope) = operation.scope() else { continue };
            let (method, path) = (operation.method.as_str(), operation.path_to_first());
            let all = BuiltInRole::Admin.scopes().to_string();
            let others: Vec<&str> = all.split(' ').filter(|name| *name != scope).collect();
            let others = narrowed(&app, &others.join(" ")).await;
            let answer = app.request(method, &path).credential(&others).send().await;
            // An OAuth endpoint returns OAuth error codes.
            let (status, code) = if path == "/introspect" { (401, "invalid_client") } else { (403, "insufficient_scope") };
            answer.assert_error(status, code);
            if method == "GET" {
                let exact = narrowed(&app, scope).await;
                let answer = app.get(&path, &exact).await;
                assert!([200, 404].contains(&answer.status), "{path} with {scope}: {answer:?}");
                opened += 1;
            }
        }
        assert!(opened > 8, "{opened}");
    }

    async fn the_static_key_opens_two_operations_and_no_other(app: App) {
        let static_key = Credential::Token(STATIC_KEY.to_owned());
        let mut opened = BTreeSet::new();
        for operation in operations().into_iter().filter(Operation::requires_credential) {
            let request = app.request(&operation.method, &operation.path_to_first()).credential(&static_key);
            let (name, answer) = (operation.name(), request.send().await);
            if answer.status == 200 {
                opened.insert(name);
            } else {
                // An OAuth endpoint returns 401 `invalid_client`.
                let denied = if operation.path == "/introspect" { 401 } else { 403 };
                assert_eq!(answer.status, denied, "{name}: {answer:?}");
            }
        }
        assert_eq!(opened, BTreeSet::from(["GET /authz", "GET /protected-route"].map(str::to_owned)));
    }

    async fn no_route_echoes_a_trace_request(app: App) {
        let ada = app.user("ada@example.org").await;
        let paths: BTreeSet<String> = operations().into_iter().map(|operation| operation.path).collect();
        let paths = paths.iter().map(String::as_str).chain(UNDOCUMENTED).chain(["/nothing"]);
        for path in paths.map(|path| path.replace("{id}", "1")) {
            let request = app.request("TRACE", &path).credential(&ada).header("X-Canary", "canary");
            let answer = request.send().await;
            // `/authz` accepts every method, because a proxy sends it with the method of the original request.
            let is_expected = path == "/authz" || [404, 405].contains(&answer.status);
            assert!(is_expected, "{path}: {answer:?}");
            let response = format!("{:?} {}", answer.headers, answer.text).to_lowercase();
            assert!(!response.contains("canary") && !response.contains(&ada.secret().to_lowercase()), "{path}: {answer:?}");
        }
    }

    async fn head_returns_the_status_of_get_to_every_caller(app: App) {
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

/// Served paths that are not operations of the document: the document and its page, the console, paths that a setting
/// enables, and metrics, which have a separate listener.
const UNDOCUMENTED: [&str; 16] = [
    "/.well-known/oauth-authorization-server",
    "/console",
    "/console/",
    "/console/icon.svg",
    "/console/settings.json",
    "/console/{file}",
    "/docs",
    "/docs/",
    "/docs/favicon-32x32.png",
    "/docs/page.css",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
    "/metrics",
    "/openapi.json",
    "/page",
];

/// Calls that register a route and start with its path.
const REGISTRATIONS: [&str; 4] = ["web::resource(", "web::scope(", "page_list(", ".route(\""];

/// The paths of all routes in the sources.
fn served_paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
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
                assert!(
                    REGISTRATIONS.iter().any(|start| service.starts_with(start)),
                    "{}: {service:.60}",
                    path.display()
                );
            }
            for call in REGISTRATIONS {
                for (at, _) in code.match_indices(call) {
                    let argument = code[at + call.len()..].trim_start();
                    let argument = argument.strip_prefix('"').unwrap_or(argument);
                    // In the definition of `page_list`, the path is a parameter.
                    if !argument.starts_with("path") {
                        let scope = if call == "page_list(" { "/page" } else { "" };
                        paths.insert(format!("{scope}{}", argument.split('"').next().unwrap()));
                    }
                }
            }
        }
    }
    paths
}

#[test]
fn every_served_path_is_documented_or_listed() {
    let documented: BTreeSet<String> = operations().into_iter().map(|operation| operation.path).collect();
    // Paths within the scope of pages are relative.
    let absolute = |path: String| match path.as_str() {
        "/{id}" | "/{id}/history" => format!("/page{path}"),
        _ => path,
    };
    let served: BTreeSet<String> = served_paths().into_iter().map(absolute).collect();
    let listed: BTreeSet<String> = documented.into_iter().chain(UNDOCUMENTED.map(str::to_owned)).collect();
    assert_eq!(served, listed);
}
