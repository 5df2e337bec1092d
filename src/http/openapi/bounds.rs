//! The bounds of requests and responses in the OpenAPI document, from the constants that the service layer enforces.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::config::RegistrationMode;
use crate::config::{Settings, StatusProfile};
use crate::domain::audit::{Action, Outcome};
use crate::domain::email;
use crate::domain::mail::Language;
use crate::domain::role::BuiltInRole;
use crate::domain::scope::Scope;
use crate::domain::text;
use crate::http::audit::NDJSON;
use crate::http::openapi::{add_bounds, merge, operations};
use crate::http::resource::{EXAMPLE_TIME, NO_NUL, Resource};
use crate::http::wire::body;
use crate::service::account::{user_search, users as user};
use crate::service::audit::filters;
use crate::service::audit::read::{self as audit, Order};
use crate::service::key::issued::Delivery;
use crate::service::key::{grant, issued as issue, own as key};
use crate::service::stats::period::Step;

const SCOPE_TOKEN: &str = r"^[!#-\[\]-~]+$";
const SCOPE_LIST: &str = r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$";
const ENTITY_TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;

/// Adds the bounds of request bodies and parameters. JSON bodies reject unknown members.
pub(crate) fn add_to_requests(document: &mut Value, settings: &Settings, resources: &[Resource]) {
    let Settings { http, auth, registration, roles, .. } = settings;
    let roles = roles.roles();
    let (line, line_or_empty) = (text::pattern(false), text::pattern(true));
    let name = json!({ "minLength": registration.name_min_length, "maxLength": user::TEXT_MAX, "pattern": line });
    let surname = json!({ "maxLength": user::TEXT_MAX, "pattern": line_or_empty });
    let email = json!({ "maxLength": email::MAX_LENGTH, "format": "email" });
    let website = json!({ "maxLength": user::TEXT_MAX, "pattern": line_or_empty });
    let new_password = json!({
        "minLength": auth.password_min_length, "maxLength": auth.password_max_length, "pattern": NO_NUL,
        "format": "password",
    });
    let current_password = json!({ "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" });
    let key_name = json!({ "minLength": 1, "maxLength": grant::NAME_MAX, "pattern": line });
    let scopes = json!({ "maxItems": grant::SCOPES_MAX, "uniqueItems": true });
    let known_scopes = roles.known_scopes();
    let date_time = json!({ "format": "date-time", "maxLength": body::SMALL, "example": "2030-12-31T23:59:59Z" });
    let schemas = &mut document["components"]["schemas"];
    // As the body of `POST /register` requires.
    let of_registration = match registration.mode {
        RegistrationMode::Verified => json!(["email"]),
        RegistrationMode::Open | RegistrationMode::Invited | RegistrationMode::Closed => {
            json!(["email", "name", "password", "surname"])
        }
    };
    schemas["RegisterRequest"]["required"] = of_registration;
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
                "language": { "enum": Language::ALL.map(Language::code) }, "current_password": current_password,
            }),
        ),
        (
            "UserCreateRequest",
            json!({
                "name": name, "surname": surname, "email": email, "website": website, "password": new_password,
                "role": { "enum": roles.names(), "default": BuiltInRole::Member.name() },
            }),
        ),
        ("PasswordRequest", json!({ "current_password": current_password, "new_password": new_password })),
        ("PasswordResetConfirmRequest", json!({ "new_password": new_password })),
        (
            "InvitationRequest",
            json!({
                "role": { "enum": roles.names(), "default": BuiltInRole::Member.name() },
                "language": { "enum": Language::ALL.map(Language::code) },
            }),
        ),
        (
            "AccountFromLinkRequest",
            json!({ "name": name, "surname": surname, "website": website, "password": new_password }),
        ),
        ("UserPatch", json!({ "role": { "enum": roles.names() } })),
        ("KeyCreateRequest", json!({ "name": key_name, "scopes": scopes, "expires_at": date_time })),
        ("KeyPatch", json!({ "name": key_name, "scopes": scopes, "expires_at": date_time })),
        ("RotateRequest", json!({ "overlap_seconds": { "minimum": 0, "maximum": key::OVERLAP_MAX, "default": 0 } })),
        (
            "KeyIssueRequest",
            json!({
                "name": key_name, "scopes": scopes, "expires_at": date_time,
                "order": { "minLength": 1, "maxLength": issue::ORDER_MAX, "pattern": line },
                "metadata": { "type": "object", "additionalProperties": true },
                "delivery": { "enum": Delivery::ALL.map(Delivery::name), "default": Delivery::Secret.name() },
            }),
        ),
        ("ClaimRequest", json!({ "claim": { "maxLength": body::SMALL, "pattern": NO_NUL } })),
    ]
    .into_iter()
    .chain(resources.iter().flat_map(|resource| resource.bodies.iter().cloned()))
    {
        add_bounds(&mut schemas[schema], bounds);
        schemas[schema]["additionalProperties"] = json!(false);
    }
    let patches = resources.iter().flat_map(|resource| &resource.patches).copied();
    for all_optional in ["AccountPatch", "UserPatch", "KeyPatch"].into_iter().chain(patches) {
        schemas[all_optional]["minProperties"] = json!(1);
    }
    let description = "A scope of Latchkey, or an external scope of a role.";
    schemas["Scope"] = json!({ "description": description, "type": "string", "enum": known_scopes });
    for schema in ["KeyCreateRequest", "KeyPatch"] {
        // With an enum in place, the Java client of openapi-generator does not compile.
        schemas[schema]["properties"]["scopes"]["items"] = json!({ "$ref": "#/components/schemas/Scope" });
    }
    let any_scope = json!({ "minLength": 1, "maxLength": grant::SCOPE_MAX, "pattern": SCOPE_TOKEN });
    merge(&mut schemas["KeyIssueRequest"]["properties"]["scopes"]["items"], any_scope);

    let sign_in = match http.status_codes {
        StatusProfile::Fastapi => json!(["username", "password"]),
        StatusProfile::Rfc => json!(["grant_type", "username", "password"]),
    };
    let ignored = json!({ "maxLength": body::SMALL, "pattern": NO_NUL, "example": "ignored" });
    let non_empty = json!({ "minLength": 1, "maxLength": body::SMALL, "pattern": NO_NUL });
    let secret = json!({ "minLength": 1, "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" });
    let escaped: Vec<String> = known_scopes.iter().map(|scope| escape(scope)).collect();
    let known_scope = format!("({})", escaped.join("|"));
    let scope_list =
        json!({ "pattern": format!("^({known_scope}( {known_scope})*)?$"), "example": Scope::PagesRead.name() });
    let hint = json!({ "maxLength": body::SMALL, "pattern": NO_NUL, "example": "access_token" });
    let token = json!({ "token": secret, "token_type_hint": hint });
    for (path, required, bounds) in [
        (
            "/token",
            sign_in,
            json!({
                "grant_type": { "enum": ["password"] }, "username": non_empty, "password": secret, "scope": scope_list,
                "client_id": ignored, "client_secret": ignored,
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
        add_bounds(form, bounds);
    }

    for operation in operations(document) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            let declared = resources.iter().find_map(|resource| resource.parameter(&id, &name));
            merge(&mut parameter["schema"], parameter_bounds(&id, &name));
            merge(&mut parameter["schema"], declared.unwrap_or_default());
            if name == "id" {
                parameter["description"] = json!("The `id` in the response that created or listed the object");
            }
            for keyword in ["example", "x-prefill"] {
                let value = parameter["schema"].as_object_mut().and_then(|schema| schema.remove(keyword));
                merge(parameter, value.map(|value| json!({ keyword: value })).unwrap_or_default());
            }
        }
    }
}

/// A regular expression that matches this text only.
fn escape(text: &str) -> String {
    let is_special = |character: char| character.is_ascii_punctuation() && !":_-@,<>=!#%&~`'\";".contains(character);
    text.chars().flat_map(|character| is_special(character).then_some('\\').into_iter().chain([character])).collect()
}

fn parameter_bounds(operation: &str, name: &str) -> Value {
    match (operation, name) {
        (_, "id") => json!({ "minimum": 1, "example": 1 }),
        ("authorize", "scope") => json!({ "pattern": SCOPE_LIST }),
        (_, "If-Match") => json!({ "pattern": ENTITY_TAGS, "example": "*" }),
        (_, "Idempotency-Key") => json!({
            "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$",
            "example": "0b8f6a1e-6d0c-4f0e-9d5e-3a51c7a2d9b4",
        }),
        (_, "search") => json!({ "maxLength": user_search::SEARCH_MAX }),
        ("listIssuedKeys", "order") => json!({ "maxLength": issue::ORDER_MAX }),
        (_, "order") => {
            let newest = Order::Newest.name();
            json!({ "enum": Order::ALL.map(Order::name), "default": newest, "example": newest })
        }
        (_, "outcome") => json!({ "enum": Outcome::ALL.map(Outcome::name) }),
        (_, "action") => json!({ "enum": Action::ALL.iter().map(|action| action.name()).collect::<Vec<_>>() }),
        (_, "actor") => json!({ "pattern": filters::actor_pattern() }),
        (_, "target") => json!({ "pattern": filters::target_pattern() }),
        (_, "since" | "until") => json!({ "format": "date-time" }),
        (_, "after") => json!({ "minimum": 0, "example": 0 }),
        ("listUsers", "limit") => limit(user_search::LIMIT_MAX, user_search::LIMIT_DEFAULT),
        ("listIssuedKeys", "limit") => limit(issue::LIMIT_MAX, issue::LIMIT_DEFAULT),
        (_, "limit") => limit(audit::LIMIT_MAX, audit::LIMIT_DEFAULT),
        _ => json!({}),
    }
}

fn limit(maximum: i64, default: i64) -> Value {
    json!({ "minimum": 1, "maximum": maximum, "default": default, "example": default })
}

/// Marks all members of responses as required, because they are always present. Members that paperclip treats as
/// optional can be null.
pub(crate) fn add_to_responses(document: &mut Value, resources: &[Resource]) {
    let schemas = &mut document["components"]["schemas"];
    for (list, item) in resources.iter().flat_map(|resource| &resource.lists) {
        // paperclip inlines the schema of list items.
        let reference = json!({ "$ref": format!("#/components/schemas/{item}") });
        schemas[*item] = std::mem::replace(&mut schemas[*list]["properties"]["items"]["items"], reference);
    }
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        if !name.ends_with("Response") {
            continue;
        }
        require_members(schema);
    }
    add_bounds(&mut schemas["UserResponse"], json!({ "language": { "enum": Language::ALL.map(Language::code) } }));
    add_bounds(&mut schemas["HealthResponse"], json!({ "status": { "enum": ["ok"] } }));
    add_bounds(&mut schemas["Introspection"], json!({ "token_type": { "enum": ["Bearer"] } }));
    add_bounds(&mut schemas["TokenResponse"], json!({ "token_type": { "enum": ["bearer"] } }));
    let step = json!({ "enum": Step::ALL.map(Step::name) });
    let items = json!({ "maxItems": Step::ALL.map(Step::max_items).into_iter().max() });
    add_bounds(&mut schemas["StatsResponse"], json!({ "step": step, "items": items }));
    let counts = schemas["StatsItemResponse"]["properties"].as_object_mut().into_iter().flatten();
    for (_, count) in counts.filter(|(_, member)| member["type"] == "integer") {
        count["minimum"] = json!(0);
    }
    // The other schemas with these members also describe issued keys.
    let own_scopes = "Granted scopes; they are in force while the owner's role holds them";
    add_bounds(&mut schemas["KeyResponse"], json!({ "scopes": { "description": own_scopes } }));
    for record in ["IssuedKeyResponse", "KeyIssueResponse"] {
        add_bounds(&mut schemas[record], json!({ "metadata": { "additionalProperties": true } }));
    }
    let lines = json!({ "schema": { "$ref": "#/components/schemas/AuditEntryResponse" } });
    document["paths"]["/audit"]["get"]["responses"]["200"]["content"][NDJSON] = lines;
}

/// Marks all members of an object, and of the objects in it, as required.
fn require_members(schema: &mut Value) {
    let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    let members = schema["properties"].as_object_mut().into_iter().flatten();
    let members: Vec<Value> = members
        .map(|(member, schema)| {
            if !required.iter().any(|required| required == member) {
                schema["nullable"] = json!(true);
            }
            if schema["format"] == "date-time" {
                merge(schema, json!({ "pattern": Timestamp::PATTERN, "example": EXAMPLE_TIME }));
            }
            if schema["properties"].is_object() {
                require_members(schema);
            }
            json!(member)
        })
        .collect();
    schema["required"] = members.into();
}
