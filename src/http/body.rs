//! Strict extractors. What a request may hold is what its OpenAPI schema says: all unknown, missing, repeated or
//! mistyped fields are named at once. Whether the values are acceptable is for the use case to say.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DataType, DefaultOperationRaw, DefaultSchemaRaw};
use paperclip::v2::schema::Apiv2Schema;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::distinct::Distinct;
use super::fields::{UnknownFields, checked};
use super::header::{self, MediaType};
use super::in_flight::{self, InFlight};
use super::incoming;
use super::problem::Fault;
use super::url_encoded::pairs;
use crate::domain::audit::Origin;
use crate::error::{AppError, FieldError};
use crate::service::Service;

/// The largest body of accounts and forms, in bytes.
pub const SMALL: usize = 8 * 1024;
/// The largest body of a key that is issued, in bytes: its metadata in the longest spelling of JSON, and its scopes.
pub const ISSUE: usize = 48 * 1024;
/// The largest body of a page, in bytes.
pub const PAGE: usize = 80 * 1024;
/// How long a body may take to arrive; actix itself would wait for ever (standards: F14).
const BODY_WAIT: Duration = Duration::from_secs(10);

/// The longest name of a content coding that an answer repeats, in bytes.
const LONGEST_CODING: usize = 32;

type Extracted<T> = Pin<Box<dyn Future<Output = Result<T, Fault>>>>;

/// A JSON object of at most `LIMIT` bytes.
pub struct Json<T, const LIMIT: usize = SMALL>(pub T);

/// An `application/x-www-form-urlencoded` body. Fields that it does not know are ignored and empty ones count as
/// absent (RFC 6749, section 3.2).
pub struct Form<T>(pub T);

/// The query. Parameters that it does not know are ignored.
pub struct Query<T>(pub T);

impl<T, const LIMIT: usize> FromRequest for Json<T, LIMIT>
where
    T: DeserializeOwned + Apiv2Schema + 'static,
{
    type Error = Fault;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_body(request, payload, "application/json", LIMIT);
        Box::pin(async move {
            let body = body.await?;
            let JsonObject { fields, repeated } = serde_json::from_slice(&body).map_err(unreadable_json)?;
            Ok(Self(checked(fields, &repeated, UnknownFields::Refused)?))
        })
    }
}

impl<T> FromRequest for Form<T>
where
    T: DeserializeOwned + Apiv2Schema + 'static,
{
    type Error = Fault;
    type Future = Extracted<Self>;

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
    type Error = Fault;
    type Future = std::future::Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = || {
            let (fields, repeated) = url_encoded_fields::<T>(request.query_string().as_bytes())?;
            Ok(Self(checked(fields, &repeated, UnknownFields::Ignored)?))
        };
        std::future::ready(read())
    }
}

/// The whole body, if it says that it is of `media_type`, is within `limit`, and arrives in time.
fn read_body(
    request: &HttpRequest,
    payload: &mut Payload,
    media_type: &'static str,
    limit: usize,
) -> impl Future<Output = Result<web::Bytes, Fault>> + use<> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let declared = declared.unwrap_or_default();
    let refused = if let Some(coding) = content_coding(request.headers()) {
        Some(Fault::ContentEncoding(coding))
    } else if !is_of(request.headers(), media_type) {
        Some(Fault::WrongMediaType(media_type))
    } else if usize::try_from(declared).map_or(true, |declared| declared > limit) {
        Some(Fault::TooLarge(limit))
    } else {
        reserve(request, limit).err()
    };
    let payload = web::Payload::from_request(request, payload);
    let closing = request.app_data::<web::Data<Service>>().map(|service| service.closing());
    async move {
        if let Some(refused) = refused {
            return Err(refused);
        }
        let broken = |_| Fault::Malformed { code: "broken_body", detail: "The body could not be read.".into() };
        let payload = payload.await.map_err(broken)?;
        let arrived = tokio::time::timeout(BODY_WAIT, payload.to_bytes_limited(limit));
        let stopped = async {
            match closing {
                Some(closing) => closing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            arrived = arrived => match arrived {
                Err(_) => Err(Fault::SlowBody),
                Ok(Err(_)) => Err(Fault::TooLarge(limit)),
                Ok(Ok(read)) => read.map_err(broken),
            },
            () = stopped => Err(AppError::Busy("the server stops before the body has arrived".into()).into()),
        }
    }
}

/// Counts a body that will be read, until its request has its answer.
fn reserve(request: &HttpRequest, limit: usize) -> Result<(), Fault> {
    let bytes = incoming::expected(request.headers()).unwrap_or_default().min(limit);
    if let Some(in_flight) = request.app_data::<web::Data<InFlight>>().filter(|_| bytes > in_flight::SMALL) {
        let client = request.extensions().get::<Origin>().and_then(|origin| origin.client);
        let held = in_flight.take(client, bytes)?;
        request.extensions_mut().insert(held);
    }
    Ok(())
}

/// The coding that a body says it has (RFC 9110, section 8.4); `None` if it has none.
fn content_coding(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(CONTENT_ENCODING).map(|line| line.to_str().unwrap_or("?"));
    let mut codings = lines.flat_map(|line| line.split(',')).map(header::trimmed).filter(|coding| !coding.is_empty());
    let coding = codings.find(|coding| !coding.eq_ignore_ascii_case("identity"))?;
    let is_token = coding.len() <= LONGEST_CODING && coding.bytes().all(header::is_token_byte);
    Some(if is_token { coding.to_ascii_lowercase() } else { "(unreadable)".to_owned() })
}

/// Whether the one `Content-Type` is this one, whatever its parameters; but `charset` may be UTF-8 alone.
fn is_of(headers: &HeaderMap, media_type: &str) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE);
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let Some(given) = line.to_str().ok().and_then(MediaType::read) else {
        return false;
    };
    let is_utf8 = |charset: &str| charset.eq_ignore_ascii_case("utf-8");
    given.essence.eq_ignore_ascii_case(media_type) && given.parameters("charset").all(is_utf8)
}

/// The fields of a JSON object, and those that stand in it twice, or hold a member twice.
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
                while let Some((name, Distinct { value, repeats })) = map.next_entry::<String, Distinct>()? {
                    if object.fields.insert(name.clone(), value).is_some() || repeats {
                        object.repeated.insert(name);
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unreadable_json(error: serde_json::Error) -> Fault {
    if error.is_data() {
        return AppError::from(FieldError::new("", "type", "Send a JSON object.")).into();
    }
    let detail = format!("The body is not JSON: line {}, column {}.", error.line(), error.column());
    Fault::Malformed { code: "malformed_json", detail: detail.into() }
}

/// The fields of a form or a query, and the names that stand in it twice. Values take the types of `T`'s schema.
fn url_encoded_fields<T: Apiv2Schema>(text: &[u8]) -> Result<(Map<String, Value>, BTreeSet<String>), Fault> {
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

/// Documents each extractor as paperclip documents its own of the same name.
macro_rules! documented_as {
    ($(<$($parameter:ident),* $(; const $limit:ident)?> $extractor:ty => $known:ty),* $(,)?) => {
        $(
            impl<$($parameter: Apiv2Schema,)* $(const $limit: usize)?> Apiv2Schema for $extractor {}

            impl<$($parameter: Apiv2Schema,)* $(const $limit: usize)?> OperationModifier for $extractor {
                fn update_parameter(operation: &mut DefaultOperationRaw) {
                    <$known>::update_parameter(operation);
                }

                fn update_definitions(map: &mut std::collections::BTreeMap<String, DefaultSchemaRaw>) {
                    <$known>::update_definitions(map);
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
    use actix_web::test::TestRequest;
    use paperclip::actix::Apiv2Schema;
    use proptest::prelude::*;
    use serde::Serialize;
    use url::form_urlencoded;

    use super::*;

    /// A field of each type that a request may have.
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

    /// What is taken from a request; `None` if it is refused, which must be the fault of the request.
    fn extract<E: FromRequest<Error = Fault>>(
        media_type: &str,
        target: &str,
        body: impl Into<web::Bytes>,
    ) -> Option<E> {
        let request = TestRequest::with_uri(target).insert_header((CONTENT_TYPE, media_type)).set_payload(body);
        let (request, mut payload) = request.to_http_parts();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        match runtime.block_on(E::from_request(&request, &mut payload)) {
            Ok(extracted) => Some(extracted),
            Err(Fault::Malformed { .. } | Fault::App(AppError::Invalid(_))) => None,
            Err(fault) => panic!("{fault:?}"),
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

    /// Whether a sample may have such a field.
    fn fits((name, value): &(String, Value)) -> bool {
        match name.as_str() {
            "name" | "note" => is_text(value),
            "count" => value.as_i64().is_some(),
            "is_kept" => value.is_boolean(),
            "tags" => value.as_array().is_some_and(|tags| tags.iter().all(is_text)),
            _ => false,
        }
    }

    /// Whether each name stands there once, and the one that is required does.
    fn are_once<V>(fields: &[(String, V)]) -> bool {
        let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        names.len() == fields.len() && names.contains("name")
    }

    /// What the fields say, without what a sample lacks.
    fn without_nulls(sample: &Sample) -> Value {
        let Value::Object(mut fields) = serde_json::to_value(sample).unwrap() else { panic!("no object") };
        fields.retain(|_, value| !value.is_null());
        Value::Object(fields)
    }

    proptest! {
        #[test]
        fn a_json_object_is_taken_as_it_is_if_every_field_fits_and_refused_otherwise(
            name in text(), mut fields in prop::collection::vec((field_name(), value()), 0..4),
        ) {
            fields.insert(0, ("name".to_owned(), name.into()));
            let written: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            let taken = json(format!("{{{}}}", written.join(",")));
            prop_assert_eq!(taken.is_some(), are_once(&fields) && fields.iter().all(fits));
            if let Some(sample) = taken {
                prop_assert_eq!(without_nulls(&sample), Value::Object(fields.into_iter().collect()));
            }
        }

        #[test]
        fn of_any_bytes_only_a_json_object_that_says_the_same_is_taken(
            before in r#"(\{"name":")?"#, bytes in prop::collection::vec(any::<u8>(), 0..12), text in r#"[{}\[\]:,"a-z\\u0-9 ]{0,12}"#,
            after in r#"("\})?"#,
        ) {
            let body = [before.as_bytes(), &bytes, text.as_bytes(), after.as_bytes()].concat();
            if let Some(sample) = json(body.clone()) {
                prop_assert_eq!(without_nulls(&sample), serde_json::from_slice::<Value>(&body).unwrap());
            }
        }

        #[test]
        fn a_form_and_a_query_are_taken_as_they_are_if_every_field_fits_and_refused_otherwise(
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
            let is_known = |(name, _): &(String, Value)| ["name", "note", "count", "is_kept", "tags"].contains(&name.as_str());
            let in_query: Vec<(String, Value)> = fields.iter().map(typed).filter(is_known).collect();
            let mut in_form = in_query.clone();
            in_form.retain(|(_, value)| value != "");
            let form = extract::<Form<Sample>>(FORM, "/", encoded(&fields)).map(|form| form.0);
            let query = extract::<Query<Sample>>(JSON, &format!("/?{}", encoded(&fields)), "").map(|query| query.0);
            for (taken, read) in [(form, in_form), (query, in_query)] {
                // An empty field, or one that is not known, is absent, but does not stand there twice either.
                let is_good = are_once(&fields) && are_once(&read) && read.iter().all(fits);
                prop_assert_eq!(taken.is_some(), is_good, "{:?}", read);
                if let Some(sample) = taken {
                    prop_assert_eq!(without_nulls(&sample), Value::Object(read.into_iter().collect()));
                }
            }
        }

        #[test]
        fn a_form_says_what_json_says(name in "(?s).{1,30}", note in "(?s).{1,30}") {
            let form = encoded(&[("name".to_owned(), name.clone()), ("note".to_owned(), note.clone())]);
            let form = extract::<Form<Sample>>(FORM, "/", form).map(|form| form.0);
            prop_assert_eq!(form, json(serde_json::json!({ "name": name, "note": note }).to_string()));
        }
    }
}
