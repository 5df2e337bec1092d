//! The locks of operations that accept not all kinds of credentials, and the place of the session cookie.

use serde_json::{Value, json};

use crate::http::guard::permit::SESSION_SCHEME;

/// Guarded paths that ignore the session cookie: services send these requests, not browsers.
const WITHOUT_SESSION: [&str; 2] = ["/authz", "/introspect"];
/// Guarded paths that accept only the session cookie.
const SESSION_ONLY: [&str; 1] = ["/session"];

/// Completes the lock of every operation. An operation without a lock states that it has none.
pub(crate) fn complete(document: &mut Value) {
    // Swagger 2, which paperclip gathers, has no cookies.
    document["components"]["securitySchemes"][SESSION_SCHEME]["in"] = json!("cookie");
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            let schemes = operation["security"].as_array().cloned().unwrap_or_default();
            let is_accepted = |scheme: &Value| match scheme.get(SESSION_SCHEME) {
                Some(_) => !WITHOUT_SESSION.contains(&path.as_str()),
                None => !SESSION_ONLY.contains(&path.as_str()),
            };
            operation["security"] = schemes.into_iter().filter(is_accepted).collect();
        }
    }
}
