//! The request id.

use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderName};

use crate::domain::secret::hex;

/// The header that carries the id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is accepted from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Identifies a request in its response, in its log lines and in the audit trail.
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new id of 128 random bits.
    pub fn random() -> Self {
        Self(hex(&rand::random::<[u8; 16]>()).into())
    }

    /// The `X-Request-Id` of the caller if it has 1 to 128 characters of `A-Z a-z 0-9 - _ .`, otherwise a new id.
    pub fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let given = given.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain));
        given.map_or_else(Self::random, |given| Self(given.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that the edge has already assigned to the request.
    pub fn known(id: Arc<str>) -> Self {
        Self(id)
    }

    /// The id as shared text.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}
