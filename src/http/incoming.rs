//! The body of a request, and whether all of it has been read: if not, the connection ends with the answer.

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

/// How much of an unread body is read to keep the connection, in bytes.
const DRAINED: usize = 64 * 1024;
/// How long that may take.
const DRAIN: Duration = Duration::from_millis(100);
/// What a body counts for that does not say how long it is, in bytes.
const UNKNOWN: usize = 32 * 1024;

/// How long the body of a request says it is, in bytes; `None` if there is none.
pub fn expected(headers: &HeaderMap) -> Option<usize> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Some(UNKNOWN);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok())?.parse().unwrap_or(usize::MAX);
    (length > 0).then_some(length)
}

/// A body that a handler may read, or not.
pub struct Incoming(Rc<Shared>);

struct Shared {
    payload: RefCell<Payload>,
    has_ended: Cell<bool>,
}

impl Incoming {
    /// The body of a request, which finds it in its place; `None` if it has none.
    pub fn of(request: &mut ServiceRequest) -> Option<Self> {
        expected(request.headers())?;
        let shared = Rc::new(Shared { payload: RefCell::new(request.take_payload()), has_ended: Cell::new(false) });
        request.set_payload(Payload::Stream { payload: Box::pin(Reader(Rc::clone(&shared))) });
        Some(Self(shared))
    }

    /// Reads what is left of a body that is short and has arrived. Whether that was all.
    pub async fn drain(self) -> bool {
        let (mut rest, mut drained) = (Reader(self.0), 0);
        let ends = async {
            while !rest.0.has_ended.get() && drained <= DRAINED {
                match rest.next().await {
                    Some(Ok(bytes)) => drained += bytes.len(),
                    Some(Err(_)) | None => break,
                }
            }
        };
        // What takes longer is not all.
        let _ = tokio::time::timeout(DRAIN, ends).await;
        rest.0.has_ended.get()
    }

    /// Whether a body is too long to be drained.
    pub fn is_long(&self, head: &RequestHead) -> bool {
        !self.0.has_ended.get() && expected(&head.headers).is_some_and(|length| length > DRAINED)
    }
}

/// Reads the body, and notes its end.
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
