//! The OpenAPI document: what paperclip gathers from the handlers, finished by hand where Swagger 2 cannot say it.

#![expect(clippy::indexing_slicing, reason = "start-up code on a document of our own; indexing a `Value` adds keys")]

mod bounds;
mod errors;

use std::collections::BTreeMap;
use std::fmt;

use actix_web::App;
use actix_web::http::Method;
use actix_web::web::Bytes;
use paperclip::actix::OpenApiExt;
use serde_json::{Map, Value, json};

use super::principal::PASSWORD_SCHEME;
use crate::config::{AuthSettings, HttpSettings};

/// The path that takes every method, of which the document shows one.
const ANY_METHOD: &str = "/authz";

/// The finished document, built once per process.
pub struct Document {
    value: Value,
    json: Bytes,
    origin: Option<String>,
}

impl Document {
    /// The document of all routes under these settings.
    pub fn build(http: &HttpSettings, auth: &AuthSettings) -> Self {
        let mut value = Value::Null;
        let app = App::new().wrap_api().configure(super::routes).with_raw_json_spec_v3(|app, gathered| {
            value = gathered;
            app
        });
        drop(app);
        finish(&mut value, http, auth);
        let json = Bytes::from(format!("{value:#}\n"));
        let origin = url::Url::parse(&http.public_url).ok().map(|url| url.origin().ascii_serialization());
        Self { value, json, origin }
    }

    /// Where clients reach the API, if that is set.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// The document as text.
    pub fn json(&self) -> &str {
        std::str::from_utf8(&self.json).unwrap_or_default()
    }

    /// The document as it is sent, without a copy.
    pub fn bytes(&self) -> Bytes {
        self.json.clone()
    }

    /// The methods of each path that does not take all.
    pub fn allowed_methods(&self) -> AllowedMethods {
        let paths = self.value.get("paths").and_then(Value::as_object).into_iter().flatten();
        let methods_of = |item: &Value| -> Vec<Method> {
            let names = item.as_object().into_iter().flat_map(Map::keys);
            names.filter_map(|name| name.to_uppercase().parse().ok()).collect()
        };
        let paths = paths.filter(|(path, _)| *path != ANY_METHOD);
        AllowedMethods(paths.map(|(path, item)| (path.clone(), Methods::new(methods_of(item)))).collect())
    }
}

/// The methods of each path in the document.
pub struct AllowedMethods(BTreeMap<String, Methods>);

impl AllowedMethods {
    /// The methods of the path with this pattern, with or without a final slash.
    pub fn of(&self, pattern: &str) -> Option<&Methods> {
        self.0.get(pattern).or_else(|| self.0.get(&format!("{pattern}/")))
    }
}

/// The methods of one path.
pub struct Methods(Vec<Method>);

impl Methods {
    fn new(mut methods: Vec<Method>) -> Self {
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        methods.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        Self(methods)
    }

    /// Whether `method` is one of them.
    pub fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }
}

/// As the `Allow` header lists them.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// What paperclip cannot express: OpenAPI 3's own fields, the bounds that the use cases enforce, and the error answers.
fn finish(document: &mut Value, http: &HttpSettings, auth: &AuthSettings) {
    let root = http.public_url.trim_end_matches('/');
    document["openapi"] = json!("3.0.3");
    document["info"] = json!({
        "title": "Latchkey",
        "version": env!("CARGO_PKG_VERSION"),
        "description": DESCRIPTION,
        "license": { "name": "MIT OR Apache-2.0" },
    });
    document["servers"] = json!([{ "url": if root.is_empty() { "/" } else { root } }]);
    document["tags"] = json!([
        { "name": "user", "description": "Register, sign in and out; administer users" },
        { "name": "account", "description": "Your own account" },
        { "name": "key", "description": "Your own API keys" },
        { "name": "issue", "description": "API keys for others: a purchase becomes a key" },
        { "name": "oauth", "description": "For other services: revoke, introspect, and what proxies ask" },
        { "name": "page", "description": "A resource behind the guard" },
        { "name": "audit", "description": "Who changed what, when, with which credential, at what level" },
        { "name": "health", "description": "For orchestrators" },
    ]);
    document["components"]["securitySchemes"][PASSWORD_SCHEME]["flows"]["password"]["tokenUrl"] =
        json!(format!("{root}/token"));
    bounds::of_requests(document, http, auth);
    bounds::of_responses(document);
    errors::of_operations(document);
}

const DESCRIPTION: &str = "Register, sign in for a token, and open guarded routes with it.\n\n\
    Send the token as `Token: …` or as `Authorization: Bearer …`, once. Errors are problem details (RFC 9457) with a \
    stable `code`; `/token`, `/revoke` and `/introspect` answer errors of OAuth 2.0 (RFC 6749). Each answer names its request in `X-Request-Id`.";

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut)
}

/// Adds `bounds` (property → keywords) to the properties of `schema`.
fn bound(schema: &mut Value, bounds: Value) {
    if let Value::Object(bounds) = bounds {
        for (property, keywords) in bounds {
            merge(&mut schema["properties"][property], keywords);
        }
    }
}

fn merge(target: &mut Value, more: Value) {
    if let (Some(target), Value::Object(more)) = (target.as_object_mut(), more) {
        target.extend(more);
    }
}
