//! A connection with time-outs for idle clients, slow request heads and slow readers.
//!
//! actix-http has one idle time-out for all connections, a time-out for the first head only, and none for slow readers.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::http::request::activity::Activity;
use crate::http::transport::connection_count::CountedConnection;
use crate::http::transport::early::{self, EarlyResponse};

/// The time that writes can be blocked by a slow client in total, unless it earns more time by reading.
const MAX_BLOCKED: Duration = Duration::from_secs(10);
/// Bytes that a client must read to earn one second of blocked time.
const BYTES_PER_SECOND: u64 = 16 * 1024;

/// The byte stream of a connection.
pub enum Io {
    /// Plain HTTP.
    Plain(TcpStream),
    /// HTTP over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// Evaluates an expression for either variant of [`Io`].
macro_rules! on_io {
    ($io:expr, $stream:ident => $poll:expr) => {
        match $io {
            Io::Plain(stream) => {
                let $stream = Pin::new(stream);
                $poll
            }
            Io::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $poll
            }
        }
    };
}

/// The connection that actix-http reads and writes.
pub struct Stream {
    io: Io,
    peer: SocketAddr,
    activity: Rc<Activity>,
    keep_alive: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// When the current write became blocked.
    blocked_since: Option<Instant>,
    /// How much longer writes can be blocked.
    credit: Duration,
    early: Option<EarlyResponse>,
    _counted: Option<CountedConnection>,
}

impl Stream {
    /// A connection with an idle time-out of `keep_alive`. If it is `counted`, the head of the first request must
    /// arrive within the head time-out. Trusted proxies, whose connections are not counted, can open connections in
    /// advance.
    pub fn new(io: Io, peer: SocketAddr, keep_alive: Duration, counted: Option<CountedConnection>) -> Self {
        let activity = Rc::new(Activity::new(matches!(io, Io::Tls(_)), counted.is_none()));
        let (timer, blocked_since, early) = (None, None, None);
        Self { io, peer, activity, keep_alive, timer, blocked_since, credit: MAX_BLOCKED, early, _counted: counted }
    }

    /// The address of the peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The state that the connection shares with its requests.
    pub fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    /// Whether the deadline has passed. If not, the task is woken at the deadline.
    fn has_passed(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if timer.is_elapsed() || timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            match timer.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if deadline <= Instant::now() => return true,
                // The timer was set for an earlier deadline.
                Poll::Ready(()) => {}
            }
        }
    }

    /// Records that bytes have been written, and adjusts the credit.
    fn record_written(&mut self, bytes: usize) {
        if let Some(since) = self.blocked_since.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
        if self.credit < MAX_BLOCKED {
            let earned = Duration::from_micros(
                u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / BYTES_PER_SECOND,
            );
            self.credit = MAX_BLOCKED.min(self.credit + earned);
        }
    }

    /// Handles a blocked write. Without credit, the connection is reset, and the operating system drops its send
    /// buffer.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        if !self.has_passed(since + self.credit, cx) {
            return Poll::Pending;
        }
        let _ = SockRef::from(self.io.socket()).set_linger(Some(Duration::ZERO));
        Poll::Ready(ErrorKind::TimedOut.into())
    }

    /// Writes the response to a slow head, if the socket accepts it without blocking.
    fn reject_slow_head(&mut self, cx: &mut Context<'_>) {
        let response = EarlyResponse::new(StatusCode::REQUEST_TIMEOUT, self.activity.is_secure);
        if let Poll::Ready(Ok(_)) = on_io!(&mut self.io, stream => stream.poll_write(cx, response.unwritten())) {
            let _ = on_io!(&mut self.io, stream => stream.poll_flush(cx));
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match on_io!(&mut self.io, stream => stream.poll_write(cx, bytes)) {
            Poll::Ready(Ok(written)) => {
                self.record_written(written);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_blocked(cx).map(Err),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        if let Poll::Ready(read) = on_io!(&mut self.io, stream => stream.poll_read(cx, bytes)) {
            if bytes.filled().len() > before {
                self.activity.record_read();
            }
            return Poll::Ready(read);
        }
        let deadline = self.activity.deadline(self.keep_alive).filter(|_| self.blocked_since.is_none());
        match deadline {
            Some(deadline) if self.has_passed(deadline, cx) => {
                if self.activity.awaits_head() {
                    self.reject_slow_head(cx);
                }
                // To actix-http, this is the end of the input.
                Poll::Ready(Ok(()))
            }
            _ => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(mut response) = this.early.take().or_else(|| EarlyResponse::replacing(bytes, this.activity.is_secure))
        else {
            let end = early::find(bytes).unwrap_or(bytes.len());
            return this.poll_write_some(cx, bytes.get(..end).unwrap_or(bytes));
        };
        // actix-http closes the connection after an early response, so nothing else is written.
        while !response.unwritten().is_empty() {
            match this.poll_write_some(cx, response.unwritten()) {
                Poll::Ready(Ok(written)) => response.advance(written),
                other => {
                    this.early = Some(response);
                    return other;
                }
            }
        }
        this.early = Some(response);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match on_io!(&mut self.io, stream => stream.poll_flush(cx)) {
            Poll::Ready(flushed) => {
                self.record_written(0);
                Poll::Ready(flushed)
            }
            Poll::Pending => self.poll_blocked(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(&mut self.io, stream => stream.poll_shutdown(cx))
    }
}
