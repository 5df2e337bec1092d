//! The commands `latchkey migrate up`, `down` and `status`.

use clap::Subcommand;

use super::{Outcome, print};
use crate::config::Settings;
use crate::db::Db;
use crate::db::engine::migrate::{Reverted, SchemaState, newer_schema, state};

#[derive(Subcommand)]
pub(super) enum Migrate {
    /// Apply all pending migrations
    Up,
    /// Revert the latest migration, and list the tables and columns that it drops. Fails if they hold rows. Servers of
    /// this version reject requests afterwards
    Down {
        /// Revert it also if the dropped tables and columns hold rows. Their data is lost
        #[arg(long)]
        yes: bool,
    },
    /// List all migrations. Fails if a migration is pending, or unknown to this version
    Status,
}

pub(super) async fn migrate(settings: &Settings, command: &Migrate) -> Outcome {
    match command {
        Migrate::Up => settings.check_database_file()?,
        Migrate::Down { .. } | Migrate::Status => settings.check_database_exists()?,
    }
    let url = &settings.database.url;
    let db = Db::open(&settings.database).map_err(|error| format!("cannot use the database {url}: {error}"))?;
    match command {
        Migrate::Up => {
            for name in db.migrate_up().await? {
                print(format_args!("applied {name}\n"))?;
            }
            print(format_args!("{url} is up to date\n"))?;
        }
        Migrate::Down { yes } => match db.migrate_down(*yes).await? {
            Some(Reverted { name, dropped }) => {
                print(format_args!("reverted {name}\n"))?;
                dropped.iter().try_for_each(|dropped| print(format_args!("dropped {dropped}\n")))?;
            }
            None => print(format_args!("{url} has no migration to revert\n"))?,
        },
        Migrate::Status => {
            let migrations = db.migration_status().await?;
            for migration in &migrations {
                let state = match (migration.known, migration.applied) {
                    (false, _) => "unknown",
                    (true, true) => "applied",
                    (true, false) => "pending",
                };
                print(format_args!("{state} {}\n", migration.name))?;
            }
            match state(&migrations) {
                SchemaState::Current => {}
                SchemaState::Outdated(_) => {
                    return Err("the schema is not up to date: run `latchkey migrate up`".into());
                }
                SchemaState::Unknown(unknown) => return Err(newer_schema(&unknown).into()),
            }
        }
    }
    Ok(())
}
