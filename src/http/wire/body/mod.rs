//! Strict extractors for JSON, forms and queries. They accept what the OpenAPI schema of the type allows, and report
//! all unknown, missing, repeated and mistyped fields at once. The use cases validate the values.

mod read;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DataType, DefaultOperationRaw, DefaultSchemaRaw};
use paperclip::v2::schema::Apiv2Schema;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use self::read::read_body;
use crate::error::{AppError, FieldError};
use crate::http::wire::distinct::ParsedValue;
use crate::http::wire::error::HttpError;
use crate::http::wire::fields::{UnknownFields, checked};
use crate::http::wire::url_encoded::pairs;

/// The largest body of account requests and forms, in bytes.
pub const SMALL: usize = 8 * 1024;
/// The largest body of `POST /keys`, in bytes: the metadata in the longest JSON encoding, and the scopes.
pub const ISSUE: usize = 48 * 1024;
/// The largest body of a page, in bytes.
pub const PAGE: usize = 80 * 1024;

type ExtractFuture<T> = Pin<Box<dyn Future<Output = Result<T, HttpError>>>>;

/// A JSON object of at most `LIMIT` bytes.
pub struct Json<T, const LIMIT: usize = SMALL>(pub T);

/// An `application/x-www-form-urlencoded` body. Unknown fields are ignored, and empty fields count as absent (RFC 6749,
/// section 3.2).
pub struct Form<T>(pub T);

/// The query. Unknown parameters are ignored.
pub struct Query<T>(pub T);

impl<T, const LIMIT: usize> FromRequest for Json<T, LIMIT>
where
    T: DeserializeOwned + Apiv2Schema + 'static,
{
    type Error = HttpError;
    type Future = ExtractFuture<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_body(request, payload, "application/json", LIMIT);
        Box::pin(async move {
            let body = body.await?;
            let JsonObject { fields, repeated } = serde_json::from_slice(&body).map_err(unreadable_json)?;
            Ok(Self(checked(fields, &repeated, UnknownFields::Rejected)?))
        })
    }
}

impl<T> FromRequest for Form<T>
where
    T: DeserializeOwned + Apiv2Schema + 'static,
{
    type Error = HttpError;
    type Future = ExtractFuture<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_body(request, payload, "application/x-www-form-urlencoded", SMALL);
        Box::pin(async move {
            let body = body.await?;
            let (mut fields, repeated) = url_encoded_fields::<T>(&body)?;
            fields.retain(|_, value| value != "");
            Ok(Self(checked(fields, &repeated, UnknownFields::Ignored)?))
        })
    }
}

impl<T> FromRequest for Query<T>
where
    T: DeserializeOwned + Apiv2Schema + 'static,
{
    type Error = HttpError;
    type Future = std::future::Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = || {
            let (fields, repeated) = url_encoded_fields::<T>(request.query_string().as_bytes())?;
            Ok(Self(checked(fields, &repeated, UnknownFields::Ignored)?))
        };
        std::future::ready(read())
    }
}

/// The fields of a JSON object, and the names of those that are repeated, or contain repeated members.
struct JsonObject {
    fields: Map<String, Value>,
    repeated: BTreeSet<String>,
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = JsonObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject, A::Error> {
                let mut object = JsonObject { fields: Map::new(), repeated: BTreeSet::new() };
                while let Some((name, ParsedValue { value, has_repeats })) = map.next_entry::<String, ParsedValue>()? {
                    if object.fields.insert(name.clone(), value).is_some() || has_repeats {
                        object.repeated.insert(name);
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err requires")]
fn unreadable_json(error: serde_json::Error) -> HttpError {
    if error.is_data() {
        return AppError::from(FieldError::new("", "type", "Send a JSON object.")).into();
    }
    let detail = format!("The body is not JSON: line {}, column {}.", error.line(), error.column());
    HttpError::Malformed { code: "malformed_json", detail: detail.into() }
}

/// The fields of a form or a query, and the repeated names. Values are converted to the types in the schema of `T`.
fn url_encoded_fields<T: Apiv2Schema>(text: &[u8]) -> Result<(Map<String, Value>, BTreeSet<String>), HttpError> {
    let schema = T::raw_schema();
    let (mut fields, mut repeated) = (Map::new(), BTreeSet::new());
    for (name, value) in pairs(text)? {
        let value = match schema.properties.get(&name).and_then(|field| field.data_type) {
            Some(DataType::Integer) => value.parse::<i64>().map_or(Value::String(value), Into::into),
            Some(DataType::Boolean) => value.parse::<bool>().map_or(Value::String(value), Into::into),
            _ => Value::String(value),
        };
        if fields.insert(name.clone(), value).is_some() {
            repeated.insert(name);
        }
    }
    Ok((fields, repeated))
}

/// Documents each extractor as paperclip documents its own extractor of the same name.
macro_rules! documented_as {
    ($(<$($parameter:ident),* $(; const $limit:ident)?> $extractor:ty => $documented:ty),* $(,)?) => {
        $(
            impl<$($parameter: Apiv2Schema,)* $(const $limit: usize)?> Apiv2Schema for $extractor {}

            impl<$($parameter: Apiv2Schema,)* $(const $limit: usize)?> OperationModifier for $extractor {
                fn update_parameter(operation: &mut DefaultOperationRaw) {
                    <$documented>::update_parameter(operation);
                }

                fn update_definitions(map: &mut std::collections::BTreeMap<String, DefaultSchemaRaw>) {
                    <$documented>::update_definitions(map);
                }
            }
        )*
    };
}

documented_as! {
    <T; const LIMIT> Json<T, LIMIT> => web::Json<T>,
    <T> Form<T> => web::Form<T>,
    <T> Query<T> => web::Query<T>,
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::CONTENT_TYPE;
    use actix_web::test::TestRequest;
    use paperclip::actix::Apiv2Schema;
    use proptest::prelude::*;
    use serde::Serialize;
    use url::form_urlencoded;

    use super::*;

    /// Has a field of each type that occurs in requests.
    #[derive(Debug, PartialEq, Deserialize, Serialize, Apiv2Schema)]
    struct Sample {
        name: String,
        note: Option<String>,
        count: Option<i64>,
        is_kept: Option<bool>,
        tags: Option<Vec<String>>,
    }

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    /// The extracted value; `None` if the request is rejected as malformed or invalid. Panics on other errors.
    fn extract<E: FromRequest<Error = HttpError>>(
        media_type: &str,
        target: &str,
        body: impl Into<web::Bytes>,
    ) -> Option<E> {
        let request = TestRequest::with_uri(target).insert_header((CONTENT_TYPE, media_type)).set_payload(body);
        let (request, mut payload) = request.to_http_parts();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        match runtime.block_on(E::from_request(&request, &mut payload)) {
            Ok(extracted) => Some(extracted),
            Err(HttpError::Malformed { .. } | HttpError::App(AppError::Invalid(_))) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn json(body: impl Into<web::Bytes>) -> Option<Sample> {
        extract::<Json<Sample>>(JSON, "/", body).map(|json| json.0)
    }

    fn encoded(fields: &[(String, String)]) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
    }

    fn field_name() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec!["name", "note", "count", "is_kept", "tags"]);
        prop_oneof![9 => known.prop_map(str::to_owned), 1 => "(other|Name|name |)"]
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a\0%+&=\"]{0,4}", "-?[0-9]{1,20}", "true|false|null"]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            4 => text().prop_map(Value::from),
            2 => any::<i64>().prop_map(Value::from),
            1 => any::<u64>().prop_map(Value::from),
            1 => any::<f64>().prop_map(Value::from),
            2 => any::<bool>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        leaf.prop_recursive(3, 8, 4, |inner| {
            let fields = prop::collection::vec((field_name(), inner.clone()), 0..4);
            prop_oneof![
                2 => prop::collection::vec(text(), 0..4).prop_map(Value::from),
                1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
                1 => fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn is_text(value: &Value) -> bool {
        value.as_str().is_some_and(|text| !text.contains('\0'))
    }

    /// Whether the field matches the schema of [`Sample`].
    fn fits((name, value): &(String, Value)) -> bool {
        match name.as_str() {
            "name" | "note" => is_text(value),
            "count" => value.as_i64().is_some(),
            "is_kept" => value.is_boolean(),
            "tags" => value.as_array().is_some_and(|tags| tags.iter().all(is_text)),
            _ => false,
        }
    }

    /// Whether each name occurs once, and the required one is present.
    fn are_names_valid<V>(fields: &[(String, V)]) -> bool {
        let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        names.len() == fields.len() && names.contains("name")
    }

    /// The fields of a sample that are present.
    fn without_nulls(sample: &Sample) -> Value {
        let Value::Object(mut fields) = serde_json::to_value(sample).unwrap() else { panic!("no object") };
        fields.retain(|_, value| !value.is_null());
        Value::Object(fields)
    }

    proptest! {
        #[test]
        fn a_json_object_is_accepted_unchanged_if_every_field_fits_and_rejected_otherwise(
            name in text(), mut fields in prop::collection::vec((field_name(), value()), 0..4),
        ) {
            fields.insert(0, ("name".to_owned(), name.into()));
            let members: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            let accepted = json(format!("{{{}}}", members.join(",")));
            prop_assert_eq!(accepted.is_some(), are_names_valid(&fields) && fields.iter().all(fits));
            if let Some(sample) = accepted {
                prop_assert_eq!(without_nulls(&sample), Value::Object(fields.into_iter().collect()));
            }
        }

        #[test]
        fn arbitrary_bytes_are_accepted_only_as_a_json_object_with_the_same_content(
            before in r#"(\{"name":")?"#, bytes in prop::collection::vec(any::<u8>(), 0..12), text in r#"[{}\[\]:,"a-z\\u0-9 ]{0,12}"#,
            after in r#"("\})?"#,
        ) {
            let body = [before.as_bytes(), &bytes, text.as_bytes(), after.as_bytes()].concat();
            if let Some(sample) = json(body.clone()) {
                prop_assert_eq!(without_nulls(&sample), serde_json::from_slice::<Value>(&body).unwrap());
            }
        }

        #[test]
        fn a_form_and_a_query_are_accepted_unchanged_if_every_field_fits_and_rejected_otherwise(
            name in text(), mut fields in prop::collection::vec((field_name(), text()), 0..4),
        ) {
            fields.insert(0, ("name".to_owned(), name));
            let typed = |(name, text): &(String, String)| {
                let value = match name.as_str() {
                    "count" => text.parse::<i64>().ok().map(Value::from),
                    "is_kept" => text.parse::<bool>().ok().map(Value::from),
                    _ => None,
                };
                (name.clone(), value.unwrap_or_else(|| text.as_str().into()))
            };
            let is_in_schema = |(name, _): &(String, Value)| ["name", "note", "count", "is_kept", "tags"].contains(&name.as_str());
            let in_query: Vec<(String, Value)> = fields.iter().map(typed).filter(is_in_schema).collect();
            let mut in_form = in_query.clone();
            in_form.retain(|(_, value)| value != "");
            let form = extract::<Form<Sample>>(FORM, "/", encoded(&fields)).map(|form| form.0);
            let query = extract::<Query<Sample>>(JSON, &format!("/?{}", encoded(&fields)), "").map(|query| query.0);
            for (accepted, read) in [(form, in_form), (query, in_query)] {
                // Empty and unknown fields count as absent, but must not be repeated either.
                let is_valid = are_names_valid(&fields) && are_names_valid(&read) && read.iter().all(fits);
                prop_assert_eq!(accepted.is_some(), is_valid, "{:?}", read);
                if let Some(sample) = accepted {
                    prop_assert_eq!(without_nulls(&sample), Value::Object(read.into_iter().collect()));
                }
            }
        }

        #[test]
        fn a_form_and_json_with_the_same_fields_are_equal(name in "(?s).{1,30}", note in "(?s).{1,30}") {
            let form = encoded(&[("name".to_owned(), name.clone()), ("note".to_owned(), note.clone())]);
            let form = extract::<Form<Sample>>(FORM, "/", form).map(|form| form.0);
            prop_assert_eq!(form, json(serde_json::json!({ "name": name, "note": note }).to_string()));
        }
    }
}
