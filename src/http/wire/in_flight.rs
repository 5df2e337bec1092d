//! Limits the bytes of request and response bodies that are in memory.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

use crate::domain::network::Network;
use crate::error::AppError;
use crate::http::request::activity::ActiveRequest;
use crate::http::wire::error::HttpError;
use crate::metrics::Metrics;

/// Bodies up to this size are not counted, because every connection needs about as much memory. In bytes.
pub const UNCOUNTED: usize = 8 * 1024;
/// The limit of one client, in bytes.
pub const PER_CLIENT: usize = 8 * 1024 * 1024;
/// The limit of all clients together, in bytes.
const TOTAL: usize = 64 * 1024 * 1024;
/// The counted size of a streamed response, in bytes.
const STREAMED_SIZE: usize = 256 * 1024;
/// The most bytes that are passed to the connection at once, which keeps a copy until they are sent.
const CHUNK: usize = 32 * 1024;

/// Counts the bytes in flight, by client and in total.
pub struct InFlight {
    counts: Mutex<Counts>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Counts {
    clients: HashMap<Network, usize>,
    total: usize,
}

/// Reserved bytes. They are released when this is dropped.
pub struct ReservedBytes {
    in_flight: Arc<InFlight>,
    client: Option<Network>,
    bytes: usize,
}

impl InFlight {
    /// No bytes are in flight yet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), metrics })
    }

    /// Reserves `bytes` for a client.
    ///
    /// Errors: [`HttpError::TooMuchInFlight`] over the limit of the client; [`AppError::Busy`] over the total limit.
    pub fn reserve(self: &Arc<Self>, client: Option<IpAddr>, bytes: usize) -> Result<ReservedBytes, HttpError> {
        let client = client.map(Network::of);
        let mut counts = self.counts();
        let reserved = client.and_then(|client| counts.clients.get(&client)).copied().unwrap_or_default();
        if reserved + bytes > PER_CLIENT {
            drop(counts);
            self.metrics.throttled("bytes_in_flight");
            return Err(HttpError::TooMuchInFlight);
        }
        if counts.total + bytes > TOTAL {
            return Err(AppError::Busy("too many bytes are in flight".into()).into());
        }
        counts.add(client, bytes);
        Ok(ReservedBytes { in_flight: Arc::clone(self), client, bytes })
    }

    /// Reserves `bytes` for a client without regard to the limits.
    pub fn reserve_unchecked(self: &Arc<Self>, client: Option<IpAddr>, bytes: usize) -> ReservedBytes {
        let client = client.map(Network::of);
        self.counts().add(client, bytes);
        ReservedBytes { in_flight: Arc::clone(self), client, bytes }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn add(&mut self, client: Option<Network>, bytes: usize) {
        self.total += bytes;
        if let Some(client) = client {
            *self.clients.entry(client).or_default() += bytes;
        }
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        let mut counts = self.in_flight.counts();
        counts.total -= self.bytes;
        let Some(client) = self.client else { return };
        if let Some(reserved) = counts.clients.get_mut(&client) {
            *reserved -= self.bytes;
            if *reserved == 0 {
                counts.clients.remove(&client);
            }
        }
    }
}

/// Marks a response whose body is static data of the program, which is not counted.
pub struct StaticBody;

/// The counted size of a body, in bytes.
pub fn counted_size(body: &BoxBody) -> usize {
    match body.size() {
        BodySize::None => 0,
        BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodySize::Stream => STREAMED_SIZE,
    }
}

/// A response body that is sent in chunks. It holds its reserved bytes and its request until it is sent.
pub struct OutgoingBody {
    body: BoxBody,
    /// The part of the body that has not been passed to the connection.
    unsent: Bytes,
    _reserved: Option<ReservedBytes>,
    _active_request: Option<ActiveRequest>,
}

impl OutgoingBody {
    /// `active_request` stays in progress until `body` is sent.
    pub fn new(body: BoxBody, reserved: Option<ReservedBytes>, active_request: Option<ActiveRequest>) -> Self {
        Self { body, unsent: Bytes::new(), _reserved: reserved, _active_request: active_request }
    }
}

impl MessageBody for OutgoingBody {
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        while this.unsent.is_empty() {
            match ready!(this.body.as_pin_mut().poll_next(cx)) {
                Some(Ok(bytes)) => this.unsent = bytes,
                ended => return Poll::Ready(ended),
            }
        }
        let length = this.unsent.len().min(CHUNK);
        Poll::Ready(Some(Ok(this.unsent.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Durations;

    fn in_flight() -> Arc<InFlight> {
        InFlight::new(Arc::new(Metrics::new(&Durations::default(), &Durations::default(), Arc::default())))
    }

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn a_client_may_have_8_mib_in_flight_and_all_clients_64_mib() {
        const LIMIT: usize = 8 * 1024 * 1024;
        let in_flight = in_flight();
        let first = in_flight.reserve(client(1), LIMIT).unwrap();
        assert!(matches!(in_flight.reserve(client(1), 1), Err(HttpError::TooMuchInFlight)));
        let mut reserved: Vec<ReservedBytes> =
            (2..=8).map(|number| in_flight.reserve(client(number), LIMIT).unwrap()).collect();
        assert!(matches!(in_flight.reserve(client(9), 1), Err(HttpError::App(AppError::Busy(_)))));
        reserved.push(in_flight.reserve_unchecked(client(9), 1));
        drop(first);
        assert!(in_flight.reserve(client(1), LIMIT - 1).is_ok());
        reserved.clear();
        assert!(in_flight.counts().clients.is_empty() && in_flight.counts().total == 0);
    }

    #[actix_web::test]
    async fn a_body_is_sent_in_chunks_and_counts_until_it_is_dropped() {
        let in_flight = in_flight();
        let bytes = Bytes::from(vec![b'x'; 3 * 32 * 1024 + 1]);
        let reserved = in_flight.reserve(client(1), bytes.len()).unwrap();
        let mut body = OutgoingBody::new(BoxBody::new(bytes.clone()), Some(reserved), None);
        assert_eq!(body.size(), BodySize::Sized(u64::try_from(bytes.len()).unwrap()));
        let mut chunks = Vec::new();
        while let Some(chunk) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
            chunks.push(chunk.unwrap());
        }
        assert!(chunks.len() == 4 && chunks.iter().all(|chunk| chunk.len() <= 32 * 1024) && chunks.concat() == bytes);
        assert_eq!(in_flight.counts().total, bytes.len());
        drop(body);
        assert_eq!(in_flight.counts().total, 0);
    }
}
