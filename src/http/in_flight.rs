//! Bytes that are held in memory for clients: bodies on their way in, and answers on their way out.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

use super::problem::Fault;
use super::stream::UnderWay;
use crate::domain::network::Network;
use crate::error::AppError;
use crate::metrics::Metrics;

/// What counts for nothing, because it is about as large as what every connection needs anyway.
pub const SMALL: usize = 8 * 1024;
/// What one client may have.
pub const PER_CLIENT: usize = 8 * 1024 * 1024;
/// What all clients may have.
const IN_ALL: usize = 64 * 1024 * 1024;
/// What an answer counts for that is made while it is sent.
const STREAM: usize = 256 * 1024;
/// What is given to the connection at once: it keeps a copy until that is sent.
const SLICE: usize = 32 * 1024;

/// Counts the bytes.
pub struct InFlight {
    counts: Mutex<Counts>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Counts {
    clients: HashMap<Network, usize>,
    in_all: usize,
}

/// Bytes that count until this is dropped.
pub struct Held {
    of: Arc<InFlight>,
    client: Option<Network>,
    bytes: usize,
}

impl InFlight {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), metrics })
    }

    /// Counts `bytes` for a client if there is room for them.
    ///
    /// Errors: [`Fault::TooMuchInFlight`] if the client has enough; [`AppError::Busy`] if all together have.
    pub fn take(self: &Arc<Self>, client: Option<IpAddr>, bytes: usize) -> Result<Held, Fault> {
        let client = client.map(Network::of);
        let mut counts = self.counts();
        let has = client.and_then(|client| counts.clients.get(&client)).copied().unwrap_or_default();
        if has + bytes > PER_CLIENT {
            drop(counts);
            self.metrics.throttled("bytes_in_flight");
            return Err(Fault::TooMuchInFlight);
        }
        if counts.in_all + bytes > IN_ALL {
            return Err(AppError::Busy("too many bytes are in flight".into()).into());
        }
        counts.add(client, bytes);
        Ok(Held { of: Arc::clone(self), client, bytes })
    }

    /// Counts `bytes` for a client whether there is room or not.
    pub fn hold(self: &Arc<Self>, client: Option<IpAddr>, bytes: usize) -> Held {
        let client = client.map(Network::of);
        self.counts().add(client, bytes);
        Held { of: Arc::clone(self), client, bytes }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn add(&mut self, client: Option<Network>, bytes: usize) {
        self.in_all += bytes;
        if let Some(client) = client {
            *self.clients.entry(client).or_default() += bytes;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        counts.in_all -= self.bytes;
        let Some(client) = self.client else { return };
        if let Some(has) = counts.clients.get_mut(&client) {
            *has -= self.bytes;
            if *has == 0 {
                counts.clients.remove(&client);
            }
        }
    }
}

/// Marks an answer whose body is part of the program.
pub struct Static;

/// What a body counts for.
pub fn size(body: &BoxBody) -> usize {
    match body.size() {
        BodySize::None => 0,
        BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodySize::Stream => STREAM,
    }
}

/// A body that is given to the connection in slices, and with it what counts until it is sent.
pub struct Outgoing {
    body: BoxBody,
    rest: Bytes,
    _held: Option<Held>,
    _under_way: Option<UnderWay>,
}

impl Outgoing {
    /// This body. Its request is under way until it is sent.
    pub fn new(body: BoxBody, held: Option<Held>, under_way: Option<UnderWay>) -> Self {
        Self { body, rest: Bytes::new(), _held: held, _under_way: under_way }
    }
}

impl MessageBody for Outgoing {
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(this.body.as_pin_mut().poll_next(cx)) {
                Some(Ok(bytes)) => this.rest = bytes,
                ended => return Poll::Ready(ended),
            }
        }
        let most = this.rest.len().min(SLICE);
        Poll::Ready(Some(Ok(this.rest.split_to(most))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Durations;

    fn in_flight() -> Arc<InFlight> {
        InFlight::new(Arc::new(Metrics::new(&Durations::default(), &Durations::default())))
    }

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn a_client_has_8_mib_and_all_together_64_mib() {
        const SHARE: usize = 8 * 1024 * 1024;
        let in_flight = in_flight();
        let first = in_flight.take(client(1), SHARE).unwrap();
        assert!(matches!(in_flight.take(client(1), 1), Err(Fault::TooMuchInFlight)));
        let mut held: Vec<Held> = (2..=8).map(|number| in_flight.take(client(number), SHARE).unwrap()).collect();
        assert!(matches!(in_flight.take(client(9), 1), Err(Fault::App(AppError::Busy(_)))));
        held.push(in_flight.hold(client(9), 1));
        drop(first);
        assert!(in_flight.take(client(1), SHARE - 1).is_ok());
        held.clear();
        assert!(in_flight.counts().clients.is_empty() && in_flight.counts().in_all == 0);
    }

    #[actix_web::test]
    async fn a_body_is_given_in_slices_and_counts_until_it_is_dropped() {
        let in_flight = in_flight();
        let bytes = Bytes::from(vec![b'x'; 3 * 32 * 1024 + 1]);
        let held = in_flight.take(client(1), bytes.len()).unwrap();
        let mut body = Outgoing::new(BoxBody::new(bytes.clone()), Some(held), None);
        assert_eq!(body.size(), BodySize::Sized(u64::try_from(bytes.len()).unwrap()));
        let mut slices = Vec::new();
        while let Some(slice) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
            slices.push(slice.unwrap());
        }
        assert!(slices.len() == 4 && slices.iter().all(|slice| slice.len() <= 32 * 1024) && slices.concat() == bytes);
        assert_eq!(in_flight.counts().in_all, bytes.len());
        drop(body);
        assert_eq!(in_flight.counts().in_all, 0);
    }
}
