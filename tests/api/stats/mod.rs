//! Statistics: `GET /stats`, and what is counted.

mod counts;
mod hours;
mod response;

use latchkey::config::Settings;
use latchkey::server;
use latchkey::service::Service;

use crate::support::App;
use crate::support::database::Database;

const HOUR: u32 = 3_600;
const DAY: u32 = 86_400;

/// The service of another process, on the database and with the clock of the app.
async fn open_service(app: &App) -> Service {
    open_service_with(app, |_| ()).await
}

async fn open_service_with(app: &App, change: impl FnOnce(&mut Settings)) -> Service {
    let mut settings = Settings { database: app.database.settings(), ..Settings::defaults().unwrap() };
    change(&mut settings);
    server::open_service(&settings, app.clock.clone()).await.unwrap()
}

/// Writes what the server has counted.
async fn flush(app: &App) {
    app.service.identities().last_uses().flush().await;
    app.service.stats_writer().flush().await;
}

/// The sum of a column over all hours.
async fn stored(database: &Database, column: &str) -> i64 {
    database.number(format!("SELECT coalesce(sum({column}), 0) FROM hourly_counts")).await
}

/// Writes what the server has counted, and returns the sums of these columns.
async fn counted<const N: usize>(app: &App, columns: [&str; N]) -> [i64; N] {
    flush(app).await;
    let mut sums = [0; N];
    for (sum, column) in sums.iter_mut().zip(columns) {
        *sum = stored(&app.database, column).await;
    }
    sums
}

/// Writes what the server has counted, and returns each hour in which this column is not 0, such as `11-27 23:00 5`.
async fn by_hour(app: &App, column: &str) -> Vec<String> {
    flush(app).await;
    let start = match app.database.backend {
        crate::support::Backend::Sqlite => "substr(hour, 6, 11)",
        crate::support::Backend::Postgres => "to_char(hour, 'MM-DD HH24:MI')",
    };
    let row = format!("{start} || ' ' || CAST({column} AS TEXT)");
    app.database.rows(format!("SELECT {row} AS row FROM hourly_counts WHERE {column} > 0 ORDER BY hour")).await
}

/// Advances the clock to this time of a day, of the current day or of the next one.
fn advance_to(app: &App, seconds_of_day: u32) {
    let now = u32::try_from(app.clock.now().seconds().rem_euclid(i64::from(DAY))).unwrap();
    app.clock.advance((seconds_of_day + DAY - now) % DAY);
}

/// Advances the clock to this time of the last day of a month.
fn advance_to_last_day_of_month(app: &App, seconds_of_day: u32) {
    advance_to(app, seconds_of_day);
    while &app.clock.now().plus_seconds(DAY.into()).to_string()[8..10] != "01" {
        app.clock.advance(DAY);
    }
}

/// The start of the current hour, as [`by_hour`] writes it.
fn this_hour(app: &App) -> String {
    let now = app.clock.now().to_string();
    format!("{} {}:00", &now[5..10], &now[11..13])
}
