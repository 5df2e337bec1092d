//! The header `Idempotency-Key`, which makes a request repeatable.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderName;
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};

use crate::http::wire::error::HttpError;

/// The value of the header `Idempotency-Key`.
pub struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The value; `None` if the request does not have the header.
    pub fn into_inner(self) -> Option<String> {
        self.0
    }
}

/// The longest value, in characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl FromRequest for IdempotencyKey {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
        let is_valid = |text: &&str| {
            (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        ready(match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => match value.to_str().ok().map(str::trim).filter(is_valid) {
                Some(text) => Ok(Self(Some(text.to_owned()))),
                None => Err(malformed_idempotency_key()),
            },
            (Some(_), Some(_)) => Err(malformed_idempotency_key()),
        })
    }
}

fn malformed_idempotency_key() -> HttpError {
    let detail = "Send Idempotency-Key once, with 1 to 255 visible ASCII characters.";
    HttpError::Malformed { code: "malformed_idempotency_key", detail: detail.into() }
}

impl paperclip::v2::schema::Apiv2Schema for IdempotencyKey {}

impl OperationModifier for IdempotencyKey {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        operation.parameters.push(Either::Right(Parameter {
            name: "Idempotency-Key".to_owned(),
            in_: ParameterIn::Header,
            description: Some(
                "A key of your choice. A request repeated with the same key is executed only once.".to_owned(),
            ),
            data_type: Some(DataType::String),
            ..Parameter::default()
        }));
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;
    use crate::http::wire::arbitrary::header_value;

    fn read(lines: &[HeaderValue]) -> Result<Option<String>, ()> {
        let request =
            lines.iter().fold(TestRequest::default(), |request, line| request.append_header((IDEMPOTENCY_KEY, line)));
        let key = IdempotencyKey::from_request(&request.to_http_request(), &mut Payload::None).into_inner();
        key.map(|key| key.0).map_err(drop)
    }

    proptest! {
        #[test]
        fn an_idempotency_key_is_accepted_unchanged_or_rejected(lines in prop::collection::vec(header_value(b" \t\"ab,\x80"), 0..3)) {
            let expected = match lines.as_slice() {
                [] => Ok(None),
                [line] => {
                    let text = line.as_bytes().trim_ascii();
                    let is_printable = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
                    let text = std::str::from_utf8(text).ok().filter(|text| is_printable && !text.is_empty());
                    text.map(|text| Some(text.to_owned())).ok_or(())
                }
                _ => Err(()),
            };
            prop_assert_eq!(read(&lines), expected);
        }
    }

    #[test]
    fn an_idempotency_key_has_at_most_255_characters() {
        let of = |length: usize| read(&[HeaderValue::from_str(&"k".repeat(length)).unwrap()]);
        assert_eq!((of(255), of(256)), (Ok(Some("k".repeat(255))), Err(())));
    }
}
