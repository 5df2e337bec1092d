//! Metrics of the process itself, with the names that Prometheus recommends for all programs. They are read from
//! `/proc` at each scrape, and absent on systems without it.

use std::fmt::Error;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::time_of_day;

/// The start of the process, in seconds since 1970.
static STARTED: LazyLock<f64> = LazyLock::new(|| Duration::from_micros(time_of_day().unsigned_abs()).as_secs_f64());

/// Records the current time as the start of the process. Without this call, it is the time of the first scrape.
pub fn record_start() {
    LazyLock::force(&STARTED);
}

/// A registry that contains these metrics only. Their names have no prefix.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector));
    registry
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(now) = ProcessSnapshot::read() else {
            return Ok(());
        };
        let cpu = ConstCounter::new(now.cpu_seconds);
        add(&mut encoder, "process_cpu", "User and system CPU time of the process.", Some(&Unit::Seconds), &cpu)?;
        let started = ConstGauge::new(*STARTED);
        add(&mut encoder, "process_start_time", "Start of the process since 1970.", Some(&Unit::Seconds), &started)?;
        let bytes = Some(&Unit::Bytes);
        for (name, help, unit, value) in [
            ("process_resident_memory", "Resident memory.", bytes, now.resident_bytes),
            ("process_virtual_memory", "Virtual memory.", bytes, now.virtual_bytes),
            ("process_open_fds", "Open file descriptors.", None, now.open_fds),
            ("process_max_fds", "Limit of open file descriptors.", None, now.max_fds),
        ] {
            add(&mut encoder, name, help, unit, &ConstGauge::new(value))?;
        }
        Ok(())
    }
}

fn add(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// The state of the process at a scrape.
struct ProcessSnapshot {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: u64,
    max_fds: u64,
}

impl ProcessSnapshot {
    /// Reads the state from `/proc/self`.
    #[cfg(target_os = "linux")]
    fn read() -> Option<Self> {
        let process = procfs::process::Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks_per_second = procfs::ticks_per_second().max(1);
        let millis = (stat.utime + stat.stime).saturating_mul(1_000) / ticks_per_second;
        Some(Self {
            cpu_seconds: Duration::from_millis(millis).as_secs_f64(),
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
            virtual_bytes: stat.vsize,
            open_fds: process.fd_count().ok()?.try_into().ok()?,
            max_fds: rlimit::Resource::NOFILE.get().ok()?.0,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Option<Self> {
        None
    }
}
