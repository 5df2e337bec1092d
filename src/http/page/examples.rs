//! The examples of pages in the OpenAPI document.

use serde_json::{Value, json};

use crate::http::resource::EXAMPLE_TIME;

/// An example of each request and response body, by its schema.
pub(super) fn examples() -> Vec<(&'static str, Value)> {
    let (title, body) = ("Flight plan", "Start at dawn.");
    let page = json!({
        "id": 1, "title": title, "body": body, "owner": 2, "created_at": EXAMPLE_TIME, "updated_at": EXAMPLE_TIME,
        "updated_by": 2, "version": 1,
    });
    let created = json!({
        "id": 2, "at": EXAMPLE_TIME, "actor": "user:2", "user": 2, "role": "member",
        "scopes": ["pages:read", "pages:write"], "action": "page.create", "version_before": null, "version_after": 1,
        "changed": ["title", "body"],
    });
    let list = json!({ "page": 1, "size": 50, "total": 1, "total_is_exact": true, "items": [page], "next": null });
    vec![
        ("PageCreateRequest", json!({ "title": title, "body": body })),
        ("PageRequest", json!({ "title": title, "body": "Start at noon." })),
        ("PagePatch", json!({ "title": "Flight plan for Tuesday" })),
        ("PageListResponse", list),
        ("PageResponse", page),
        ("PageHistoryResponse", json!({ "items": [created], "next": null })),
    ]
}
