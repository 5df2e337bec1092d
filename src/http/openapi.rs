//! The OpenAPI document: what paperclip gathers from the handlers, finished by hand where Swagger 2 cannot say it.

#![expect(clippy::indexing_slicing, reason = "start-up code on a document of our own; indexing a `Value` adds keys")]

use std::collections::BTreeMap;
use std::fmt;

use actix_web::App;
use actix_web::http::Method;
use paperclip::actix::OpenApiExt;
use serde_json::{Map, Value, json};

use super::principal::PASSWORD_SCHEME;
use super::{body, problem};
use crate::config::{AuthSettings, HttpSettings, StatusProfile};
use crate::domain::email;
use crate::service::{page, user};

/// The finished document, built once per process.
pub struct Document {
    value: Value,
    json: String,
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
        let json = format!("{value:#}\n");
        Self { value, json }
    }

    /// The document as text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The methods of each path.
    pub fn allowed_methods(&self) -> AllowedMethods {
        let paths = self.value.get("paths").and_then(Value::as_object).into_iter().flatten();
        let methods_of = |item: &Value| -> Vec<Method> {
            let names = item.as_object().into_iter().flat_map(Map::keys);
            names.filter_map(|name| name.to_uppercase().parse().ok()).collect()
        };
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
        { "name": "user", "description": "Register, sign in and out" },
        { "name": "page", "description": "A resource behind the guard" },
        { "name": "health", "description": "For orchestrators" },
    ]);
    document["components"]["securitySchemes"][PASSWORD_SCHEME]["flows"]["password"]["tokenUrl"] =
        json!(format!("{root}/token"));
    requests(document, http, auth);
    errors(document);
}

const DESCRIPTION: &str = "Register, sign in for a token, and open guarded routes with it.\n\n\
    Send the token as `Token: …` or as `Authorization: Bearer …`, once. Errors are problem details (RFC 9457) with a \
    stable `code`; `/token` answers errors of OAuth 2.0 (RFC 6749). Each answer names its request in `X-Request-Id`.";

const NO_NUL: &str = r"^[^\u0000]*$";
const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
const ENTITY_TAGS: &str = r#"^(\*|(W/)?"[!#-+--~]*"( *, *(W/)?"[!#-+--~]*")*)$"#;

/// Request bodies and parameters with their bounds. What they do not name is refused.
fn requests(document: &mut Value, http: &HttpSettings, auth: &AuthSettings) {
    let title = json!({ "minLength": 1, "maxLength": page::TITLE_MAX, "pattern": NO_NUL });
    let body = json!({ "maxLength": page::BODY_MAX, "pattern": NO_NUL });
    let schemas = &mut document["components"]["schemas"];
    bound(
        &mut schemas["RegisterRequest"],
        json!({
            "name": { "minLength": user::NAME_MIN, "maxLength": user::TEXT_MAX, "pattern": NO_CONTROL },
            "surname": { "maxLength": user::TEXT_MAX, "pattern": NO_CONTROL },
            "email": { "maxLength": email::MAX_LENGTH, "format": "email" },
            "website": { "maxLength": user::TEXT_MAX, "pattern": NO_NUL },
            "password": {
                "minLength": auth.password_min_length, "maxLength": auth.password_max_length, "pattern": NO_NUL,
                "format": "password",
            },
        }),
    );
    bound(&mut schemas["PageRequest"], json!({ "title": title, "body": body }));
    bound(&mut schemas["PagePatch"], json!({ "title": title, "body": body }));
    schemas["PagePatch"]["minProperties"] = json!(1);
    for strict in ["RegisterRequest", "PageRequest", "PagePatch"] {
        schemas[strict]["additionalProperties"] = json!(false);
    }
    bound(&mut schemas["HealthResponse"], json!({ "status": { "enum": ["ok"] } }));
    bound(&mut schemas["TokenResponse"], json!({ "token_type": { "enum": ["bearer"] } }));
    schemas["PageListResponse"]["properties"]["items"]["items"] =
        json!({ "$ref": "#/components/schemas/PageResponse" });

    let form = &mut document["paths"]["/token"]["post"]["requestBody"];
    form["required"] = json!(true);
    let form = &mut form["content"]["application/x-www-form-urlencoded"]["schema"];
    form["type"] = json!("object");
    form["required"] = match http.status_codes {
        StatusProfile::Fastapi => json!(["username", "password"]),
        StatusProfile::Rfc => json!(["grant_type", "username", "password"]),
    };
    bound(
        form,
        json!({
            "grant_type": { "enum": ["password"] },
            "username": { "minLength": 1, "maxLength": body::SMALL },
            "password": { "minLength": 1, "maxLength": body::SMALL, "format": "password" },
            "scope": { "maxLength": body::SMALL },
            "client_id": { "maxLength": body::SMALL },
            "client_secret": { "maxLength": body::SMALL, "format": "password" },
        }),
    );

    for operation in operations(document) {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let bounds = match parameter["name"].as_str() {
                Some("id") => json!({ "minimum": 1 }),
                Some("page") => json!({ "minimum": 1, "maximum": page::NUMBER_MAX, "default": 1 }),
                Some("If-Match") => json!({ "pattern": ENTITY_TAGS }),
                Some("size") => json!({ "minimum": 1, "maximum": page::SIZE_MAX, "default": page::SIZE_DEFAULT }),
                _ => continue,
            };
            merge(&mut parameter["schema"], bounds);
        }
    }
}

/// Every error answer of every operation, from what the operation takes.
fn errors(document: &mut Value) {
    let components = &mut document["components"];
    components["schemas"]["Problem"] = problem_schema();
    components["schemas"]["OAuthError"] = oauth_error_schema();
    for (status, description) in ERRORS {
        for (shape, media_type, schema) in
            [("Problem", "application/problem+json", "Problem"), ("OAuth", "application/json", "OAuthError")]
        {
            components["responses"][format!("{shape}{status}")] = json!({
                "description": description,
                "content": { media_type: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } },
                "headers": error_headers(status),
            });
        }
    }
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let shape = if problem::OAUTH_PATHS.contains(&path.as_str()) { "OAuth" } else { "Problem" };
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            for status in error_statuses(path, operation) {
                let reference = format!("#/components/responses/{shape}{status}");
                operation["responses"][status.to_string()] = json!({ "$ref": reference });
            }
            success_headers(operation);
        }
    }
}

const ERRORS: [(u16, &str); 12] = [
    (400, "The request cannot be read, or carries more than one credential"),
    (401, "The credential is malformed, unknown, expired or revoked"),
    (403, "Not authenticated, or not allowed"),
    (404, "There is no such object"),
    (408, "The body did not arrive in time"),
    (409, "The request contradicts what is stored"),
    (412, "The object has changed since it was read"),
    (413, "The body is too large"),
    (415, "The body is of another media type"),
    (422, "Some fields are not acceptable; `errors` names them"),
    (500, "The server failed"),
    (503, "The server cannot do this just now"),
];

fn error_headers(status: u16) -> Value {
    match status {
        401 | 403 => json!({ "WWW-Authenticate": text_header("A Bearer challenge (RFC 6750)") }),
        503 => json!({ "Retry-After": { "description": "Seconds to wait", "schema": { "type": "integer" } } }),
        _ => json!({}),
    }
}

fn error_statuses(path: &str, operation: &Value) -> Vec<u16> {
    let mut statuses = vec![500];
    let guarded = operation.get("security").is_some();
    let names: Vec<&str> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    if guarded {
        statuses.extend([400, 401, 403]);
    }
    if operation.get("requestBody").is_some() {
        statuses.extend([400, 408, 413, 415]);
        // The token endpoint says 400 or, for a wrong password, 401 by the status profile.
        statuses.push(if guarded || path != "/token" { 422 } else { 401 });
    }
    if names.contains(&"page") {
        statuses.extend([400, 422]);
    }
    if names.contains(&"id") {
        statuses.push(404);
    }
    if names.contains(&"If-Match") {
        statuses.push(412);
    }
    if path == "/register" {
        statuses.push(409);
    }
    if path != "/health/live" {
        statuses.push(503);
    }
    statuses
}

fn success_headers(operation: &mut Value) {
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, response) in responses {
        let mut headers = Map::new();
        if status == "201" {
            headers.insert("Location".to_owned(), text_header("Where the new object is"));
        }
        let schema = &response["content"]["application/json"]["schema"]["$ref"];
        if schema == "#/components/schemas/PageResponse" {
            headers.insert("ETag".to_owned(), text_header("The version, for If-Match"));
        }
        if !headers.is_empty() {
            response["headers"] = headers.into();
        }
    }
}

fn text_header(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "string" } })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "description": "`about:blank`: `title` and `status` say it all" },
            "title": { "type": "string", "description": "The phrase of the status" },
            "status": { "type": "integer", "description": "The status" },
            "detail": { "type": "string", "description": "What to change, for people" },
            "code": { "type": "string", "description": "Stable, for programs" },
            "request_id": { "type": "string", "description": "Leads to the log" },
            "errors": {
                "type": "array",
                "description": "With 422: each field that is not acceptable",
                "items": {
                    "type": "object",
                    "required": ["field", "code", "message"],
                    "additionalProperties": false,
                    "properties": {
                        "field": { "type": "string", "description": "Its name in the request" },
                        "code": { "type": "string", "description": "Stable, for programs" },
                        "message": { "type": "string", "description": "What to change, for people" },
                    },
                },
            },
        },
    })
}

fn oauth_error_schema() -> Value {
    json!({
        "type": "object",
        "description": "An error of OAuth 2.0 (RFC 6749, section 5.2).",
        "required": ["error", "error_description", "detail"],
        "additionalProperties": false,
        "properties": {
            "error": { "type": "string", "description": "Stable, for programs" },
            "error_description": { "type": "string", "description": "What to change, in printable ASCII" },
            "detail": { "type": "string", "description": "What to change, for people" },
        },
    })
}

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
