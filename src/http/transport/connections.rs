//! Accepts connections, and limits their number by client and their idle time.

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
#[cfg(target_os = "linux")]
use std::num::{NonZeroI32, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio_rustls::TlsAcceptor;

use crate::config::{Networks, Settings};
use crate::domain::network::Network;
use crate::http::transport::connection_count::{ConnectionCounts, CountedConnection};
use crate::http::transport::stream::{Io, Stream};
use crate::metrics::Metrics;

/// The most connections that the operating system keeps until the server accepts them.
const BACKLOG: i32 = 1024;
/// `TCP_USER_TIMEOUT`: the operating system closes a connection whose client acknowledges no data for this long.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The size of the send buffer of a connection in bytes: enough for 1 MB/s at 100 ms round-trip time.
const SEND_BUFFER: usize = 128 * 1024;
/// The time-out for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// A socket that is bound to an address and does not listen yet.
pub struct BoundSocket(Socket);

/// Binds a socket to `address`. Errors: the address is in use or not available.
pub fn bind(address: SocketAddr) -> std::io::Result<BoundSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server can bind its address while connections of its predecessor are in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Accepted connections inherit these options.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(BoundSocket(socket))
}

impl BoundSocket {
    /// A second handle to the socket, with which the server stops new connections before it closes the socket.
    pub fn listening_socket(&self) -> std::io::Result<ListeningSocket> {
        self.0.try_clone().map(ListeningSocket)
    }

    /// Starts to listen, so that clients can connect.
    pub fn listen(self) -> std::io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        self.0.set_nonblocking(true)?;
        Ok(self.0.into())
    }
}

/// A handle to the socket on which the server listens. The socket stays open until this is dropped.
pub struct ListeningSocket(Socket);

/// The index of a network interface that does not exist: the largest one, and Linux counts them from 1.
#[cfg(target_os = "linux")]
const NO_INTERFACE: NonZeroU32 = NonZeroI32::MAX.unsigned_abs();

impl ListeningSocket {
    /// Refuses clients that begin to connect from now on, as if nothing listened: the socket is bound to a network
    /// interface that does not exist. The connections that are established can still be accepted. Without this, clients
    /// connect until the socket closes, and the kernel then resets the connections that are not accepted.
    ///
    /// Has no effect on systems other than Linux. Errors: Linux before 5.7 requires the capability NET_RAW.
    pub fn refuse_new_connections(&self) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        self.0.bind_device_by_index_v4(Some(NO_INTERFACE))?;
        Ok(())
    }
}

/// Accepts connections.
pub struct Connections {
    counts: Arc<ConnectionCounts>,
    proxies: Networks,
    keep_alive: Duration,
    proxy_keep_alive: Duration,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// With the limits of the settings.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            counts: ConnectionCounts::new(settings.server.connections_per_client),
            proxies: settings.http.trusted_proxies.clone(),
            keep_alive: Duration::from_secs(settings.server.keep_alive),
            proxy_keep_alive: Duration::from_secs(settings.http.proxy_keep_alive),
            metrics,
        })
    }

    /// Accepts a new connection, over TLS if `tls` is set. Returns `None` if the connection fails, or if the client has
    /// reached its limit and the connection is closed. Trusted proxies have no limit, because they have many clients.
    pub async fn accept(&self, stream: TcpStream, tls: Option<&TlsAcceptor>) -> Option<Stream> {
        let peer = stream.peer_addr().ok()?;
        let address = peer.ip().to_canonical();
        let is_proxy = self.proxies.contains(address);
        let counted = if is_proxy { None } else { Some(self.count(address, &stream)?) };
        // A response is written at once, so a delay would not combine packets.
        stream.set_nodelay(true).ok()?;
        let io = match tls {
            None => Io::Plain(stream),
            // The connection already counts, so the limit includes handshakes that do not end.
            Some(tls) => {
                Io::Tls(Box::new(tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await.ok()?.ok()?))
            }
        };
        let keep_alive = if is_proxy { self.proxy_keep_alive } else { self.keep_alive };
        Some(Stream::new(io, peer, keep_alive, counted))
    }

    fn count(&self, peer: IpAddr, stream: &TcpStream) -> Option<CountedConnection> {
        let counted = self.counts.add(Network::of(peer));
        if counted.is_none() {
            self.metrics.throttled("connections");
            // An error is ignored, because it means that the client has disconnected.
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
        counted
    }
}
