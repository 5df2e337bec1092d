//! The access log line and the metrics of each request.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;

use crate::domain::audit::ClientInfo;
use crate::http::request::log_sampling::LogSamples;
use crate::metrics::Metrics;

/// The longest logged prefix of a path, in bytes.
const MAX_PATH: usize = 256;
/// The longest logged prefix of a method, in bytes.
const MAX_METHOD: usize = 32;
/// The customary status of a request whose client disconnected before the response.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Decides which requests are logged and counted.
///
/// Of the requests that succeed, each worker thread logs one of `every`. Of those that are rejected or fail, up to 100
/// per client and minute are logged.
#[derive(Clone)]
pub struct AccessLog {
    every: u32,
    /// The position in a series of `every` successful requests, of which the first is logged.
    position: Rc<Cell<u32>>,
    samples: Arc<LogSamples>,
    metrics: Option<Arc<Metrics>>,
}

impl AccessLog {
    /// Logs one of `every` requests that succeed, or none if `every` is 0, and counts all requests in `metrics`.
    pub fn new(every: u32, samples: Arc<LogSamples>, metrics: Option<Arc<Metrics>>) -> Self {
        Self { every, position: Rc::default(), samples, metrics }
    }

    /// Whether to log the cause of a failed request of this client. Counts the failure.
    pub fn should_log_cause(&self, client: Option<IpAddr>) -> bool {
        self.samples.failures.should_log(client)
    }

    /// Whether to log why a preflight request of this client was rejected. Counts the rejection.
    pub fn should_log_preflight(&self, client: Option<IpAddr>) -> bool {
        self.samples.preflights.should_log(client)
    }

    fn should_log(&self, status: u16, client: Option<IpAddr>) -> bool {
        if status >= 400 {
            return self.samples.refusals.should_log(client);
        }
        let position = self.position.get();
        self.position.set(if position + 1 < self.every { position + 1 } else { 0 });
        self.every > 0 && position == 0
    }
}

/// The metric label of a method. The set of labels is fixed, so that callers cannot add labels.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
}

/// The log line of a request, which is written on drop. If the client disconnects, the future of the request is
/// dropped, and the line has the status 499.
pub struct AccessLine {
    log: Option<AccessLog>,
    id: Arc<str>,
    client: Option<IpAddr>,
    method: Method,
    /// Without the query, because a client may have put a secret there.
    path: String,
    /// The route pattern, for metrics.
    route: String,
    status: u16,
    started: Instant,
}

impl AccessLine {
    /// The line of a request that has just arrived, with the status 499 until the response is known.
    pub fn new(request: &ServiceRequest, client_info: &ClientInfo) -> Self {
        Self {
            log: request.app_data::<AccessLog>().cloned(),
            id: client_info.request_id.clone().unwrap_or_default(),
            client: client_info.client,
            method: request.method().clone(),
            path: truncated(request.path(), MAX_PATH).to_owned(),
            route: String::new(),
            status: CLIENT_CLOSED_REQUEST,
            started: Instant::now(),
        }
    }

    /// Records an error that actix-web handles, or a panic of the handler, and logs it. The panic hook logs the panic
    /// itself; this line adds the request id.
    pub fn record_error(&mut self, error: &Error) {
        let status = error.as_response_error().status_code();
        self.status = status.as_u16();
        if status.is_server_error() && self.log.as_ref().is_none_or(|log| log.should_log_cause(self.client)) {
            log::error!(request_id = self.id.as_ref(); "{error}");
        }
    }

    /// Records the status and the route of the response.
    pub fn record_response(&mut self, response: &ServiceResponse<BoxBody>) {
        self.status = response.status().as_u16();
        if self.log.as_ref().is_some_and(|log| log.metrics.is_some()) {
            self.route = response.request().match_pattern().unwrap_or_default();
        }
    }
}

fn truncated(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        if let Some(metrics) = self.log.as_ref().and_then(|log| log.metrics.as_ref()) {
            metrics.request(method_label(&self.method), &self.route, self.status, duration);
        }
        if self.log.as_ref().is_some_and(|log| !log.should_log(self.status, self.client)) {
            return;
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        log::info!(
            target: "latchkey::access",
            request_id = self.id.as_ref(), method = truncated(self.method.as_str(), MAX_METHOD),
            path = self.path.as_str(), status = self.status, micros = micros;
            "request"
        );
    }
}
