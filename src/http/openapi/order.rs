//! The order of the operations in the document, which is that of the page.

use serde_json::{Map, Value};

/// The paths of a new user, in the order of use. All others follow by path.
const FIRST: [&str; 7] =
    ["/register", "/session", "/token", "/protected-route", "/introspect", "/revoke", "/me/password"];

/// An object is created before it is read, and deleted after that.
const METHODS: [&str; 5] = ["post", "get", "put", "patch", "delete"];

/// Sorts the paths, and the operations of each path. Within a tag, the page shows the operations in this order.
pub(crate) fn sort(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    let mut sorted: Vec<(String, Value)> = std::mem::take(paths).into_iter().collect();
    sorted.sort_by_cached_key(|(path, _)| {
        let first = FIRST.iter().position(|first| first == path).unwrap_or(FIRST.len());
        (first, key(path))
    });
    for (_, item) in &mut sorted {
        let Some(methods) = item.as_object_mut() else { continue };
        let mut operations: Vec<(String, Value)> = std::mem::take(methods).into_iter().collect();
        operations.sort_by_key(|(method, _)| METHODS.iter().position(|known| known == method));
        *methods = Map::from_iter(operations);
    }
    paths.extend(sorted);
}

/// Sorts an object after its collection, and after what belongs to it: `/key`, `/key/{id}/rotate`, `/key/{id}`.
fn key(path: &str) -> String {
    let key = path.replace("{id}", "~");
    if path.ends_with("{id}") { format!("{key}/~") } else { key }
}
