//! `latchkey migrate up|down|status`.

use clap::Subcommand;

use super::Outcome;
use crate::config::Settings;
use crate::db::Db;

#[derive(Subcommand)]
pub(super) enum Migrate {
    /// Apply all pending migrations
    Up,
    /// Revert the latest migration, and lose what only it holds
    Down,
    /// List all migrations; fails if one is pending
    Status,
}

pub(super) async fn migrate(settings: &Settings, command: &Migrate) -> Outcome {
    let url = &settings.database.url;
    let db = Db::open(&settings.database).map_err(|error| format!("cannot use the database {url}: {error}"))?;
    match command {
        Migrate::Up => {
            for name in db.migrate_up().await? {
                println!("applied {name}");
            }
            println!("{url} is up to date");
        }
        Migrate::Down => match db.migrate_down().await? {
            Some(name) => println!("reverted {name}"),
            None => println!("{url} has no migration to revert"),
        },
        Migrate::Status => {
            let migrations = db.migration_status().await?;
            for migration in &migrations {
                println!("{} {}", if migration.applied { "applied" } else { "pending" }, migration.name);
            }
            if migrations.iter().any(|migration| !migration.applied) {
                return Err("the schema is not up to date: run `latchkey migrate up`".into());
            }
        }
    }
    Ok(())
}
