//! Measures what the audit entry adds to a write. One run alternates the database work of a request that stores a page
//! (the guard's lookup, then the transaction) with the entry and without it. The target is at most 25 % on each
//! database.
//!
//! Run `cargo bench --bench audit`. For PostgreSQL, set `BENCH_POSTGRES_URL` to a database that may be filled with
//! data.

use std::time::Instant;

use latchkey::clock::Clock;
use latchkey::config::{DatabaseSettings, Settings};
use latchkey::db::access_tokens::{self, AccessToken};
use latchkey::db::pages::{self, PageRow};
use latchkey::db::users::{self, NewUser};
use latchkey::db::{Conn, Db, audit_entries};
use latchkey::domain::audit::{Action, Actor, ClientInfo, Event, Outcome, Target};
use latchkey::domain::id::UserId;
use latchkey::domain::principal::Level;
use latchkey::domain::role::BuiltInRole;
use latchkey::domain::roles::Roles;
use latchkey::domain::secret::{Digest, Secret, SecretKind};
use latchkey::error::AppError;

/// Writes per measurement, and number of pairs of measurements.
const WRITES: u32 = 50;
const PAIRS: u32 = 100;

/// The statements of a change: lock the user, confirm the token, insert the page, and, if `recorded`, write the audit
/// entry.
fn write_page(conn: &mut Conn, owner: UserId, token: Digest, clock: &Clock, recorded: bool) -> Result<(), AppError> {
    users::lock(conn, owner)?;
    let now = clock.now();
    access_tokens::resolve(conn, token)?.ok_or(AppError::NotFound("token"))?;
    let row = PageRow {
        owner_id: owner.0,
        title: "A page of the benchmark",
        body: &"text ".repeat(100),
        version: 1,
        created_at: now.naive(),
        updated_at: now.naive(),
        updated_by: owner.0,
    };
    let page = pages::insert(conn, &row)?;
    if recorded {
        let actor = Actor {
            actor: format!("user:{owner}"),
            user: Some(owner),
            credential: "token:1".to_owned(),
            level: Some(Level::of(&Roles::default().get(BuiltInRole::Member.name()))),
        };
        let event = Event::of(Action::CreatePage).on(Target::Page(page.id)).owned_by(owner);
        let event = event.versions(None, Some(1)).changed(vec!["title", "body"]);
        let client = ClientInfo {
            client: Some([127, 0, 0, 1].into()),
            request_id: Some("8b3cca5ccdbae27e3ac175b808b2e3a4".into()),
        };
        audit_entries::insert(conn, now, &actor, &event, Outcome::Success, &client)?;
    }
    Ok(())
}

async fn measure(name: &str, settings: &DatabaseSettings) -> Result<(), AppError> {
    let (db, clock) = (Db::open(settings)?, Clock::default());
    db.migrate_up().await?;
    let token = Secret::generate(SecretKind::SignIn).map_err(|error| AppError::Internal(error.into()))?.digest();
    let now = clock.now();
    let owner = db
        .write(move |conn| {
            let email = format!("bench{}@example.org", now.utc().timestamp_micros());
            let new = NewUser {
                name: "Bench",
                surname: "",
                email: &email,
                email_key: &email,
                website: "",
                hashed_password: "none",
                created_at: now.naive(),
                updated_at: now.naive(),
                locale: "en",
                email_verified_at: None,
                role: BuiltInRole::Member.name(),
            };
            let user = users::insert(conn, &new)?.ok_or(AppError::NotFound("user"))?;
            let row = AccessToken {
                user_id: user.id.0,
                access_token: token.to_hex(),
                scopes: access_tokens::stored_scopes(None),
                created_at: now.naive(),
                expiration_date: now.plus_seconds(86_400).naive(),
                sign_in_id: 1,
            };
            access_tokens::replace(conn, &row)?;
            Ok(user.id)
        })
        .await?;

    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let mut took = [0.0; 2];
        for (took, recorded) in took.iter_mut().zip([false, true]) {
            let started = Instant::now();
            for _ in 0..WRITES {
                db.read(move |conn| access_tokens::resolve(conn, token)).await?;
                let clock = clock.clone();
                db.write(move |conn| write_page(conn, owner, token, &clock, recorded)).await?;
            }
            *took = started.elapsed().as_secs_f64();
        }
        pairs.push(took);
    }
    // Compares measurements that are adjacent in time, so that other load on the machine affects both equally.
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let rate = |of: fn(&[f64; 2]) -> f64| f64::from(WRITES) / median(pairs.iter().map(of).collect());
    println!(
        "{name:<10}  without the entry {:>6.0} writes/s, with it {:>6.0} writes/s: {:+.1} % more time (median of {PAIRS} pairs)",
        rate(|[without, _]| *without),
        rate(|[_, with]| *with),
        100.0 * (median(pairs.iter().map(|[without, with]| with / without).collect()) - 1.0),
    );
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let defaults = Settings::defaults()?.database;
    let home = tempfile::tempdir()?;
    let url = format!("sqlite://{}", home.path().join("bench.db").display());
    measure("SQLite", &DatabaseSettings { url: url.try_into()?, ..defaults.clone() }).await?;
    match std::env::var("BENCH_POSTGRES_URL") {
        Ok(url) => measure("PostgreSQL", &DatabaseSettings { url: url.try_into()?, ..defaults }).await?,
        Err(_) => println!("PostgreSQL  not measured: set BENCH_POSTGRES_URL"),
    }
    Ok(())
}
