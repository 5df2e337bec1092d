//! The error responses of each operation, derived from its parameters, body and security, and the response headers.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::config::StatusProfile;
use crate::http::openapi::error_examples;
use crate::http::wire::problem_answers;

/// Adds the error responses and the headers of success responses to all operations. Each error is defined once, as a
/// component.
pub(crate) fn add_to_operations(document: &mut Value, profile: StatusProfile) {
    let mut used = BTreeSet::new();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let shape = Shape::of(path);
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            for status in error_statuses(path, method, operation, profile) {
                used.insert((shape, status));
                let reference = format!("#/components/responses/{}", shape.component(status));
                operation["responses"][status.to_string()] = json!({ "$ref": reference });
            }
            success_headers(operation);
        }
    }
    let components = &mut document["components"];
    components["schemas"]["Problem"] = problem_schema();
    components["schemas"]["FieldError"] = field_error_schema();
    components["schemas"]["OAuthError"] = oauth_error_schema();
    for (shape, status) in used {
        let description = ERRORS.iter().find(|error| error.0 == status).map_or("Error", |error| error.1);
        let mut content = error_examples::content(shape == Shape::OAuth, status, profile);
        content["schema"] = json!({ "$ref": format!("#/components/schemas/{}", shape.schema()) });
        let mut response = json!({ "description": description, "content": { shape.media_type(): content } });
        let headers = error_headers(status);
        if !headers.is_null() {
            response["headers"] = headers;
        }
        components["responses"][shape.component(status)] = response;
    }
}

/// The format of the errors of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// Problem details (RFC 9457).
    Problem,
    /// An error of OAuth 2.0 (RFC 6749, section 5.2).
    OAuth,
}

impl Shape {
    fn of(path: &str) -> Self {
        if problem_answers::OAUTH_PATHS.contains(&path) { Self::OAuth } else { Self::Problem }
    }

    fn component(self, status: u16) -> String {
        match self {
            Self::Problem => format!("Problem{status}"),
            Self::OAuth => format!("OAuth{status}"),
        }
    }

    fn schema(self) -> &'static str {
        match self {
            Self::Problem => "Problem",
            Self::OAuth => "OAuthError",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Problem => "application/problem+json",
            Self::OAuth => "application/json",
        }
    }
}

const ERRORS: [(u16, &str); 15] = [
    (400, "The request is malformed, or contains more than one credential"),
    (401, "The credential is malformed, unknown, expired or revoked"),
    (403, "The credential is missing, not valid or not sufficient, another site sent it, or registration is closed"),
    (404, "The object does not exist"),
    (408, "The body did not arrive in time"),
    (409, "The request conflicts with stored data"),
    (410, "The object existed, but is permanently gone"),
    (412, "The object has changed since it was read"),
    (413, "The body is too large"),
    (415, "The media type of the body is not supported, or the body has a content encoding"),
    (422, "Some fields are invalid; `errors` lists them"),
    (429, "The client sent too many requests of this kind"),
    (500, "The server failed"),
    (503, "The server cannot process the request now; nothing was changed"),
    (504, "It is unknown whether the change was stored; check before you repeat it"),
];

fn error_headers(status: u16) -> Value {
    match status {
        401 | 403 => json!({ "WWW-Authenticate": text_header("A challenge, usually Bearer (RFC 6750)") }),
        429 => json!({
            "Retry-After": number_header("Seconds to wait"),
            "RateLimit-Limit": number_header("Requests allowed at once"),
            "RateLimit-Remaining": number_header("Requests allowed now: 0"),
            "RateLimit-Reset": number_header("Seconds until the next request is allowed"),
        }),
        415 => json!({ "Accept-Encoding": text_header("`identity`, if the content encoding is the reason") }),
        503 => json!({ "Retry-After": number_header("Seconds to wait") }),
        _ => Value::Null,
    }
}

/// The statuses of the errors that an operation can return, in ascending order.
fn error_statuses(path: &str, method: &str, operation: &Value, profile: StatusProfile) -> BTreeSet<u16> {
    let mut statuses = BTreeSet::new();
    // It touches nothing that can fail.
    if path == "/health/live" {
        return statuses;
    }
    statuses.extend([500, 503]);
    let (guarded, oauth) = (
        operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty()),
        problem_answers::OAUTH_PATHS.contains(&path),
    );
    let names: Vec<&str> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    if guarded {
        statuses.extend([400, 401]);
        // `/introspect` returns 401 instead of 403 (RFC 7662, section 2.3). Without a required permission, 403 is only
        // for a missing credential, with `fastapi`.
        let is_403 = path != "/introspect" && (path != "/protected-route" || profile == StatusProfile::Fastapi);
        statuses.extend(is_403.then_some(403));
        statuses.insert(429);
    }
    if operation.get("requestBody").is_some() {
        statuses.extend([400, 408, 413, 415, 429]);
        // OAuth 2.0 returns 400 for invalid values; 401 is for client authentication, and for a wrong password with
        // `fastapi`.
        let is_401 = path != "/token" || profile == StatusProfile::Fastapi;
        statuses.extend(if oauth { is_401.then_some(401) } else { Some(422) });
    }
    let in_query = |parameter: &Value| parameter["in"] == "query";
    if operation["parameters"].as_array().into_iter().flatten().any(in_query) {
        statuses.extend([400, 422]);
    }
    if names.contains(&"id") {
        statuses.insert(404);
    }
    if names.contains(&"If-Match") {
        statuses.insert(412);
    }
    match operation["operationId"].as_str().unwrap_or_default() {
        "claimKey" => statuses.extend([404, 409, 410]),
        "createInvitation" => statuses.extend([404, 409]),
        "resendInvitation" => {
            statuses.insert(422);
        }
        "requestPasswordReset" | "requestEmailVerification" => {
            statuses.insert(404);
        }
        "confirmPasswordReset" | "undoEmailChange" | "acceptInvitation" => {
            statuses.insert(410);
        }
        "confirmRegistration" | "confirmEmailVerification" | "confirmEmailChange" => statuses.extend([403, 410]),
        "register" => statuses.extend([403, 409]),
        "createSession" => statuses.extend([401, 403]),
        "endSession" => statuses.extend([400, 403, 429]),
        "createUser" | "editMe" | "deleteMe" | "editUser" | "deleteUser" | "createKey" | "rotateKey" | "issueKey" => {
            statuses.insert(409);
        }
        _ => {}
    }
    if method != "get" && path != "/introspect" {
        statuses.insert(504);
    }
    statuses
}

fn success_headers(operation: &mut Value) {
    let cookie = match operation["operationId"].as_str().unwrap_or_default() {
        "createSession" => Some("The cookie of the session, until the browser is closed"),
        "endSession" => Some("Removes the cookie"),
        _ => None,
    };
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, response) in responses {
        let mut headers = Map::new();
        if let Some(cookie) = cookie.filter(|_| status.starts_with('2')) {
            headers.insert("Set-Cookie".to_owned(), text_header(cookie));
            if status == "204" {
                let description = "What the browser removes: what it has stored for this server";
                headers.insert("Clear-Site-Data".to_owned(), text_header(description));
            }
        }
        match status.as_str() {
            "201" => drop(headers.insert("Location".to_owned(), text_header("Path of the new object"))),
            "303" => drop(headers.insert("Location".to_owned(), text_header("Address of the documentation"))),
            _ => {}
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

fn number_header(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "integer" } })
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
            "type": { "type": "string", "description": "Always `about:blank`: `title` is the phrase of the status" },
            "title": { "type": "string", "description": "Reason phrase of the status" },
            "status": { "type": "integer", "description": "HTTP status" },
            "detail": { "type": "string", "description": "What is wrong and what to do, for people" },
            "code": { "type": "string", "description": "Stable code for programs" },
            "request_id": { "type": "string", "description": "Id of the request, as in the log" },
            "errors": {
                "type": "array",
                "description": "With 422: each invalid field",
                "items": { "$ref": "#/components/schemas/FieldError" },
            },
        },
    })
}

fn field_error_schema() -> Value {
    json!({
        "type": "object",
        "description": "An invalid field of a request.",
        "required": ["field", "code", "message"],
        "additionalProperties": false,
        "properties": {
            "field": { "type": "string", "description": "Name of the field in the request" },
            "code": { "type": "string", "description": "Stable code for programs" },
            "message": { "type": "string", "description": "What is wrong and what to do, for people" },
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
            "error": { "type": "string", "description": "Stable code for programs" },
            "error_description": { "type": "string", "description": "Explanation in printable ASCII" },
            "detail": { "type": "string", "description": "What is wrong and what to do, for people" },
        },
    })
}
