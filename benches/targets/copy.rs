//! Measures the copy of a large database to one of the other kind.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Extent;
use crate::database::Backend;
use crate::durable::Durable;
use crate::population::Population;
use crate::postgres;
use crate::report::{Report, Row};

/// Measures `latchkey copy`, which also verifies the copy. Each user has a token.
pub fn to_other_kind(backend: Backend, extent: &Extent, report: &mut Report) {
    let other = match backend {
        Backend::Sqlite => Backend::Postgres,
        Backend::Postgres => Backend::Sqlite,
    };
    if postgres::url().is_none() {
        return;
    }
    let users = extent.users[1];
    let (source, target_place) = (Durable::create(backend), Durable::create(other));
    let population = Population::fill(source.database(), users, 0);
    let target = target_place.database();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.env("DATABASE_URL", &population.database.url).args(["copy", "--to", &target.url]).stdout(Stdio::null());
    let began = Instant::now();
    assert!(command.status().expect("the program runs").success());
    let took = began.elapsed().as_secs_f64();
    report.add(
        Row::of(format!("copy of {users} users with tokens to the other kind of database"), backend)
            .at_most(180.0, took)
            .unit("s"),
    );
}
