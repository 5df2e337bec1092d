//! Which connections are taken: how many one client may hold, and how long one may be idle.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio_rustls::TlsAcceptor;

use super::stream::{Io, Stream};
use crate::config::{Networks, Settings};
use crate::domain::network::Network;
use crate::metrics::Metrics;

/// Connections that the system has accepted and the program has not taken yet.
const BACKLOG: i32 = 1024;
/// How long a client may take nothing of what was sent to it before the system ends its connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// What the system keeps for a client that has not taken it yet, in bytes: enough for 1 MB/s at 100 ms.
const SEND_BUFFER: usize = 128 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A socket that has an address of its own, and does not listen yet.
pub struct Bound(Socket);

/// Takes `address`. Fails if somebody listens there.
pub fn bind(address: SocketAddr) -> std::io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server takes its address back while the system still keeps old connections.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Connections inherit these.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(Bound(socket))
}

impl Bound {
    /// Listens: from now on clients can connect.
    pub fn listen(self) -> std::io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        self.0.set_nonblocking(true)?;
        Ok(self.0.into())
    }
}

/// Who holds how many connections.
pub struct Connections {
    most: usize,
    proxies: Networks,
    keep_alive: Duration,
    proxy_keep_alive: Duration,
    open: Mutex<HashMap<Network, usize>>,
    metrics: Arc<Metrics>,
}

/// A connection that counts, for as long as it is open.
pub struct Counted {
    among: Arc<Connections>,
    client: Network,
}

impl Connections {
    /// As the settings say.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            most: settings.server.connections_per_client,
            proxies: settings.http.trusted_proxies.clone(),
            keep_alive: Duration::from_secs(settings.server.keep_alive),
            proxy_keep_alive: Duration::from_secs(settings.http.proxy_keep_alive),
            open: Mutex::default(),
            metrics,
        })
    }

    /// Takes a new connection, over TLS if there is a `tls`, or cuts it if its client has enough. A trusted proxy has
    /// many clients, and so as many connections as it likes.
    pub async fn accept(self: &Arc<Self>, stream: TcpStream, tls: Option<&TlsAcceptor>) -> Option<Stream> {
        let peer = stream.peer_addr().ok()?;
        let address = peer.ip().to_canonical();
        let is_proxy = self.proxies.contain(address);
        let counted = if is_proxy { None } else { Some(self.count(address, &stream)?) };
        // An answer is written whole, so nothing is gained by waiting for more.
        stream.set_nodelay(true).ok()?;
        let io = match tls {
            None => Io::Plain(stream),
            // The connection counts from here on, so that handshakes that never end are bounded, too.
            Some(tls) => Io::Tls(Box::new(tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await.ok()?.ok()?)),
        };
        let keep_alive = if is_proxy { self.proxy_keep_alive } else { self.keep_alive };
        Some(Stream::new(io, peer, keep_alive, counted))
    }

    fn count(self: &Arc<Self>, peer: IpAddr, stream: &TcpStream) -> Option<Counted> {
        let client = Network::of(peer);
        let mut open = self.open();
        let held = open.entry(client).or_default();
        if *held >= self.most {
            drop(open);
            self.metrics.throttled("connections");
            // A client that has gone already needs no notice.
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
            return None;
        }
        *held += 1;
        Some(Counted { among: Arc::clone(self), client })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.among.open();
        if let Some(held) = open.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                open.remove(&self.client);
            }
        }
    }
}
