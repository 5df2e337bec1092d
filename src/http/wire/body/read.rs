//! Reading of whole bodies, with bounds of size and time.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};

use crate::domain::audit::ClientInfo;
use crate::error::AppError;
use crate::http::wire::error::HttpError;
use crate::http::wire::header::{self, MediaType};
use crate::http::wire::in_flight::{self, InFlight};
use crate::http::wire::incoming;
use crate::service::Service;

/// The time-out for a body to arrive; actix-web has none.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest name of a content coding that an error response repeats, in bytes.
const MAX_CODING: usize = 32;

/// Reads the whole body.
///
/// Errors: a content coding, another media type than `media_type`, more than `limit` bytes, more than 10 s, a broken
/// body, too many bytes in flight, or a shutdown.
pub(super) fn read_body(
    request: &HttpRequest,
    payload: &mut Payload,
    media_type: &'static str,
    limit: usize,
) -> Pin<Box<dyn Future<Output = Result<web::Bytes, HttpError>>>> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let declared = declared.unwrap_or_default();
    let rejection = if let Some(coding) = content_coding(request.headers()) {
        Some(HttpError::ContentEncoding(coding))
    } else if !has_media_type(request.headers(), media_type) {
        Some(HttpError::WrongMediaType(media_type))
    } else if usize::try_from(declared).map_or(true, |declared| declared > limit) {
        Some(HttpError::TooLarge(limit))
    } else {
        reserve(request, limit).err()
    };
    let payload = web::Payload::from_request(request, payload);
    let closing =
        request.app_data::<web::Data<Service>>().map(|service| service.lifecycle().shutdown().until_bodies_stop());
    // Boxed, so that it is compiled once and not into each extractor.
    Box::pin(async move {
        if let Some(rejection) = rejection {
            return Err(rejection);
        }
        let broken = |_| HttpError::Malformed { code: "broken_body", detail: "The body could not be read.".into() };
        let payload = payload.await.map_err(broken)?;
        let arrived = tokio::time::timeout(BODY_TIMEOUT, payload.to_bytes_limited(limit));
        let stopped = async {
            match closing {
                Some(closing) => closing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            arrived = arrived => match arrived {
                Err(_) => Err(HttpError::SlowBody),
                Ok(Err(_)) => Err(HttpError::TooLarge(limit)),
                Ok(Ok(read)) => read.map_err(broken),
            },
            () = stopped => Err(AppError::Busy("the server stopped before the body arrived".into()).into()),
        }
    })
}

/// Reserves the bytes of a body until its request ends.
fn reserve(request: &HttpRequest, limit: usize) -> Result<(), HttpError> {
    let bytes = incoming::declared_length(request.headers()).unwrap_or_default().min(limit);
    if let Some(in_flight) = request.app_data::<web::Data<InFlight>>().filter(|_| bytes > in_flight::UNCOUNTED) {
        let client = request.extensions().get::<ClientInfo>().and_then(|client_info| client_info.client);
        let reserved = in_flight.reserve(client, bytes)?;
        request.extensions_mut().insert(reserved);
    }
    Ok(())
}

/// The content coding of a body (RFC 9110, section 8.4); `None` if it has none.
fn content_coding(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(CONTENT_ENCODING).map(|line| line.to_str().unwrap_or("?"));
    let mut codings = lines.flat_map(|line| line.split(',')).map(header::trimmed).filter(|coding| !coding.is_empty());
    let coding = codings.find(|coding| !coding.eq_ignore_ascii_case("identity"))?;
    let is_token = coding.len() <= MAX_CODING && coding.bytes().all(header::is_token_byte);
    Some(if is_token { coding.to_ascii_lowercase() } else { "(unreadable)".to_owned() })
}

/// Whether the only `Content-Type` is this one. The parameter `charset` must be UTF-8; others are ignored.
fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
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
