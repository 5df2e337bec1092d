//! Metrics for operators, in the text formats of Prometheus. The values of labels are constants and route patterns,
//! never input of callers, so that the metrics contain no personal data.

pub mod hourly;
pub mod process;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::hourly::{CountedEvent, HourlyCounters};
use crate::domain::audit::Outcome;

/// Bucket bounds in seconds. They cover responses from memory, queries and password hashes.
const BUCKETS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

// The values of labels. All counters exist with the value 0 from the start, because `rate` misses the first event of a
// counter that appears with it.
const SIGN_INS: [&str; 4] = ["success", "failure", "throttled", "unavailable"];
const LIMITS: [&str; 9] = [
    "failed_sign_ins",
    "registrations",
    "claims",
    "mails",
    "invalid_tokens",
    "new_keys",
    "refusals",
    "connections",
    "bytes_in_flight",
];
/// The codes of `/health/ready`.
const NOT_READY: [&str; 11] = [
    "busy",
    "stopping",
    "schema_outdated",
    "schema_unknown",
    "schema_changed",
    "privilege_missing",
    "read_only",
    "disk_full",
    "database_rejected",
    "database_damaged",
    "database_replaced",
];
const MAILS: [&str; 4] = ["sent", "deferred", "failed", "dropped"];
const CACHE: [&str; 5] = ["hit", "miss", "uncertain", "stale", "invalidation"];

/// The text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// A histogram of durations. Clones share the histogram.
#[derive(Clone, Debug)]
pub struct Durations(Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl Durations {
    /// Adds a duration.
    pub fn observe(&self, took: Duration) {
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Registry,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    sign_ins: Family<OutcomeLabels, Counter>,
    audit_entries: Family<OutcomeLabels, Counter>,
    throttled: Family<LimitLabels, Counter>,
    cache: Family<OutcomeLabels, Counter>,
    mails: Family<OutcomeLabels, Counter>,
    mails_waiting: Gauge,
    hash_queue: Gauge,
    hash_lanes: Gauge,
    connections: Family<StateLabels, Gauge>,
    not_ready: Family<ReasonLabels, Gauge>,
    hourly: Arc<HourlyCounters>,
}

/// Values that other components hold and that are read at each scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricsSnapshot {
    /// Hits, misses, uncertain lookups, stale responses and invalidations of the cache.
    pub cache: [u64; 5],
    /// Password hashes that wait for a lane.
    pub hash_queue: usize,
    /// Password hashes in progress.
    pub hash_lanes: usize,
    /// Open database connections, and the idle ones among them.
    pub connections: [u32; 2],
    /// The code of `/health/ready`, if the server is not ready.
    pub not_ready: Option<&'static str>,
}

impl Metrics {
    /// Creates all metrics with the value 0. Other components observe the two histograms of waiting times. Events of
    /// which there are statistics are also counted in `hourly`.
    pub fn new(hash_waits: &Durations, connection_waits: &Durations, hourly: Arc<HourlyCounters>) -> Self {
        let mut registry = Registry::with_prefix("latchkey");
        let requests: Family<RequestLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let (sign_ins, audit_entries, throttled, cache) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        let (mails, mails_waiting) = (Family::default(), Gauge::default());
        let (hash_queue, hash_lanes) = (Gauge::default(), Gauge::default());
        let (connections, not_ready) = (Family::default(), Family::default());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let seconds = || Unit::Seconds;
        registry.register("build", "Version of the program", build);
        registry.register_with_unit("request_duration", "Duration of requests", seconds(), requests.clone());
        registry.register("sign_ins", "Sign-in attempts", sign_ins.clone());
        registry.register("audit_entries", "Entries written to the audit trail", audit_entries.clone());
        registry.register("throttled", "Requests that exceeded a limit", throttled.clone());
        registry.register(
            "cache",
            "Lookups of credentials by result, and changes that invalidated cache entries",
            cache.clone(),
        );
        registry.register("mails", "Mails by outcome of an attempt, and those that a limit dropped", mails.clone());
        registry.register("mails_waiting", "Mails that wait to be sent, of all processes", mails_waiting.clone());
        registry.register("hash_queue", "Password hashes that wait for a lane of a hashing thread", hash_queue.clone());
        registry.register("hash_lanes_in_use", "Password hashes in progress", hash_lanes.clone());
        let waits = hash_waits.0.clone();
        registry.register_with_unit("hash_wait", "Time that password hashes waited for a lane", seconds(), waits);
        registry.register("database_connections", "Connections to the database", connections.clone());
        let waits = connection_waits.0.clone();
        registry.register_with_unit("database_wait", "Time spent waiting for a database connection", seconds(), waits);
        registry.register("not_ready", "Whether the server is not ready for this reason", not_ready.clone());
        let metrics = Self {
            registry,
            process: process::registry(),
            requests,
            sign_ins,
            audit_entries,
            throttled,
            cache,
            mails,
            mails_waiting,
            hash_queue,
            hash_lanes,
            connections,
            not_ready,
            hourly,
        };
        let outcomes = Outcome::ALL.map(Outcome::name);
        for (counters, outcomes) in
            [(&metrics.sign_ins, &SIGN_INS[..]), (&metrics.audit_entries, &outcomes), (&metrics.mails, &MAILS)]
        {
            outcomes.iter().for_each(|outcome| drop(counters.get_or_create(&OutcomeLabels { outcome })));
        }
        LIMITS.iter().for_each(|limit| drop(metrics.throttled.get_or_create(&LimitLabels { limit })));
        metrics
    }

    /// Counts a request. `route` is the pattern of the route, empty if there is none.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an attempt to sign in.
    pub fn sign_in(&self, outcome: &'static str) {
        debug_assert!(SIGN_INS.contains(&outcome), "{outcome} must be in SIGN_INS");
        self.sign_ins.get_or_create(&OutcomeLabels { outcome }).inc();
        let event = match outcome {
            "success" => Some(CountedEvent::SignInSucceeded),
            "failure" => Some(CountedEvent::SignInFailed),
            "throttled" => Some(CountedEvent::SignInThrottled),
            _ => None,
        };
        event.into_iter().for_each(|event| self.hourly.add(event));
    }

    /// The counts by hour, for statistics.
    pub fn hourly(&self) -> &Arc<HourlyCounters> {
        &self.hourly
    }

    /// Counts an entry of the audit trail.
    pub fn audit_entry(&self, outcome: &'static str) {
        self.audit_entries.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a mail.
    pub fn mail(&self, outcome: &'static str) {
        self.mails(outcome, 1);
    }

    /// Counts mails with the same outcome, one of `MAILS`.
    pub fn mails(&self, outcome: &'static str, number: usize) {
        debug_assert!(MAILS.contains(&outcome), "{outcome} must be in MAILS");
        self.mails.get_or_create(&OutcomeLabels { outcome }).inc_by(u64::try_from(number).unwrap_or(u64::MAX));
    }

    /// Sets the number of mails that wait to be sent.
    pub fn mails_waiting(&self, number: i64) {
        self.mails_waiting.set(number);
    }

    /// Counts a request that exceeded a limit.
    pub fn throttled(&self, limit: &'static str) {
        debug_assert!(LIMITS.contains(&limit), "{limit} must be in LIMITS");
        self.throttled.get_or_create(&LimitLabels { limit }).inc();
    }

    /// All metrics as text, with the current values of `now`.
    ///
    /// Errors: the encoder fails, which does not happen for a string.
    pub fn text(&self, now: MetricsSnapshot, format: TextFormat) -> Result<String, std::fmt::Error> {
        for (outcome, count) in CACHE.into_iter().zip(now.cache) {
            self.cache.get_or_create(&OutcomeLabels { outcome }).inner().store(count, Ordering::Relaxed);
        }
        self.hash_queue.set(i64::try_from(now.hash_queue).unwrap_or(i64::MAX));
        self.hash_lanes.set(i64::try_from(now.hash_lanes).unwrap_or(i64::MAX));
        let [open, idle] = now.connections;
        for (state, count) in [("idle", idle), ("busy", open.saturating_sub(idle))] {
            self.connections.get_or_create(&StateLabels { state }).set(count.into());
        }
        debug_assert!(now.not_ready.is_none_or(|code| NOT_READY.contains(&code)), "{now:?} must be in NOT_READY");
        for reason in NOT_READY {
            let is_reason = now.not_ready == Some(reason);
            self.not_ready.get_or_create(&ReasonLabels { reason }).set(i64::from(is_reason));
        }
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &self.process)?;
        encode_eof(&mut text)?;
        Ok(match format {
            TextFormat::OpenMetrics => text,
            TextFormat::Prometheus => in_prometheus_format(&text),
        })
    }
}

/// Converts the OpenMetrics text to the Prometheus text format: without units and the end marker, with counters named
/// like their samples, and with the build information as a gauge.
fn in_prometheus_format(openmetrics: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(openmetrics.len()), "");
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
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
    fn counted_events_appear_in_both_formats() {
        let waits = Durations::default();
        let metrics = Metrics::new(&waits, &Durations::default(), Arc::default());
        waits.observe(Duration::from_millis(20));
        metrics.request("GET", "/me", 200, Duration::from_micros(300));
        metrics.sign_in("failure");
        metrics.audit_entry("success");
        metrics.throttled("registrations");
        let now = MetricsSnapshot {
            cache: [3, 2, 0, 0, 1],
            hash_queue: 5,
            hash_lanes: 4,
            connections: [8, 6],
            not_ready: Some("disk_full"),
        };
        let classic = metrics.text(now, TextFormat::Prometheus).unwrap();
        let text = metrics.text(now, TextFormat::OpenMetrics).unwrap();
        assert!(text.ends_with("\n# EOF\n") && !classic.contains("# EOF") && !classic.contains("# UNIT"));
        let samples =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        // The metrics of the process change from one scrape to the next.
        let own =
            |text: &str| samples(text).into_iter().filter(|line| line.starts_with("latchkey_")).collect::<Vec<_>>();
        assert_eq!(own(&classic), own(&text));
        for line in [
            "# TYPE latchkey_sign_ins_total counter",
            "# HELP latchkey_sign_ins_total Sign-in attempts.",
            "# TYPE latchkey_build_info gauge",
            "# TYPE latchkey_request_duration_seconds histogram",
        ] {
            assert!(classic.lines().any(|found| found == line), "{line} in {classic}");
        }
        for line in [
            "latchkey_sign_ins_total{outcome=\"unavailable\"} 0",
            "latchkey_audit_entries_total{outcome=\"denied\"} 0",
            "latchkey_throttled_total{limit=\"connections\"} 0",
            "latchkey_mails_total{outcome=\"failed\"} 0",
            "latchkey_mails_waiting 0",
            "latchkey_build_info{version=\"0.1.0\"} 1",
            "latchkey_request_duration_seconds_count{method=\"GET\",route=\"/me\",status=\"200\"} 1",
            "latchkey_request_duration_seconds_bucket{le=\"0.0005\",method=\"GET\",route=\"/me\",status=\"200\"} 1",
            "latchkey_sign_ins_total{outcome=\"failure\"} 1",
            "latchkey_audit_entries_total{outcome=\"success\"} 1",
            "latchkey_throttled_total{limit=\"registrations\"} 1",
            "latchkey_cache_total{outcome=\"hit\"} 3",
            "latchkey_hash_queue 5",
            "latchkey_hash_lanes_in_use 4",
            "latchkey_hash_wait_seconds_sum 0.02",
            "latchkey_database_connections{state=\"busy\"} 2",
            "latchkey_database_wait_seconds_count 0",
            "latchkey_not_ready{reason=\"disk_full\"} 1",
            "latchkey_not_ready{reason=\"read_only\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
