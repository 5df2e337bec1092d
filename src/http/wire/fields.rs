//! Validation of the fields of a request against its OpenAPI schema. All invalid fields are reported at once.

use std::collections::BTreeSet;

use paperclip::v2::models::{DataType, DataTypeFormat, DefaultSchemaRaw};
use paperclip::v2::schema::{Apiv2Schema, TypedData};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::error::{AppError, FieldError};

/// How fields that are not in the schema are handled.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum UnknownFields {
    Rejected,
    Ignored,
}

/// Converts `fields` to a `T`. Errors: all unknown, missing, repeated and mistyped fields.
pub(crate) fn checked<T>(
    mut fields: Map<String, Value>,
    repeated: &BTreeSet<String>,
    unknown: UnknownFields,
) -> Result<T, AppError>
where
    T: DeserializeOwned + Apiv2Schema,
{
    check(&T::raw_schema(), &mut fields, repeated, unknown)?;
    // The fields match the schema, so this fails only if the type and its schema differ.
    serde_json::from_value(Value::Object(fields)).map_err(|error| AppError::Internal(error.into()))
}

fn check(
    schema: &DefaultSchemaRaw,
    fields: &mut Map<String, Value>,
    repeated: &BTreeSet<String>,
    unknown: UnknownFields,
) -> Result<(), AppError> {
    let mut errors: Vec<FieldError> = repeated
        .iter()
        .map(|name| FieldError::new(name, "repeated", "Send this field, and each of its members, only once."))
        .collect();
    for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
        errors.push(FieldError::new(name, "missing", "This field is required."));
    }
    fields.retain(|name, value| match schema.properties.get(name) {
        Some(expected) => {
            errors.extend(mistyped(name, value, expected));
            true
        }
        None => {
            if unknown == UnknownFields::Rejected {
                errors.push(FieldError::new(name, "unknown", "There is no such field."));
            }
            false
        }
    });
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

fn mistyped(name: &str, value: &Value, expected: &DefaultSchemaRaw) -> Option<FieldError> {
    if let (Some(items), Some(expected)) = (value.as_array(), &expected.items) {
        return items
            .iter()
            .find_map(|item| mistyped(name, item, expected))
            .map(|item| FieldError { message: format!("Each item: {}", item.message), ..item });
    }
    let (fits, type_name) = match expected.data_type {
        Some(DataType::String) => (value.is_string(), "a string"),
        Some(DataType::Integer) => (value.is_i64(), "an integer"),
        Some(DataType::Boolean) => (value.is_boolean(), "true or false"),
        Some(DataType::Number) => (value.is_number(), "a number"),
        Some(DataType::Array) => (value.is_array(), "an array"),
        Some(DataType::Object) => (value.is_object(), "an object"),
        Some(DataType::File) | None => (true, "a value"),
    };
    if !fits {
        return Some(FieldError::new(name, "type", format!("This must be {type_name}.")));
    }
    // PostgreSQL cannot store NUL, and C code ends a string at it.
    let has_nul = value.as_str().is_some_and(|text| text.contains('\0'));
    has_nul.then(|| FieldError::new(name, "nul", "The NUL character is not allowed."))
}

/// The value of a field that accepts the names in `known` only.
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

/// The value of a field that holds a date and time (RFC 3339).
pub fn timestamp(field: &str, given: &str) -> Result<Timestamp, AppError> {
    Timestamp::parse(given).ok_or_else(|| FieldError::new(field, "date-time", Timestamp::FORMAT_HINT).into())
}

impl TypedData for Timestamp {
    fn data_type() -> DataType {
        DataType::String
    }

    fn format() -> Option<DataTypeFormat> {
        Some(DataTypeFormat::DateTime)
    }
}
