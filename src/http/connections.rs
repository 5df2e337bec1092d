//! Connections: where they are taken, how many one client may hold, and how long one may stand still.

use std::any::Any;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::{Networks, Settings};
use crate::domain::network::Network;
use crate::metrics::Metrics;

/// Connections that the system has accepted and the program has not taken yet.
const BACKLOG: i32 = 1024;
/// How long a client may leave what was sent to it unread before its connection is cut; actix itself would wait for ever.
const READ_WAIT: Duration = Duration::from_secs(30);

/// A socket that has an address of its own, and does not listen yet.
pub struct Bound(Socket);

/// Takes `address`. Fails if somebody listens there.
pub fn bind(address: SocketAddr) -> std::io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server takes its address back while old connections are still being buried.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Connections inherit it.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(READ_WAIT))?;
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
    open: Mutex<HashMap<Network, usize>>,
    metrics: Arc<Metrics>,
}

/// A connection that counts, for as long as it is open.
struct Counted {
    among: Arc<Connections>,
    client: Network,
}

impl Connections {
    /// As many for each client as the settings say.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        let most = settings.server.connections_per_client;
        let proxies = settings.http.trusted_proxies.clone();
        Arc::new(Self { most, proxies, open: Mutex::default(), metrics })
    }

    /// Counts a new connection, or cuts it if its client has enough. Behind a trusted proxy are many clients.
    pub fn welcome(self: &Arc<Self>, connection: &dyn Any, data: &mut Extensions) {
        let secure = connection.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
        let Some(stream) = secure.or_else(|| connection.downcast_ref()) else {
            return;
        };
        let Some(peer) = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical()) else {
            return;
        };
        if self.proxies.contain(peer) {
            return;
        }
        match self.count(peer) {
            Some(counted) => drop(data.insert(counted)),
            None => {
                self.metrics.throttled("connections");
                // Whoever has gone already need not be told.
                let _ = SockRef::from(stream).shutdown(Shutdown::Both);
            }
        }
    }

    fn count(self: &Arc<Self>, peer: IpAddr) -> Option<Counted> {
        let client = Network::of(peer);
        let mut open = self.open();
        let held = open.entry(client).or_default();
        if *held >= self.most {
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
