//! The examples of requests and responses, which the resources declare.

use serde_json::{Map, Value, json};

use crate::http::openapi::{merge, operations};
use crate::http::resource::Resource;

/// Adds the examples to all bodies of requests and responses, and to the properties of request bodies.
pub(crate) fn add(document: &mut Value, resources: &[Resource]) {
    let example = |name: &str| {
        let mut examples = resources.iter().flat_map(|resource| &resource.examples);
        examples.find(|declared| declared.0 == name).map(|(_, example)| example.clone())
    };
    for operation in operations(document) {
        let form = example(operation["operationId"].as_str().unwrap_or_default());
        for content in operation.get_mut("requestBody").into_iter().flat_map(contents) {
            let schema = &mut content["schema"];
            let form = form.clone().filter(|_| schema.get("$ref").is_none());
            if let Some(form) = &form {
                add_to_properties(schema, form);
            }
            let value = form.or_else(|| example(schema_name(content)));
            merge(content, value.map(|value| json!({ "example": value })).unwrap_or_default());
        }
        for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            for content in contents(response) {
                let value = example(schema_name(content));
                merge(content, value.map(|value| json!({ "example": value })).unwrap_or_default());
            }
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object_mut().into_iter().flatten() {
        // Only request bodies are closed.
        if let Some(body) = example(name).filter(|_| schema.get("additionalProperties") == Some(&json!(false))) {
            add_to_properties(schema, &body);
        }
    }
}

/// The contents of a body, one for each media type.
fn contents(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    body.get_mut("content").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
}

fn schema_name(content: &Value) -> &str {
    let reference = content["schema"]["$ref"].as_str().unwrap_or_default();
    reference.rsplit('/').next().unwrap_or_default()
}

/// Adds the members of the example `body` to the properties of its schema, and puts these in the same order first.
fn add_to_properties(schema: &mut Value, body: &Value) {
    let Some(properties) = schema["properties"].as_object_mut() else { return };
    let mut remaining = std::mem::take(properties);
    for (name, value) in body.as_object().into_iter().flatten() {
        let Some(mut property) = remaining.shift_remove(name) else { continue };
        merge(&mut property, json!({ "example": value }));
        properties.insert(name.clone(), property);
    }
    properties.extend(remaining);
}
