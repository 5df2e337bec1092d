//! Strict extractors. What a request may hold is what its OpenAPI schema says: all unknown, missing, repeated or
//! mistyped fields are named at once. Whether the values are acceptable is for the use case to say.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{FromRequest, HttpRequest, web};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DataType, DefaultOperationRaw, DefaultSchemaRaw};
use paperclip::v2::schema::Apiv2Schema;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::problem::Fault;
use crate::clock::Timestamp;
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
            let (mut fields, repeated) = url_encoded::<T>(&body)?;
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
            let (fields, repeated) = url_encoded::<T>(request.query_string().as_bytes())?;
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
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let essence = header(CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let declared = header(CONTENT_LENGTH).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    let refused = if !essence.eq_ignore_ascii_case(media_type) {
        Some(Fault::WrongMediaType(media_type))
    } else if usize::try_from(declared).map_or(true, |declared| declared > limit) {
        Some(Fault::TooLarge(limit))
    } else {
        None
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

/// The fields of a JSON object, and the names that stand in it twice.
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
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if object.fields.insert(name.clone(), value).is_some() {
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

/// Decodes `name=value&…` strictly: actix and `form_urlencoded` turn broken UTF-8 into U+FFFD, so that two different
/// passwords could become one. Values take the types of `T`'s schema.
fn url_encoded<T: Apiv2Schema>(text: &[u8]) -> Result<(Map<String, Value>, BTreeSet<String>), Fault> {
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

/// Names and values in their order.
pub fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, Fault> {
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let decoded = pairs.map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = percent_decoded(parts.next().unwrap_or_default())?;
        Ok((name, percent_decoded(parts.next().unwrap_or_default())?))
    });
    decoded.collect()
}

fn percent_decoded(text: &[u8]) -> Result<String, Fault> {
    let malformed = || Fault::Malformed {
        code: "malformed_encoding",
        detail: "Encode names and values as UTF-8, percent-encoded.".into(),
    };
    let escapes_are_whole = text
        .split(|byte| *byte == b'%')
        .skip(1)
        .all(|escape| matches!(escape, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()));
    if !escapes_are_whole {
        return Err(malformed());
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded = percent_encoding::percent_decode(&spaced).decode_utf8().map_err(|_not_utf8| malformed())?;
    Ok(decoded.into_owned())
}

#[derive(Clone, Copy, PartialEq)]
enum UnknownFields {
    Refused,
    Ignored,
}

/// `fields` as a `T`, or everything that is wrong with them.
fn checked<T>(
    mut fields: Map<String, Value>,
    repeated: &BTreeSet<String>,
    unknown: UnknownFields,
) -> Result<T, AppError>
where
    T: DeserializeOwned + Apiv2Schema,
{
    let schema = T::raw_schema();
    let mut errors: Vec<FieldError> =
        repeated.iter().map(|name| FieldError::new(name, "repeated", "Send this field once.")).collect();
    for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
        errors.push(FieldError::new(name, "missing", "This field is required."));
    }
    fields.retain(|name, value| match schema.properties.get(name) {
        Some(expected) => {
            errors.extend(mistyped(name, value, expected));
            true
        }
        None => {
            if unknown == UnknownFields::Refused {
                errors.push(FieldError::new(name, "unknown", "This field is not known here."));
            }
            false
        }
    });
    if !errors.is_empty() {
        return Err(AppError::Invalid(errors));
    }
    // The schema has been met, so this fails only if the type and its schema disagree.
    serde_json::from_value(Value::Object(fields)).map_err(|error| AppError::Internal(error.into()))
}

fn mistyped(name: &str, value: &Value, expected: &DefaultSchemaRaw) -> Option<FieldError> {
    if let (Some(items), Some(expected)) = (value.as_array(), &expected.items) {
        return items
            .iter()
            .find_map(|item| mistyped(name, item, expected))
            .map(|item| FieldError { message: format!("Each item: {}", item.message), ..item });
    }
    let (fits, wanted) = match expected.data_type {
        Some(DataType::String) => (value.is_string(), "a string"),
        Some(DataType::Integer) => (value.is_i64(), "an integer"),
        Some(DataType::Boolean) => (value.is_boolean(), "true or false"),
        Some(DataType::Number) => (value.is_number(), "a number"),
        Some(DataType::Array) => (value.is_array(), "an array"),
        Some(DataType::Object) => (value.is_object(), "an object"),
        Some(DataType::File) | None => (true, "a value"),
    };
    if !fits {
        return Some(FieldError::new(name, "type", format!("This must be {wanted}.")));
    }
    // PostgreSQL cannot store it, and C code would stop at it.
    let has_nul = value.as_str().is_some_and(|text| text.contains('\0'));
    has_nul.then(|| FieldError::new(name, "nul", "The NUL character is not allowed."))
}

/// The value of a field that takes one of a few words.
pub fn one_of<T: Copy, const N: usize>(
    field: &str,
    given: &str,
    known: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, AppError> {
    known.into_iter().find(|one| name(*one) == given).ok_or_else(|| {
        let names = known.map(name).join(", ");
        FieldError::new(field, "unknown", format!("Use one of: {names}.")).into()
    })
}

/// The value of a field that takes a moment (RFC 3339).
pub fn moment(field: &str, given: &str) -> Result<Timestamp, AppError> {
    Timestamp::parse(given).ok_or_else(|| FieldError::new(field, "date-time", Timestamp::FORM).into())
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
