//! The error answers of each operation, from what it takes, and the headers of all answers.

use serde_json::{Map, Value, json};

use super::super::problem;

/// Every error answer of every operation, from what the operation takes.
pub(super) fn of_operations(document: &mut Value) {
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
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            for status in error_statuses(path, method, operation) {
                let reference = format!("#/components/responses/{shape}{status}");
                operation["responses"][status.to_string()] = json!({ "$ref": reference });
            }
            success_headers(operation);
        }
    }
}

const ERRORS: [(u16, &str); 15] = [
    (400, "The request cannot be read, or carries more than one credential"),
    (401, "The credential is malformed, unknown, expired or revoked"),
    (403, "Not authenticated, or not allowed"),
    (404, "There is no such object"),
    (408, "The body did not arrive in time"),
    (409, "The request contradicts what is stored"),
    (410, "It was there once, and will not come back"),
    (412, "The object has changed since it was read"),
    (413, "The body is too large"),
    (415, "The body is of another media type, or has a content encoding"),
    (422, "Some fields are not acceptable; `errors` names them"),
    (429, "There were too many requests of this kind by this client"),
    (500, "The server failed"),
    (503, "The server cannot do this just now; it has not been done"),
    (504, "It is unknown whether the change was stored; look before you repeat it"),
];

fn error_headers(status: u16) -> Value {
    match status {
        401 | 403 => json!({ "WWW-Authenticate": text_header("A challenge, Bearer as a rule (RFC 6750)") }),
        429 => json!({
            "Retry-After": number_header("Seconds to wait"),
            "RateLimit-Limit": number_header("So many may come at once"),
            "RateLimit-Remaining": number_header("So many may come now: none"),
            "RateLimit-Reset": number_header("Seconds until one may come"),
        }),
        415 => json!({ "Accept-Encoding": text_header("`identity`, if the content encoding is the reason") }),
        503 => json!({ "Retry-After": number_header("Seconds to wait") }),
        _ => json!({}),
    }
}

fn error_statuses(path: &str, method: &str, operation: &Value) -> Vec<u16> {
    let mut statuses = vec![500];
    let (guarded, oauth) = (operation.get("security").is_some(), problem::OAUTH_PATHS.contains(&path));
    let names: Vec<&str> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    if guarded {
        statuses.extend([400, 401]);
        // Who may not introspect is 401 (RFC 7662, section 2.3).
        statuses.extend((path != "/introspect").then_some(403));
        statuses.push(429);
    }
    if operation.get("requestBody").is_some() {
        statuses.extend([400, 408, 413, 415, 429]);
        // OAuth says 400 for wrong values; 401 is for clients, and by the status profile for a wrong password.
        statuses.push(if oauth { 401 } else { 422 });
    }
    let in_query = |parameter: &Value| parameter["in"] == "query";
    if operation["parameters"].as_array().into_iter().flatten().any(in_query) {
        statuses.extend([400, 422]);
    }
    if names.contains(&"id") {
        statuses.push(404);
    }
    if names.contains(&"If-Match") {
        statuses.push(412);
    }
    match operation["operationId"].as_str().unwrap_or_default() {
        "claimKey" => statuses.extend([404, 410]),
        "register" | "editMe" | "deleteMe" | "editUser" | "deleteUser" | "createKey" | "rotateKey" | "issueKey" => {
            statuses.push(409);
        }
        _ => {}
    }
    if path != "/health/live" {
        statuses.push(503);
    }
    if method != "get" && path != "/introspect" {
        statuses.push(504);
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
