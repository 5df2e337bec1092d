//! The log line and the metrics of each request.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;

use super::refusals::Samples;
use crate::domain::audit::Origin;
use crate::metrics::Metrics;

/// What is logged of a path, in bytes.
const MAX_PATH: usize = 256;
/// What is logged of a method, in bytes.
const MAX_METHOD: usize = 32;
/// The status, by custom, of an answer that its client did not wait for.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Which requests are logged and counted. Of those that succeed one of so many has a line, for each thread by itself; of
/// refusals so many of each client.
#[derive(Clone)]
pub struct AccessLog {
    every: u32,
    turn: Rc<Cell<u32>>,
    samples: Arc<Samples>,
    metrics: Option<Arc<Metrics>>,
}

impl AccessLog {
    /// A line for one of `every` requests that succeed, or none if 0; all are counted in `metrics`, if there are any.
    pub fn new(every: u32, samples: Arc<Samples>, metrics: Option<Arc<Metrics>>) -> Self {
        Self { every, turn: Rc::default(), samples, metrics }
    }

    /// Whether there is a line about the cause of a failure of this client's request.
    pub fn has_cause(&self, client: Option<IpAddr>) -> bool {
        self.samples.failures.has_line(client)
    }

    fn is_due(&self, status: u16, client: Option<IpAddr>) -> bool {
        if status >= 400 {
            return self.samples.refusals.has_line(client);
        }
        let turn = self.turn.get();
        self.turn.set(if turn + 1 < self.every { turn + 1 } else { 0 });
        self.every > 0 && turn == 0
    }
}

/// A method as a label, of which callers may not make up more.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
}

/// The log line about a request. A client that goes away takes the request's future with it; then the line is written
/// as that is dropped, with the status 499.
pub struct AccessLine {
    log: Option<AccessLog>,
    id: Arc<str>,
    client: Option<IpAddr>,
    method: Method,
    /// Without the query, where a careless client may have put a secret.
    path: String,
    /// The pattern, for metrics.
    route: String,
    status: u16,
    started: Instant,
}

impl AccessLine {
    /// The line of a request that has just arrived.
    pub fn new(request: &ServiceRequest, origin: &Origin) -> Self {
        Self {
            log: request.app_data::<AccessLog>().cloned(),
            id: origin.request_id.clone().unwrap_or_default(),
            client: origin.client,
            method: request.method().clone(),
            path: beginning(request.path(), MAX_PATH).to_owned(),
            route: String::new(),
            status: CLIENT_CLOSED_REQUEST,
            started: Instant::now(),
        }
    }

    /// Takes note of an error that the framework answers, or that a handler panicked. The panic has a line of its own, to
    /// which this leads.
    pub fn failed(&mut self, error: &Error) {
        let status = error.as_response_error().status_code();
        self.status = status.as_u16();
        if status.is_server_error() && self.log.as_ref().is_none_or(|log| log.has_cause(self.client)) {
            log::error!(request_id = self.id.as_ref(); "{error}");
        }
    }

    /// Takes note of the answer.
    pub fn answered(&mut self, response: &ServiceResponse<BoxBody>) {
        self.status = response.status().as_u16();
        if self.log.as_ref().is_some_and(|log| log.metrics.is_some()) {
            self.route = response.request().match_pattern().unwrap_or_default();
        }
    }
}

fn beginning(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if let Some(metrics) = self.log.as_ref().and_then(|log| log.metrics.as_ref()) {
            metrics.request(known(&self.method), &self.route, self.status, took);
        }
        if self.log.as_ref().is_some_and(|log| !log.is_due(self.status, self.client)) {
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        log::info!(
            target: "latchkey::access",
            request_id = self.id.as_ref(), method = beginning(self.method.as_str(), MAX_METHOD),
            path = self.path.as_str(), status = self.status, micros = micros;
            "request"
        );
    }
}
