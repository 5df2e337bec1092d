//! The links from an operation that creates an object to those that take its id. The page fills in the ids with them.

use serde_json::{Map, Value, json};

/// Adds the links to the success responses of operations that create an object.
pub(crate) fn add(document: &mut Value) {
    let targets = targets(document);
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let Some(responses) = item.get_mut("post").map(|operation| &mut operation["responses"]) else { continue };
        let created = responses.pointer("/201/content/application~1json/schema/$ref").cloned();
        let Some(created) = created else { continue };
        let object = format!("{}/{{id}}", path.trim_end_matches('/'));
        let linked = targets.iter().filter(|target| {
            let is_own = target.path.starts_with(&object) || target.schema == created;
            is_own || (path == "/session" && target.path.starts_with("/me/sessions/{id}"))
        });
        let mut links: Map<String, Value> = linked
            .map(|target| {
                let link = json!({ "operationId": target.operation, "parameters": { "id": "$response.body#/id" } });
                (target.operation.clone(), link)
            })
            .collect();
        if path == "/keys" {
            // A text, because generators such as openapi-generator refuse an object here.
            let body = r#"{"claim": "{$response.body#/claim}"}"#;
            links.insert("claimKey".to_owned(), json!({ "operationId": "claimKey", "requestBody": body }));
        }
        for status in ["200", "201"] {
            if let Some(response) = responses.get_mut(status) {
                response["links"] = links.clone().into();
            }
        }
    }
}

/// An operation on one object.
struct Target {
    path: String,
    operation: String,
    /// The schema of the object.
    schema: Value,
}

fn targets(document: &Value) -> Vec<Target> {
    let mut targets = Vec::new();
    let paths = document["paths"].as_object();
    for (path, item) in paths.into_iter().flatten() {
        let Some(end) = path.find("{id}") else { continue };
        let object = path.get(..end + "{id}".len()).and_then(|object| paths?.get(object));
        let schema = object.map(|object| &object["get"]["responses"]["200"]["content"]["application/json"]["schema"]);
        for operation in item.as_object().into_iter().flat_map(Map::values) {
            targets.push(Target {
                path: path.clone(),
                operation: operation["operationId"].as_str().unwrap_or_default().to_owned(),
                schema: schema.map(|schema| schema["$ref"].clone()).unwrap_or_default(),
            });
        }
    }
    targets
}
