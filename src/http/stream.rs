//! A connection that does not wait for ever: for a request, for the rest of one, or for a client to take its answer.
//!
//! actix-http has one idle time for all connections, limits the first head only, and waits for slow readers as long as
//! they like.

use std::cell::Cell;
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

use super::connections::Counted;
use super::early;

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a client may keep the server waiting in all before it has taken some of its answer.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes that a client must take for each second that it keeps the server waiting.
const RATE: u64 = 16 * 1024;

/// What a connection and the requests on it know of each other.
pub struct Activity {
    /// Whether it is over TLS.
    pub is_secure: bool,
    requests: Cell<usize>,
    /// Since when there has been no request.
    idle_since: Cell<Instant>,
    /// Since when some of the next request is there.
    head_since: Cell<Option<Instant>>,
}

/// A request that is being served.
pub struct UnderWay(Rc<Activity>);

impl Activity {
    fn new(is_secure: bool, may_wait: bool) -> Self {
        let now = Instant::now();
        let head_since = Cell::new((!may_wait).then_some(now));
        Self { is_secure, requests: Cell::new(0), idle_since: Cell::new(now), head_since }
    }

    /// A request begins. It is under way until what this returns is dropped.
    pub fn begin(self: &Rc<Self>) -> UnderWay {
        self.requests.set(self.requests.get() + 1);
        self.head_since.set(None);
        UnderWay(Rc::clone(self))
    }

    fn has_read(&self) {
        if self.requests.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// When it is enough, unless a request is under way.
    fn deadline(&self, keep_alive: Duration) -> Option<Instant> {
        let idle = || self.idle_since.get() + keep_alive;
        (self.requests.get() == 0).then(|| self.head_since.get().map_or_else(idle, |since| since + HEAD))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let requests = self.0.requests.get() - 1;
        self.0.requests.set(requests);
        if requests == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// The socket, or TLS on it.
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

/// Runs the same on either.
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

/// A connection as actix-http gets it.
pub struct Stream {
    io: Io,
    peer: SocketAddr,
    activity: Rc<Activity>,
    keep_alive: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the client has taken nothing although there is something.
    blocked_since: Option<Instant>,
    /// How long it may still do that.
    credit: Duration,
    early: Option<early::Answer>,
    _counted: Option<Counted>,
}

impl Stream {
    /// A connection that may be idle for so long. One that counts for its client is there for a request, whose head is
    /// awaited from the beginning; a trusted proxy may open connections before it needs them.
    pub fn new(io: Io, peer: SocketAddr, keep_alive: Duration, counted: Option<Counted>) -> Self {
        let activity = Rc::new(Activity::new(matches!(io, Io::Tls(_)), counted.is_none()));
        let (timer, blocked_since, early) = (None, None, None);
        Self { io, peer, activity, keep_alive, timer, blocked_since, credit: GRACE, early, _counted: counted }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What requests on it are to know.
    pub fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    /// Whether the time is over; if not, the task is woken when it is.
    fn is_over(&mut self, deadline: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if timer.is_elapsed() || timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            match timer.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if deadline <= Instant::now() => return true,
                // It was set for an earlier deadline.
                Poll::Ready(()) => {}
            }
        }
    }

    fn has_taken(&mut self, bytes: usize) {
        if let Some(since) = self.blocked_since.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
        if self.credit < GRACE {
            let earned =
                Duration::from_micros(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / RATE);
            self.credit = GRACE.min(self.credit + earned);
        }
    }

    /// The client takes nothing. If that goes on for too long, the connection ends at once, and what the system still
    /// keeps for it is dropped.
    fn is_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        if !self.is_over(since + self.credit, cx) {
            return Poll::Pending;
        }
        let _ = SockRef::from(self.io.socket()).set_linger(Some(Duration::ZERO));
        Poll::Ready(ErrorKind::TimedOut.into())
    }

    /// Says that the head took too long, to a client that takes as much at once.
    fn refuse_slow_head(&mut self, cx: &mut Context<'_>) {
        let answer = early::Answer::new(StatusCode::REQUEST_TIMEOUT, self.activity.is_secure);
        if let Poll::Ready(Ok(_)) = on_io!(&mut self.io, stream => stream.poll_write(cx, answer.rest())) {
            let _ = on_io!(&mut self.io, stream => stream.poll_flush(cx));
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match on_io!(&mut self.io, stream => stream.poll_write(cx, bytes)) {
            Poll::Ready(Ok(written)) => {
                self.has_taken(written);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.is_blocked(cx).map(Err),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        if let Poll::Ready(read) = on_io!(&mut self.io, stream => stream.poll_read(cx, bytes)) {
            if bytes.filled().len() > before {
                self.activity.has_read();
            }
            return Poll::Ready(read);
        }
        let deadline = self.activity.deadline(self.keep_alive).filter(|_| self.blocked_since.is_none());
        match deadline {
            Some(deadline) if self.is_over(deadline, cx) => {
                if self.activity.head_since.get().is_some() {
                    self.refuse_slow_head(cx);
                }
                // As if the client had ended it.
                Poll::Ready(Ok(()))
            }
            _ => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(mut answer) = this.early.take().or_else(|| early::Answer::instead_of(bytes, this.activity.is_secure))
        else {
            let own = early::find(bytes).unwrap_or(bytes.len());
            return this.poll_write_some(cx, bytes.get(..own).unwrap_or(bytes));
        };
        // What actix-http says before it closes the connection is the last that is written to it.
        while !answer.rest().is_empty() {
            match this.poll_write_some(cx, answer.rest()) {
                Poll::Ready(Ok(written)) => answer.advance(written),
                other => {
                    this.early = Some(answer);
                    return other;
                }
            }
        }
        this.early = Some(answer);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match on_io!(&mut self.io, stream => stream.poll_flush(cx)) {
            Poll::Ready(flushed) => {
                self.has_taken(0);
                Poll::Ready(flushed)
            }
            Poll::Pending => self.is_blocked(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(&mut self.io, stream => stream.poll_shutdown(cx))
    }
}
