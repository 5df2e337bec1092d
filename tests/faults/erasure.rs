//! Another program keeps a transaction open on the SQLite file of a server.

use std::sync::mpsc::channel;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use latchkey::db::Conn;
use tempfile::TempDir;

use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

/// Maximum time until the log states a change: a minute, and ten seconds.
const MAX_WAIT: Duration = Duration::from_secs(70);

#[tokio::test]
#[ignore = "takes long"]
async fn a_transaction_that_keeps_deleted_data_from_being_erased_is_logged_after_a_minute() {
    let (home, database) = (TempDir::new().unwrap(), Database::create(Backend::Sqlite).unwrap());
    let serving = Serving::start(latchkey(home.path(), &[]).env("DATABASE_URL", &database.url));
    let client = serving.client();
    let ada = client.user("ada@example.org").await;
    let (end, is_ended) = channel::<()>();
    let (began, begins) = tokio::sync::oneshot::channel();
    let other = database.open();
    let transaction = tokio::spawn(async move {
        let transaction = other.with_connection(move |conn| {
            let Conn::Sqlite(conn) = conn else { panic!("not SQLite") };
            conn.batch_execute("BEGIN; SELECT count(*) FROM users")?;
            began.send(()).unwrap();
            is_ended.recv().unwrap();
            Ok(conn.batch_execute("ROLLBACK")?)
        });
        transaction.await.unwrap();
    });
    begins.await.unwrap();
    let deleted = client.delete("/me", &ada).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let warning = serving.line_within("cannot erase deleted data from SQLite's write-ahead log", MAX_WAIT);
    assert!(warning.contains("another program keeps a transaction open"), "{warning}");
    end.send(()).unwrap();
    transaction.await.unwrap();
    serving.line_within("can erase deleted data from SQLite's write-ahead log again", MAX_WAIT);
}
