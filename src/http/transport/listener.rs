//! Serves an application on a listener with actix-server and actix-http, like `HttpServer` of actix-web, but on the
//! connections of this module, which have time-outs.

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

use crate::http::transport::connections::Connections;
use crate::http::transport::stream::Stream;

/// The time-out for closing a connection, including for a client that continues to send after an error.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The configuration of a server.
pub struct Transport {
    /// The number of worker threads.
    pub workers: usize,
    /// The most open connections.
    pub connections: usize,
    /// The time-out for active requests at shutdown, in seconds.
    pub shutdown_timeout: u64,
    /// The TLS acceptor; `None` for plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

impl Transport {
    /// Serves an application on a listener. The caller must await the returned server.
    pub fn serve<F, I, S, B>(
        self,
        listener: TcpListener,
        connections: Arc<Connections>,
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
            // The limit is per worker.
            .max_concurrent_connections(self.connections.div_ceil(workers))
            .shutdown_timeout(self.shutdown_timeout)
            // `crate::server` handles signals.
            .disable_signals();
        let stopping = builder.graceful_shutdown_signal();
        let factory = move || {
            let (connections, tls) = (Arc::clone(&connections), tls.clone());
            let accepted = fn_service(move |stream: TcpStream| {
                let (connections, tls) = (Arc::clone(&connections), tls.clone());
                async move { connections.accept(stream, tls.as_ref()).await.map(with_peer).ok_or(()) }
            });
            accepted.and_then(requests::<I, S, B>(application(), stopping.clone()))
        };
        Ok(builder.listen("http", listener, factory)?.run())
    }
}

fn with_peer(stream: Stream) -> (Stream, Option<SocketAddr>) {
    let peer = stream.peer();
    (stream, Some(peer))
}

/// A service that reads requests from connections and passes them to `application`.
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
        // `Stream` implements the time-outs for idle connections and request heads.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(CLOSE_TIMEOUT)
        .on_connect_ext(|stream: &Stream, data| drop(data.insert(stream.activity())))
        .h1(map_config(application, |()| AppConfig::default()))
        .map_err(drop)
}
