//! Measures how fast another replica sees a revocation.

use std::time::{Duration, Instant};

use crate::Extent;
use crate::database::Backend;
use crate::load::{Connection, millis, percentile};
use crate::population::{Population, execute};
use crate::process::Server;
use crate::report::{Report, Row};

/// Time after which a revocation counts as missed.
const MISSED: Duration = Duration::from_secs(5);

/// The time from the response to a revocation on one replica to the first rejection by another one, which accepted the
/// token just before. At intervals, the connections that read the change log are killed.
pub fn on_another_replica(backend: Backend, extent: &Extent, report: &mut Report) {
    if backend == Backend::Sqlite {
        // SQLite serves one process only.
        return;
    }
    let [revocations, kills] = extent.revocations;
    let population = Population::create(backend, revocations, revocations);
    // Repeated requests with revoked tokens would exceed a limit.
    let limits = [("LATCHKEY__LIMITS__ENABLED", "false")];
    let (one, other) = (Server::start(&population.database, &limits), Server::start(&population.database, &limits));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let took = runtime.block_on(async {
        let (mut one, mut other) = (Connection::open(one.address).await, Connection::open(other.address).await);
        let mut took = Vec::new();
        for (number, token) in (0..).zip(&population.tokens) {
            for _ in 0..3 {
                assert_eq!(other.get("/protected-route", token).await, 200);
            }
            if number % (revocations / kills) == 0 {
                let readers =
                    "pg_stat_activity WHERE application_name = 'latchkey-change-log' AND datname = current_database()";
                execute(&population.database, &format!("SELECT pg_terminate_backend(pid) FROM {readers}"));
            }
            assert_eq!(one.sign_out(token).await, 204);
            let revoked = Instant::now();
            let mut status = 200;
            while status == 200 && revoked.elapsed() < MISSED {
                status = other.get("/protected-route", token).await;
                assert!([200, 403].contains(&status), "the other replica returned {status}");
            }
            took.push(revoked.elapsed());
        }
        took
    });
    let took = millis(&took);
    let name = format!("{revocations} revocations seen by a second replica, reader killed {kills} times");
    report.add(
        Row::of(format!("{name}: p99"), backend)
            .at_most(100.0, percentile(&took, 99))
            .unit("ms")
            .showing(format!("median {:.0} ms", percentile(&took, 50))),
    );
    report.add(Row::of(format!("{name}: the slowest"), backend).at_most(1000.0, percentile(&took, 100)).unit("ms"));
}
