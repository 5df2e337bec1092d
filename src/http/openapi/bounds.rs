//! What requests may hold and answers always do: the bounds that the use cases enforce.

use serde_json::{Value, json};

use super::super::audit::NDJSON;
use super::super::body;
use super::{bound, merge, operations};
use crate::clock::Timestamp;
use crate::config::{AuthSettings, HttpSettings, StatusProfile};
use crate::domain::audit::{Action, Outcome};
use crate::domain::email;
use crate::domain::role::Role;
use crate::domain::scope::Scope;
use crate::domain::text;
use crate::service::audit::{self, Order};
use crate::service::issue::Delivery;
use crate::service::{grant, issue, key, page, user};

const NO_NUL: &str = r"^[^\u0000]*$";
const SCOPE_TOKEN: &str = r"^[!#-\[\]-~]+$";
const SCOPE_LIST: &str = r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$";
const ENTITY_TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;

/// Request bodies and parameters with their bounds. What they do not name is refused.
pub(super) fn of_requests(document: &mut Value, http: &HttpSettings, auth: &AuthSettings) {
    let (line, line_or_none) = (text::pattern(false), text::pattern(true));
    let title = json!({ "minLength": 1, "maxLength": page::TITLE_MAX, "pattern": line });
    let body = json!({ "maxLength": page::BODY_MAX, "pattern": NO_NUL });
    let version = json!({ "minimum": 1, "maximum": page::VERSION_MAX });
    let name = json!({ "minLength": user::NAME_MIN, "maxLength": user::TEXT_MAX, "pattern": line });
    let surname = json!({ "maxLength": user::TEXT_MAX, "pattern": line_or_none });
    let email = json!({ "maxLength": email::MAX_LENGTH, "format": "email" });
    let website = json!({ "maxLength": user::TEXT_MAX, "pattern": line_or_none });
    let new_password = json!({
        "minLength": auth.password_min_length, "maxLength": auth.password_max_length, "pattern": NO_NUL,
        "format": "password",
    });
    let current_password = json!({ "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" });
    let key_name = json!({ "minLength": 1, "maxLength": grant::NAME_MAX, "pattern": line });
    let scopes = json!({ "maxItems": grant::SCOPES_MAX, "uniqueItems": true });
    let own_scopes: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
    let moment = json!({ "format": "date-time", "maxLength": body::SMALL });
    let schemas = &mut document["components"]["schemas"];
    for (schema, bounds) in [
        (
            "RegisterRequest",
            json!({
                "name": name, "surname": surname, "email": email, "website": website, "password": new_password,
            }),
        ),
        (
            "AccountPatch",
            json!({
                "name": name, "surname": surname, "email": email, "website": website,
                "current_password": current_password,
            }),
        ),
        ("PasswordRequest", json!({ "current_password": current_password, "new_password": new_password })),
        ("UserPatch", json!({ "role": { "enum": Role::ALL.map(Role::name) } })),
        ("KeyCreateRequest", json!({ "name": key_name, "scopes": scopes, "expires_at": moment })),
        ("KeyPatch", json!({ "name": key_name, "scopes": scopes, "expires_at": moment })),
        ("RotateRequest", json!({ "overlap_seconds": { "minimum": 0, "maximum": key::OVERLAP_MAX, "default": 0 } })),
        (
            "KeyIssueRequest",
            json!({
                "name": key_name, "scopes": scopes, "expires_at": moment,
                "order": { "minLength": 1, "maxLength": issue::ORDER_MAX, "pattern": line },
                "metadata": { "type": "object", "additionalProperties": true },
                "delivery": { "enum": Delivery::ALL.map(Delivery::name), "default": Delivery::Secret.name() },
            }),
        ),
        ("ClaimRequest", json!({ "claim": { "maxLength": body::SMALL, "pattern": NO_NUL } })),
        ("PageCreateRequest", json!({ "title": title, "body": body })),
        ("PageRequest", json!({ "title": title, "body": body, "version": version })),
        ("PagePatch", json!({ "title": title, "body": body, "version": version })),
    ] {
        bound(&mut schemas[schema], bounds);
        schemas[schema]["additionalProperties"] = json!(false);
    }
    for all_optional in ["AccountPatch", "UserPatch", "KeyPatch", "PagePatch"] {
        schemas[all_optional]["minProperties"] = json!(1);
    }
    for schema in ["KeyCreateRequest", "KeyPatch"] {
        merge(&mut schemas[schema]["properties"]["scopes"]["items"], json!({ "enum": own_scopes }));
    }
    let any_scope = json!({ "minLength": 1, "maxLength": grant::SCOPE_MAX, "pattern": SCOPE_TOKEN });
    merge(&mut schemas["KeyIssueRequest"]["properties"]["scopes"]["items"], any_scope);

    let sign_in = match http.status_codes {
        StatusProfile::Fastapi => json!(["username", "password"]),
        StatusProfile::Rfc => json!(["grant_type", "username", "password"]),
    };
    let any_text = json!({ "maxLength": body::SMALL, "pattern": NO_NUL });
    let filled = json!({ "minLength": 1, "maxLength": body::SMALL, "pattern": NO_NUL });
    let secret = json!({ "minLength": 1, "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" });
    let one_of_ours = format!("({})", own_scopes.join("|"));
    let known_scopes = json!({ "pattern": format!("^({one_of_ours}( {one_of_ours})*)?$") });
    let token = json!({ "token": secret, "token_type_hint": any_text });
    for (path, required, bounds) in [
        (
            "/token",
            sign_in,
            json!({
                "grant_type": { "enum": ["password"] }, "username": filled, "password": secret, "scope": known_scopes,
                "client_id": any_text, "client_secret": { "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" },
            }),
        ),
        ("/revoke", json!(["token"]), token.clone()),
        ("/introspect", json!(["token"]), token),
    ] {
        let form = &mut document["paths"][path]["post"]["requestBody"];
        form["required"] = json!(true);
        let form = &mut form["content"]["application/x-www-form-urlencoded"]["schema"];
        form["type"] = json!("object");
        form["required"] = required;
        bound(form, bounds);
    }

    for operation in operations(document) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let bounds = parameter_bounds(&id, parameter["name"].as_str().unwrap_or_default());
            merge(&mut parameter["schema"], bounds);
        }
    }
}

fn parameter_bounds(operation: &str, name: &str) -> Value {
    match (operation, name) {
        (_, "id") => json!({ "minimum": 1 }),
        ("deletePage", "version") => json!({ "minimum": 1, "maximum": page::VERSION_MAX }),
        ("authorize", "scope") => json!({ "pattern": SCOPE_LIST }),
        // Without a default, which generated clients would send beside `after`.
        ("listPages", "page") => json!({ "minimum": 1, "maximum": page::OFFSET_MAX + 1 }),
        ("listPages", "size") => json!({ "minimum": 1, "maximum": page::SIZE_MAX, "default": page::SIZE_DEFAULT }),
        (_, "If-Match") => json!({ "pattern": ENTITY_TAGS }),
        (_, "Idempotency-Key") => json!({ "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$" }),
        (_, "search") => json!({ "maxLength": user::SEARCH_MAX }),
        ("listIssuedKeys", "order") => json!({ "maxLength": issue::ORDER_MAX }),
        (_, "order") => json!({ "enum": Order::ALL.map(Order::name), "default": Order::Newest.name() }),
        (_, "outcome") => json!({ "enum": Outcome::ALL.map(Outcome::name) }),
        (_, "action") => json!({ "enum": Action::ALL.iter().map(|action| action.name()).collect::<Vec<_>>() }),
        (_, "since" | "until") => json!({ "format": "date-time" }),
        (_, "after") => json!({ "minimum": 0 }),
        ("listUsers", "limit") => json!({ "minimum": 1, "maximum": user::LIMIT_MAX, "default": user::LIMIT_DEFAULT }),
        ("listIssuedKeys", "limit") => {
            json!({ "minimum": 1, "maximum": issue::LIMIT_MAX, "default": issue::LIMIT_DEFAULT })
        }
        (_, "limit") => json!({ "minimum": 1, "maximum": audit::LIMIT_MAX, "default": audit::LIMIT_DEFAULT }),
        _ => json!({}),
    }
}

/// Answers always have all their members; what paperclip takes for optional may be null.
pub(super) fn of_responses(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    for (list, item) in [
        ("PageListResponse", "PageListItemResponse"),
        ("UserListResponse", "UserResponse"),
        ("KeyListResponse", "KeyResponse"),
        ("IssuedKeyListResponse", "IssuedKeyResponse"),
        ("AuditListResponse", "AuditEntryResponse"),
        ("PageHistoryResponse", "PageChangeResponse"),
    ] {
        // paperclip writes the items of a list out in place.
        let reference = json!({ "$ref": format!("#/components/schemas/{item}") });
        schemas[item] = std::mem::replace(&mut schemas[list]["properties"]["items"]["items"], reference);
    }
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        if !name.ends_with("Response") {
            continue;
        }
        let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
        let members = schema["properties"].as_object_mut().into_iter().flatten();
        let members: Vec<Value> = members
            .map(|(member, rules)| {
                if !required.iter().any(|required| required == member) {
                    rules["nullable"] = json!(true);
                }
                if rules["format"] == "date-time" {
                    merge(rules, json!({ "pattern": Timestamp::PATTERN, "example": "2026-11-25T20:00:00.000000Z" }));
                }
                json!(member)
            })
            .collect();
        schema["required"] = members.into();
    }
    bound(&mut schemas["HealthResponse"], json!({ "status": { "enum": ["ok"] } }));
    bound(&mut schemas["Introspection"], json!({ "token_type": { "enum": ["Bearer"] } }));
    bound(&mut schemas["TokenResponse"], json!({ "token_type": { "enum": ["bearer"] } }));
    bound(&mut schemas["UserResponse"], json!({ "role": { "enum": Role::ALL.map(Role::name) } }));
    for record in ["IssuedKeyResponse", "KeyIssueResponse"] {
        bound(&mut schemas[record], json!({ "metadata": { "additionalProperties": true } }));
    }
    let lines = json!({ "schema": { "$ref": "#/components/schemas/AuditEntryResponse" } });
    document["paths"]["/audit"]["get"]["responses"]["200"]["content"][NDJSON] = lines;
}
