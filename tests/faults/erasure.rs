//! Another program keeps a transaction open on the SQLite file of a server.

use std::sync::mpsc::channel;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use latchkey::db::Conn;
use tempfile::TempDir;

use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

#[tokio::test]
#[ignore = "takes long"]
async fn a_transaction_that_keeps_deleted_data_from_being_erased_is_logged_after_a_minute() {
    let (home, database) = (TempDir::new().unwrap(), Database::create(Backend::Sqlite).unwrap());
    let serving = Serving::start(latchkey(home.path(), &[]).env("DATABASE_URL", &database.url));
    let client = serving.client();
    let ada = client.user("ada@example.org").await;
    let (end, is_ended) = channel::<()>();
    let other = database.open();
    let read = other.read(move |conn| {
        let Conn::Sqlite(conn) = conn else { panic!("not SQLite") };
        conn.batch_execute("BEGIN; SELECT count(*) FROM users")?;
        is_ended.recv().unwrap();
        Ok(conn.batch_execute("ROLLBACK")?)
    });
    // The caller gives up after a second. The transaction stays open.
    assert!(read.await.is_err());
    assert_eq!(client.delete("/me", &ada).await.status, 204);
    // `line` waits for 20 s.
    tokio::time::sleep(Duration::from_secs(50)).await;
    let warning = serving.line("cannot erase deleted data from SQLite's write-ahead log");
    assert!(warning.contains("another program keeps a transaction open"), "{warning}");
    end.send(()).unwrap();
    serving.line("can erase deleted data from SQLite's write-ahead log again");
}
