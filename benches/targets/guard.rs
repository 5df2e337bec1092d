//! Measures the guard: guarded requests against unguarded ones, with the cache and without it.

use std::net::SocketAddr;
use std::path::Path;

use crate::Extent;
use crate::database::Backend;
use crate::load::{percentile, wrk};
use crate::population::Population;
use crate::process::{Bare, Server};
use crate::report::{Report, Row};

/// A route with the same middleware and a JSON object of one member. Only the guard differs.
const UNGUARDED: &str = "/health/live";
const GUARDED: &str = "/protected-route";
/// The route that proxies call.
const AUTHZ: &str = "/authz";

const UNCACHED: [(&str, &str); 1] = [("LATCHKEY__AUTH__CACHE_SIZE", "0")];

/// Address, path, and the file with the credentials.
type Route<'r> = (SocketAddr, &'r str, &'r Path);

/// Alternating measurements of two routes.
struct Compared {
    guarded: Vec<f64>,
    unguarded: Vec<f64>,
    p99_ratios: Vec<f64>,
    /// Of the guarded route and of the other one, in milliseconds.
    p99s: [Vec<f64>; 2],
}

impl Compared {
    /// Compares a route of Latchkey with the unguarded route.
    fn measure(server: &Server, guarded: &str, tokens: &Path, extent: &Extent) -> Self {
        Self::routes((server.address, guarded, tokens), (server.address, UNGUARDED, tokens), extent)
    }

    fn routes(guarded: Route<'_>, unguarded: Route<'_>, extent: &Extent) -> Self {
        let mut compared =
            Self { guarded: Vec::new(), unguarded: Vec::new(), p99_ratios: Vec::new(), p99s: Default::default() };
        for (address, path, tokens) in [guarded, unguarded] {
            wrk(address, path, tokens, 1);
        }
        for _ in 0..extent.pairs {
            let unguarded = wrk(unguarded.0, unguarded.1, unguarded.2, extent.seconds);
            let guarded = wrk(guarded.0, guarded.1, guarded.2, extent.seconds);
            compared.guarded.push(guarded.rate());
            compared.unguarded.push(unguarded.rate());
            compared.p99_ratios.push(guarded.p99 / unguarded.p99);
            for (p99s, outcome) in compared.p99s.iter_mut().zip([guarded, unguarded]) {
                p99s.push(outcome.p99 / 1e3);
            }
        }
        compared
    }

    /// The median ratio of adjacent measurements. Other load on the machine affects both equally.
    fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.guarded.iter().zip(&self.unguarded).map(|(one, other)| one / other).collect();
        percentile(&ratios, 50)
    }

    fn rates(&self) -> String {
        let (guarded, unguarded) = (percentile(&self.guarded, 50), percentile(&self.unguarded, 50));
        format!("{guarded:.0} of {unguarded:.0} requests/s")
    }

    /// The row for the p99 of both routes. Its figure is the median ratio of adjacent measurements.
    fn p99(&self, figure: &str, backend: Backend) -> Row {
        let [guarded, unguarded] = self.p99s.each_ref().map(|p99s| percentile(p99s, 50));
        Row::of(figure, backend)
            .at_most(1.2, percentile(&self.p99_ratios, 50))
            .showing(format!("{guarded:.2} against {unguarded:.2} ms"))
    }
}

/// Guarded against unguarded, with the cache.
pub fn against_unguarded(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, extent.users[0], extent.users[0]);
    let server = Server::start(&population.database, &[]);
    report.add(Row::of("memory, idle", backend).at_most(20.0, server.resident()).unit("MB"));
    let compared = Compared::measure(&server, GUARDED, &population.file(), extent);
    report.add(
        Row::of("guarded against unguarded: requests/s", backend)
            .at_least(0.90, compared.ratio())
            .showing(compared.rates()),
    );
    report.add(compared.p99("guarded against unguarded: p99", backend));
}

/// Guarded against a bare actix-web handler that sends the same response, which shows the total cost of Latchkey, and
/// against one that sends the body only.
pub fn against_bare_actix(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, extent.users[0], extent.users[0]);
    let server = Server::start(&population.database, &[]);
    let bare = Bare::start(&server.answer(GUARDED, &population.tokens[0]));
    let tokens = population.file();
    let compared = |path| Compared::routes((server.address, GUARDED, &tokens), (bare.address, path, &tokens), extent);
    let same_answer = compared(Bare::SAME_ANSWER);
    report.add(
        Row::of("guarded against a bare actix-web handler with the same answer: requests/s", backend)
            .at_least(0.90, same_answer.ratio())
            .showing(same_answer.rates()),
    );
    report.add(same_answer.p99("guarded against a bare actix-web handler with the same answer: p99", backend));
    let same_body = compared(Bare::SAME_BODY);
    report.add(
        Row::of(
            "guarded against a bare actix-web handler with the same body, without the header fields: requests/s",
            backend,
        )
        .without_target(same_body.ratio())
        .showing(same_body.rates()),
    );
}

/// Requests in browser sessions against requests with tokens, with the cache.
pub fn sessions(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, extent.users[0], extent.users[0]);
    let (sessions, tokens) = (population.sessions(), population.file());
    let server = Server::start(&population.database, &[]);
    let (by_session, by_token) = ((server.address, GUARDED, &*sessions), (server.address, GUARDED, &*tokens));
    let compared = Compared::routes(by_session, by_token, extent);
    report.add(
        Row::of("guarded by cookie against guarded by token: requests/s", backend)
            .at_least(0.95, compared.ratio())
            .showing(compared.rates()),
    );
}

/// Forward-auth against unguarded, with the cache.
pub fn forward_auth(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, extent.users[0], extent.users[0]);
    let server = Server::start(&population.database, &[]);
    let compared = Compared::measure(&server, AUTHZ, &population.file(), extent);
    report.add(
        Row::of("forward-auth against unguarded: requests/s", backend)
            .at_least(0.85, compared.ratio())
            .showing(compared.rates()),
    );
}

/// Guarded against unguarded, without the cache.
pub fn uncached(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, extent.users[0], extent.users[0]);
    let server = Server::start(&population.database, &UNCACHED);
    let compared = Compared::measure(&server, GUARDED, &population.file(), extent);
    let least = if backend == Backend::Sqlite { 0.25 } else { 0.12 };
    report.add(
        Row::of("guarded against unguarded, cache off: requests/s", backend)
            .at_least(least, compared.ratio())
            .showing(compared.rates()),
    );
}

/// A large database against a small one, with the cache and without it, and the memory of the server on the large one.
pub fn many_users(backend: Backend, extent: &Extent, report: &mut Report) {
    let [few, many] = extent.users;
    let small = Population::create(backend, few, few);
    let large = Population::create(backend, many, extent.live);
    // With the cache, as many tokens as in the small database; without it, all tokens.
    let few_tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(few_tokens.path(), large.tokens[..small.tokens.len()].join("\n") + "\n").unwrap();
    let all_tokens = large.file();
    for (name, settings, tokens, least) in
        [("cached", [].as_slice(), few_tokens.path(), 0.95), ("cache off", UNCACHED.as_slice(), &all_tokens, 0.8)]
    {
        let (small_server, large_server) =
            (Server::start(&small.database, settings), Server::start(&large.database, settings));
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..extent.pairs {
            rates[0].push(wrk(small_server.address, GUARDED, &small.file(), extent.seconds).rate());
            rates[1].push(wrk(large_server.address, GUARDED, tokens, extent.seconds).rate());
        }
        let ratios: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(one, other)| one / other).collect();
        report.add(
            Row::of(format!("{many} users against {few}, {name}: requests/s"), backend)
                .at_least(least, percentile(&ratios, 50))
                .showing(format!("{:.0} of {:.0} requests/s", percentile(&rates[1], 50), percentile(&rates[0], 50))),
        );
    }

    let server = Server::start(&large.database, &[]);
    let mut requests = 0.0;
    while requests < extent.requests as f64 {
        requests += wrk(server.address, GUARDED, &large.file(), extent.seconds).requests();
    }
    report.add(
        Row::of(format!("memory after {} guarded requests, {} live tokens", extent.requests, extent.live), backend)
            .at_most(80.0, server.resident())
            .unit("MB"),
    );
}

/// The time from the start of the process to its first 200, on a migrated database.
pub fn cold_start(backend: Backend, extent: &Extent, report: &mut Report) {
    let population = Population::create(backend, 1, 1);
    let starts = 3 * extent.pairs;
    let took: Vec<f64> =
        (0..starts).map(|_| Server::start(&population.database, &[]).started_in.as_secs_f64() * 1e3).collect();
    report.add(
        Row::of("cold start to the first 200", backend)
            .at_most(100.0, percentile(&took, 50))
            .unit("ms")
            .showing(format!("the slowest of {starts}: {:.0} ms", percentile(&took, 100))),
    );
}
