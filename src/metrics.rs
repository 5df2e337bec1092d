//! What is counted for operators, in the form of Prometheus. Labels are words of ours, never a caller's: a scrape tells
//! how much there is of everything and nothing about anybody.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::audit::Outcome;

/// Of answers from memory, of queries, and of a password hash.
const SECONDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

// The values of labels. All are there from the start, with 0: a counter that appears with its first event hides that event
// from `rate`.
const SIGN_INS: [&str; 4] = ["success", "failure", "throttled", "unavailable"];
const LIMITS: [&str; 8] = [
    "failed_sign_ins",
    "registrations",
    "claims",
    "invalid_tokens",
    "new_keys",
    "refusals",
    "connections",
    "bytes_in_flight",
];
const CACHE: [&str; 5] = ["hit", "miss", "uncertain", "stale", "invalidation"];

/// How all that is counted is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// How long something took, many times. Clones are one.
#[derive(Clone, Debug)]
pub struct Durations(Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new(SECONDS))
    }
}

impl Durations {
    /// One more.
    pub fn note(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    sign_ins: Family<OutcomeLabels, Counter>,
    audit_entries: Family<OutcomeLabels, Counter>,
    throttled: Family<LimitLabels, Counter>,
    cache: Family<OutcomeLabels, Counter>,
    hash_queue: Gauge,
    connections: Family<StateLabels, Gauge>,
}

/// What is not counted but looked at when somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Hits, misses, lookups without certainty, stale answers and invalidations of the cache.
    pub cache: [u64; 5],
    /// Password hashes that wait.
    pub hash_queue: usize,
    /// Database connections that are open, and those of them that do nothing.
    pub connections: [u32; 2],
}

impl Metrics {
    /// Everything at nothing. How long hashes and connections were waited for is noted elsewhere.
    pub fn new(hash_waits: &Durations, connection_waits: &Durations) -> Self {
        let mut registry = Registry::with_prefix("latchkey");
        let requests: Family<RequestLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        let (sign_ins, audit_entries, throttled, cache) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        let (hash_queue, connections) = (Gauge::default(), Family::default());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let seconds = || Unit::Seconds;
        registry.register("build", "The program", build);
        registry.register_with_unit("request_duration", "Requests and how long they took", seconds(), requests.clone());
        registry.register("sign_ins", "Attempts to sign in", sign_ins.clone());
        registry.register("audit_entries", "Entries written to the audit trail", audit_entries.clone());
        registry.register("throttled", "Requests over a limit", throttled.clone());
        registry.register(
            "cache",
            "Lookups answered from memory or not and why, and changes that ended entries",
            cache.clone(),
        );
        registry.register("hash_queue", "Password hashes that wait for a thread", hash_queue.clone());
        let waits = hash_waits.0.clone();
        registry.register_with_unit("hash_wait", "How long password hashes waited for a thread", seconds(), waits);
        registry.register("database_connections", "Connections to the database", connections.clone());
        let waits = connection_waits.0.clone();
        registry.register_with_unit("database_wait", "How long a connection was waited for", seconds(), waits);
        let metrics = Self { registry, requests, sign_ins, audit_entries, throttled, cache, hash_queue, connections };
        let outcomes = Outcome::ALL.map(Outcome::name);
        for (counters, outcomes) in [(&metrics.sign_ins, &SIGN_INS[..]), (&metrics.audit_entries, &outcomes)] {
            outcomes.iter().for_each(|outcome| drop(counters.get_or_create(&OutcomeLabels { outcome })));
        }
        LIMITS.iter().for_each(|limit| drop(metrics.throttled.get_or_create(&LimitLabels { limit })));
        metrics
    }

    /// A request to a route (its pattern; empty if there is none) was answered.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Somebody tried to sign in.
    pub fn sign_in(&self, outcome: &'static str) {
        debug_assert!(SIGN_INS.contains(&outcome), "{outcome} is to be in SIGN_INS");
        self.sign_ins.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The trail grew.
    pub fn audit_entry(&self, outcome: &'static str) {
        self.audit_entries.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A limit was reached.
    pub fn throttled(&self, limit: &'static str) {
        debug_assert!(LIMITS.contains(&limit), "{limit} is to be in LIMITS");
        self.throttled.get_or_create(&LimitLabels { limit }).inc();
    }

    /// All of it as text, for Prometheus.
    pub fn text(&self, now: Levels, format: TextFormat) -> Result<String, std::fmt::Error> {
        for (outcome, count) in CACHE.into_iter().zip(now.cache) {
            self.cache.get_or_create(&OutcomeLabels { outcome }).inner().store(count, Ordering::Relaxed);
        }
        self.hash_queue.set(i64::try_from(now.hash_queue).unwrap_or(i64::MAX));
        let [open, idle] = now.connections;
        for (state, count) in [("idle", idle), ("busy", open.saturating_sub(idle))] {
            self.connections.get_or_create(&StateLabels { state }).set(count.into());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(match format {
            TextFormat::OpenMetrics => text,
            TextFormat::Prometheus => in_prometheus_format(&text),
        })
    }
}

/// The same without what OpenMetrics has added: units and an end. A counter is named as its samples are, and what says
/// which program this is, is a gauge.
fn in_prometheus_format(openmetrics: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(openmetrics.len()), "");
    for line in openmetrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            text.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        let waits = Durations::default();
        let metrics = Metrics::new(&waits, &Durations::default());
        waits.note(Duration::from_millis(20));
        metrics.request("GET", "/me", 200, Duration::from_micros(300));
        metrics.sign_in("failure");
        metrics.audit_entry("success");
        metrics.throttled("registrations");
        let now = Levels { cache: [3, 2, 0, 0, 1], hash_queue: 5, connections: [8, 6] };
        let classic = metrics.text(now, TextFormat::Prometheus).unwrap();
        let text = metrics.text(now, TextFormat::OpenMetrics).unwrap();
        assert!(text.ends_with("\n# EOF\n") && !classic.contains("# EOF") && !classic.contains("# UNIT"));
        let samples =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&classic), samples(&text));
        for line in [
            "# TYPE latchkey_sign_ins_total counter",
            "# HELP latchkey_sign_ins_total Attempts to sign in.",
            "# TYPE latchkey_build_info gauge",
            "# TYPE latchkey_request_duration_seconds histogram",
        ] {
            assert!(classic.lines().any(|told| told == line), "{line} in {classic}");
        }
        for line in [
            "latchkey_sign_ins_total{outcome=\"unavailable\"} 0",
            "latchkey_audit_entries_total{outcome=\"denied\"} 0",
            "latchkey_throttled_total{limit=\"connections\"} 0",
            "latchkey_build_info{version=\"0.1.0\"} 1",
            "latchkey_request_duration_seconds_count{method=\"GET\",route=\"/me\",status=\"200\"} 1",
            "latchkey_request_duration_seconds_bucket{le=\"0.0005\",method=\"GET\",route=\"/me\",status=\"200\"} 1",
            "latchkey_sign_ins_total{outcome=\"failure\"} 1",
            "latchkey_audit_entries_total{outcome=\"success\"} 1",
            "latchkey_throttled_total{limit=\"registrations\"} 1",
            "latchkey_cache_total{outcome=\"hit\"} 3",
            "latchkey_hash_queue 5",
            "latchkey_hash_wait_seconds_sum 0.02",
            "latchkey_database_connections{state=\"busy\"} 2",
            "latchkey_database_wait_seconds_count 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
    }
}
