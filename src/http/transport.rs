//! From a listener to requests: actix-server takes connections and actix-http reads requests from them, as actix-web's own
//! `HttpServer` has them do, but on connections of our own that do not wait for ever.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::Error;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connections::Connections;
use super::stream::Stream;

/// How long a connection may take to close, and a client to stop sending after it was refused.
const CLOSE: Duration = Duration::from_secs(1);

/// How connections are served.
pub struct Transport {
    /// Threads that serve them.
    pub workers: usize,
    /// Connections at most.
    pub connections: usize,
    /// Seconds that requests have to end when the server stops.
    pub shutdown_timeout: u64,
    /// TLS, if it is on.
    pub tls: Option<TlsAcceptor>,
}

impl Transport {
    /// Serves an application on a listener.
    pub fn serve<F, I, S, B>(
        self,
        listener: TcpListener,
        accept: Arc<Connections>,
        application: F,
    ) -> io::Result<Server>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<Error> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as Service<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let tls = self.tls;
        let workers = self.workers.max(1);
        let builder = Server::build()
            .workers(workers)
            // Of each worker.
            .max_concurrent_connections(self.connections.div_ceil(workers))
            .shutdown_timeout(self.shutdown_timeout)
            // Signals are the server's business.
            .disable_signals();
        let stopping = builder.graceful_shutdown_signal();
        let factory = move || {
            let (accept, tls) = (Arc::clone(&accept), tls.clone());
            let taken = fn_service(move |stream: TcpStream| {
                let (accept, tls) = (Arc::clone(&accept), tls.clone());
                async move { accept.accept(stream, tls.as_ref()).await.map(with_peer).ok_or(()) }
            });
            taken.and_then(requests::<I, S, B>(application(), stopping.clone()))
        };
        Ok(builder.listen("http", listener, factory)?.run())
    }
}

fn with_peer(stream: Stream) -> (Stream, Option<SocketAddr>) {
    let peer = stream.peer();
    (stream, Some(peer))
}

/// Reads requests from connections, and has them served by `application`.
fn requests<I, S, B>(
    application: I,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<(Stream, Option<SocketAddr>), Config = (), Response = (), Error = (), InitError = ()>
where
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let application = application.into_factory().map_err(|error| error.into().error_response());
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        // The stream knows how long it may be idle, and how long a head may take.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(CLOSE)
        .on_connect_ext(|stream: &Stream, data| drop(data.insert(stream.activity())))
        .h1(map_config(application, |()| AppConfig::default()))
        .map_err(drop)
}
