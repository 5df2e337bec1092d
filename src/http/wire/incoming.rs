//! The body of a request. If it is not read to its end, the connection closes after the response.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::dev::{Payload, RequestHead, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use actix_web::web::Bytes;
use futures_util::StreamExt;
use futures_util::stream::Stream;

/// The most bytes of an unread body that are read and discarded to keep the connection open.
const MAX_DRAINED: usize = 64 * 1024;
/// The time-out for that.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);
/// The assumed length of a chunked body, in bytes.
const CHUNKED_LENGTH: usize = 32 * 1024;

/// The declared length of the body of a request, in bytes; `None` if the request has no body.
pub fn declared_length(headers: &HeaderMap) -> Option<usize> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Some(CHUNKED_LENGTH);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok())?.parse().unwrap_or(usize::MAX);
    (length > 0).then_some(length)
}

/// The body of a request, which a handler can read, or leave unread.
pub struct IncomingBody(Rc<Shared>);

struct Shared {
    payload: RefCell<Payload>,
    has_ended: Cell<bool>,
}

impl IncomingBody {
    /// Wraps the body of a request, to detect whether it is read to its end; `None` if the request has no body.
    pub fn of(request: &mut ServiceRequest) -> Option<Self> {
        declared_length(request.headers())?;
        let shared = Rc::new(Shared { payload: RefCell::new(request.take_payload()), has_ended: Cell::new(false) });
        request.set_payload(Payload::Stream { payload: Box::pin(Reader(Rc::clone(&shared))) });
        Some(Self(shared))
    }

    /// Reads and discards up to 64 KiB of the unread body, for at most 100 ms. Returns whether the body ended.
    pub async fn drain(self) -> bool {
        let (mut reader, mut drained) = (Reader(self.0), 0);
        let ends = async {
            while !reader.0.has_ended.get() && drained <= MAX_DRAINED {
                match reader.next().await {
                    Some(Ok(bytes)) => drained += bytes.len(),
                    Some(Err(_)) | None => break,
                }
            }
        };
        // After a time-out, `has_ended` is false.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, ends).await;
        reader.0.has_ended.get()
    }

    /// Whether the unread body is too long to be drained.
    pub fn is_long(&self, head: &RequestHead) -> bool {
        !self.0.has_ended.get() && declared_length(&head.headers).is_some_and(|length| length > MAX_DRAINED)
    }
}

/// Reads the body and records its end.
struct Reader(Rc<Shared>);

impl Stream for Reader {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Ok(mut payload) = self.0.payload.try_borrow_mut() else { return Poll::Ready(None) };
        let polled = payload.poll_next_unpin(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.0.has_ended.set(true);
        }
        polled
    }
}
