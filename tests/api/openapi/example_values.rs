//! The examples of the OpenAPI document are complete, and valid by their own schemas.

use std::path::Path;

use latchkey::config::{Settings, StatusProfile};
use regex::Regex;
use serde_json::{Value, json};

use crate::support::documents::assert_complete;

fn document(profile: StatusProfile) -> Value {
    let mut settings = Settings::defaults().unwrap();
    settings.http.status_codes = profile;
    serde_json::from_str(latchkey::http::routes::document(&settings).json()).unwrap()
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str();
    reference.map_or(value, |reference| document.pointer(reference.trim_start_matches('#')).unwrap())
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    items.map(|operation| (operation["operationId"].as_str().unwrap(), operation))
}

/// The examples of a parameter or content.
fn examples(place: &Value) -> Vec<&Value> {
    let named = place["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
    place.get("example").into_iter().chain(named).collect()
}

/// `file:line` of the first line below `src/http` that contains `text`.
fn place_of(text: &str) -> String {
    fn search(folder: &Path, text: &str) -> Option<String> {
        let mut entries: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().find_map(|path| {
            if path.is_dir() {
                return search(path, text);
            }
            let lines = std::fs::read_to_string(path).unwrap();
            let line = lines.lines().position(|line| line.contains(text))? + 1;
            let file = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            Some(format!("{}:{line}", file.display()))
        })
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    search(&root, text).unwrap_or_else(|| format!("src/http (no line with {text})"))
}

/// What a content without an example asks for.
fn missing_in(id: &str, content: &Value) -> String {
    match content["schema"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => {
            let place = place_of(&format!("pub struct {name} "));
            format!("{place}: add an example of {name} to `examples` of the `resource()` next to it")
        }
        None => {
            let place = place_of(&format!("operation_id = \"{id}\""));
            format!("{place}: add an example of the form of {id} to `examples` of the `resource()` next to it")
        }
    }
}

#[test]
fn every_body_and_every_parameter_has_an_example() {
    let document = document(StatusProfile::Fastapi);
    let mut missing = Vec::new();
    for (id, operation) in operations(&document) {
        let place = place_of(&format!("operation_id = \"{id}\""));
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if parameter.get("example").is_none() {
                let name = parameter["name"].as_str().unwrap();
                missing
                    .push(format!("{place}: add an example of {name} to `parameters` of the `resource()` next to it"));
            }
        }
        let responses = operation["responses"].as_object().unwrap().values();
        for body in responses.map(|response| resolve(&document, response)).chain([&operation["requestBody"]]) {
            for (_, content) in body["content"].as_object().into_iter().flatten() {
                if examples(content).is_empty() {
                    missing.push(missing_in(id, content));
                }
            }
        }
        let form = &operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
        for (name, field) in form["properties"].as_object().into_iter().flatten() {
            if field.get("example").is_none() {
                missing.push(format!("src/http/openapi/bounds.rs: add an example of the field {name} of {id}"));
            }
        }
    }
    missing.sort();
    missing.dedup();
    assert_complete(&missing);
}

/// Adds what is wrong with `value` by `schema` to `errors`.
fn check(document: &Value, schema: &Value, value: &Value, path: &str, errors: &mut Vec<String>) {
    let schema = resolve(document, schema);
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let mut fail = |rule: &str| errors.push(format!("{path}: {value} breaks {rule}"));
    let has_type = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        other => panic!("{path}: a schema of type {other:?}"),
    };
    if !has_type {
        fail("type");
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        fail("enum");
    }
    let limit = |name: &str| schema[name].as_i64();
    let size = value.as_str().map(|text| i64::try_from(text.chars().count()).unwrap()).or(value.as_i64());
    if let Some(size) = size {
        if limit("minLength").or(limit("minimum")).is_some_and(|least| size < least) {
            fail("minimum");
        }
        if limit("maxLength").or(limit("maximum")).is_some_and(|most| size > most) {
            fail("maximum");
        }
    }
    if let (Some(text), Some(pattern)) = (value.as_str(), schema["pattern"].as_str())
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        fail("pattern");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{path}[{index}]"), errors);
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| value.is_object() && value.get(name).is_none()) {
        errors.push(format!("{path}: {name} is missing"));
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(property) => check(document, property, member, &format!("{path}.{name}"), errors),
            None if schema["additionalProperties"] == true => {}
            None => errors.push(format!("{path}: {name} is unknown")),
        }
    }
}

#[test]
fn every_example_is_valid_by_its_schema() {
    for profile in [StatusProfile::Fastapi, StatusProfile::Rfc] {
        let document = document(profile);
        let (mut errors, mut checked) = (Vec::new(), 0);
        for (id, operation) in operations(&document) {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let places = parameters.map(|parameter| (parameter["name"].as_str().unwrap().to_owned(), parameter));
            let responses = operation["responses"].as_object().unwrap().iter();
            let bodies = responses.map(|(status, response)| (status.as_str(), resolve(&document, response)));
            let bodies = bodies.chain([("request", &operation["requestBody"])]);
            let contents = bodies.flat_map(|(name, body)| {
                let contents = body["content"].as_object().into_iter().flatten();
                contents.map(move |(_, content)| (name.to_owned(), content))
            });
            for (name, place) in places.chain(contents) {
                for example in examples(place) {
                    check(&document, &place["schema"], example, &format!("{id} {name}"), &mut errors);
                    checked += 1;
                }
                for (property, schema) in
                    resolve(&document, &place["schema"])["properties"].as_object().into_iter().flatten()
                {
                    if let Some(example) = schema.get("example") {
                        check(&document, schema, example, &format!("{id} {name}.{property}"), &mut errors);
                    }
                }
            }
        }
        assert_eq!(errors, [""; 0]);
        assert!(checked > 150, "{checked} examples");
    }
}

#[test]
fn no_example_looks_like_a_secret_to_a_scanner() {
    let document = document(StatusProfile::Fastapi).to_string();
    for prefix in ["lkt_", "lkk_", "lkc_"] {
        assert!(document.contains(prefix), "an example shows the prefix {prefix}");
    }
    let found: Vec<&str> =
        Regex::new("lk[a-z]_[0-9A-Za-z]{20}").unwrap().find_iter(&document).map(|found| found.as_str()).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn errors_are_defined_once_and_every_definition_is_used() {
    let document = document(StatusProfile::Fastapi);
    let text = document.to_string();
    for name in document["components"]["responses"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("\"#/components/responses/{name}\"")), "{name} is used");
    }
    for (id, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert_eq!(status.as_str() >= "400", response.get("$ref").is_some(), "{status} of {id}: {response}");
        }
    }
    assert_eq!(document["paths"]["/health/live"]["get"]["responses"].as_object().unwrap().len(), 1);
}

#[test]
fn each_description_begins_with_one_sentence() {
    for (id, operation) in operations(&document(StatusProfile::Fastapi)) {
        let description = operation["description"].as_str().unwrap_or_default();
        let first = description.split("\n\n").next().unwrap();
        let sentences = first.replace("`.", "").matches(". ").count();
        assert!(first.ends_with('.') && first.contains("; ") && sentences == 0, "{id}: what it does; what it requires");
    }
}

#[test]
fn nothing_destructive_is_pre_filled() {
    let document = document(StatusProfile::Fastapi);
    let content = |path: &str, method: &str| {
        &document["paths"][path][method]["requestBody"]["content"]["application/json"]["example"]
    };
    assert_eq!(*content("/users/{id}", "patch"), json!({ "role": "auditor" }));
    assert_eq!(content("/me/password", "put")["new_password"], content("/me/password", "put")["current_password"]);
    assert_eq!(document["paths"]["/users/{id}"]["delete"]["parameters"][0]["x-prefill"], false);
}
