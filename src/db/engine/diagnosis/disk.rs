//! The disk of the database: whether it is full or read-only, and whether that has ended.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::result::Error as DieselError;

/// How often a probe finds out whether a fault has ended.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Minimum time between two log lines about faults, in case a fault begins and ends repeatedly.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The size of the file that the probe of a directory writes. It is larger than any change.
const PROBE_BYTES: usize = 1024 * 1024;

/// Why changes cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// There is no space.
    Full,
    /// The file system or the directory is not writable.
    ReadOnly,
}

impl DiskFault {
    /// The cause and the remedy, for the log.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Full => "the disk of the database is full: changes fail until there is space",
            Self::ReadOnly => {
                "the file system or the directory of the database is not writable: changes fail until it is"
            }
        }
    }
}

/// The result of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// There is no fault.
    Writable,
    /// There is a fault.
    Fault(DiskFault),
    /// The attempt failed for another reason, so that it neither finds a fault nor ends one.
    Unknown,
}

impl Probe {
    /// The fault that was found.
    pub(crate) fn fault(self) -> Option<DiskFault> {
        match self {
            Self::Fault(fault) => Some(fault),
            Self::Writable | Self::Unknown => None,
        }
    }
}

/// The current fault, if any.
#[derive(Debug, Default)]
pub(crate) struct DiskState(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The fault, and whether it was logged.
    fault: Option<(DiskFault, bool)>,
    probed_at: Option<Instant>,
    logged_at: Option<Instant>,
}

impl DiskState {
    /// Records a fault, and logs it if it is new.
    pub(crate) fn set(&self, fault: DiskFault) {
        let mut state = self.state();
        state.probed_at = Some(Instant::now());
        if state.fault.is_none_or(|(known, _)| known != fault) {
            let may_log = state.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
            state.fault = Some((fault, may_log));
            if may_log {
                state.logged_at = Some(Instant::now());
                log::error!("{}", fault.cause());
            }
        }
    }

    /// The current fault. Every few seconds, `probe` finds out whether it has ended.
    pub(crate) fn current(&self, probe: impl FnOnce() -> Probe) -> Option<DiskFault> {
        let mut state = self.state();
        let (fault, _) = state.fault?;
        if state.probed_at.is_some_and(|at| at.elapsed() < PROBE_INTERVAL) {
            return Some(fault);
        }
        state.probed_at = Some(Instant::now());
        // Not locked during the probe, because work that fails meanwhile records a fault.
        drop(state);
        match probe() {
            Probe::Fault(fault) => self.set(fault),
            Probe::Writable => {
                if let Some((_, true)) = self.state().fault.take() {
                    log::info!("changes can be stored again");
                }
            }
            Probe::Unknown => {}
        }
        self.state().fault.map(|(fault, _)| fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a message of PostgreSQL reports a full disk. It contains the text of the operating system. Texts in other
/// languages than English are not recognized.
pub(crate) fn reports_full_disk(message: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|text| message.contains(text))
}

/// Writes a file beside `database` and removes it.
pub(crate) fn probe_directory(database: &Path) -> Probe {
    // Each probe has a file of its own, because several can run at the same time.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    probe_file(&database.with_file_name(format!(".{name}-probe-{}-{number}", std::process::id())))
}

fn probe_file(path: &Path) -> Probe {
    match write_and_remove(path) {
        Ok(()) => Probe::Writable,
        Err(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Probe::Fault(DiskFault::Full),
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Probe::Fault(DiskFault::ReadOnly),
            _ => Probe::Unknown,
        },
    }
}

fn write_and_remove(path: &Path) -> std::io::Result<()> {
    // A process with the same number can have been killed before it removed the file.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    // Follows no symbolic link.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    // Removed before it is written, so that nothing is left if the process is killed.
    std::fs::remove_file(path)?;
    file.write_all(&vec![0x55; PROBE_BYTES])?;
    // Some file systems allocate the space only now.
    file.sync_data()
}

/// Inserts rows and rolls back. The rows fill several new pages. Few of them go to the write-ahead log if the disk is
/// full.
const POSTGRES_PROBE: &str = "INSERT INTO sign_in_failures (account, failures, last_at)
     SELECT 'probe ' || pg_backend_pid() || ' ' || n, 0, CAST(now() AS TIMESTAMP) FROM generate_series(1, 1000) AS n";

/// Whether PostgreSQL can store changes, or cannot because its disk is full.
#[expect(clippy::disallowed_methods, reason = "`Db::write` would commit, and a probe is rolled back")]
pub(crate) fn probe_postgres(conn: &mut PgConnection) -> Probe {
    let probed = conn.transaction(|conn| {
        diesel::sql_query(POSTGRES_PROBE).execute(conn)?;
        Err::<(), _>(DieselError::RollbackTransaction)
    });
    match probed {
        Ok(()) | Err(DieselError::RollbackTransaction) => Probe::Writable,
        Err(DieselError::DatabaseError(_, info)) if reports_full_disk(info.message()) => Probe::Fault(DiskFault::Full),
        Err(_) => Probe::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lasts_until_a_probe_succeeds_and_probes_are_rare() {
        let disk = DiskState::default();
        assert_eq!(disk.current(|| panic!("no fault")), None);
        disk.set(DiskFault::Full);
        assert_eq!(disk.current(|| panic!("too early")), Some(DiskFault::Full));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(6));
        disk.state().probed_at = long_ago;
        assert_eq!(disk.current(|| Probe::Fault(DiskFault::ReadOnly)), Some(DiskFault::ReadOnly));
        assert_eq!(disk.current(|| panic!("too early")), Some(DiskFault::ReadOnly));
        disk.state().probed_at = long_ago;
        assert_eq!(disk.current(|| Probe::Unknown), Some(DiskFault::ReadOnly), "another error does not end the fault");
        assert_eq!(disk.current(|| panic!("too early")), Some(DiskFault::ReadOnly));
        disk.state().probed_at = long_ago;
        assert_eq!(disk.current(|| Probe::Writable), None);
        assert_eq!(disk.current(|| panic!("no fault")), None);
    }

    #[test]
    fn a_fault_that_comes_back_within_a_minute_is_not_logged_again() {
        let disk = DiskState::default();
        disk.set(DiskFault::Full);
        assert_eq!(disk.state().fault, Some((DiskFault::Full, true)));
        disk.state().fault = None;
        disk.set(DiskFault::Full);
        assert_eq!(disk.state().fault, Some((DiskFault::Full, false)));
    }

    #[cfg(unix)]
    #[test]
    fn a_probe_replaces_a_file_that_is_left_and_follows_no_symbolic_link() {
        let home = tempfile::TempDir::new().unwrap();
        let (probe, other) = (home.path().join(".latchkey.db-probe-1-0"), home.path().join("other"));
        let names =
            || std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        std::fs::write(&other, "contents").unwrap();
        for leave in [false, true] {
            if leave {
                std::fs::write(&probe, "left").unwrap();
            } else {
                std::os::unix::fs::symlink(&other, &probe).unwrap();
            }
            assert_eq!(probe_file(&probe), Probe::Writable);
            assert_eq!(std::fs::read_to_string(&other).unwrap(), "contents");
            assert_eq!(names(), ["other"]);
        }
    }

    #[test]
    fn a_probe_that_fails_for_another_reason_finds_nothing() {
        let home = tempfile::TempDir::new().unwrap();
        assert_eq!(probe_directory(&home.path().join("latchkey.db")), Probe::Writable);
        assert_eq!(probe_directory(&home.path().join("missing/latchkey.db")), Probe::Unknown);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_texts_about_missing_space_report_a_full_disk() {
        assert!(reports_full_disk("could not extend file \"base/5/16384\": No space left on device"));
        assert!(!reports_full_disk("canceling statement due to statement timeout"));
    }
}
