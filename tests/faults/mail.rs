//! The server is killed while it sends mails.

use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::command::without_limits;
use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::Serving;
use crate::support::smtp::{Behaviour, SmtpServer};

/// The mails that a server sends at the same time.
const PARALLEL: usize = 4;
/// Mails that are requested before the server is killed. The last ones wait for their turn.
const MAILS: usize = PARALLEL + 2;
/// More than the time for which a mail is reserved, with the time-outs of the test.
const RESERVED: Duration = Duration::from_secs(120);

const OPEN: &str = "SELECT count(*) FROM outbox WHERE done_at IS NULL";

/// The addresses have two domains: two mails at the same time go to one.
fn address(number: usize) -> String {
    format!("user{number}@example.{}", if number.is_multiple_of(2) { "org" } else { "com" })
}

async fn a_killed_server_sends_at_most_one_copy(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let (home, smtp) = (TempDir::new().unwrap(), SmtpServer::start().await);
    let start = || {
        let mut command: Command = without_limits(home.path(), &database.url);
        smtp.configure_command(&mut command);
        // The kill must come within the time-out for the answer.
        command.env("LATCHKEY__MAIL__SEND_TIMEOUT", "10").env("LATCHKEY__MAIL__ANSWER_TIMEOUT", "15");
        Serving::start(&mut command)
    };
    // It keeps the mails, and the answers never come.
    smtp.behave(Behaviour::AnswerLater("user", Duration::from_secs(3_600)));
    let mut serving = start();
    let client = Client::of(&serving);
    for number in 0..MAILS {
        let registered = client.register(&address(number)).await.unwrap();
        assert_eq!(registered.status, 201, "{registered:?}");
    }
    smtp.wait_for(PARALLEL).await;
    serving.signal("-KILL");
    serving.child.wait().unwrap();
    let sent = smtp.mails();
    assert_eq!(sent.len(), PARALLEL, "no answer came in time");
    assert_eq!(database.number(OPEN).await, i64::try_from(MAILS).unwrap(), "no mail is marked");

    smtp.behave(Behaviour::Accept);
    let restarted = start();
    let began = Instant::now();
    while database.number(OPEN).await > 0 {
        assert!(began.elapsed() < RESERVED, "{:#?}", database.dump("outbox").await);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let ids = |to: &str| -> Vec<String> {
        smtp.mails().iter().filter(|mail| mail.to == to).map(|mail| mail.header("Message-ID")).collect()
    };
    for number in 0..MAILS {
        let email = address(number);
        let copies = if sent.iter().any(|mail| mail.to == email) { 2 } else { 1 };
        let ids = ids(&email);
        assert_eq!(ids.len(), copies, "{email}");
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "mail programs can recognize the copy: {ids:?}");
    }
    println!("{backend:?}: {PARALLEL} mails were sent again after {:?}", began.elapsed());
    // A further start sends nothing: no mail is open.
    drop(restarted);
    let restarted = start();
    assert_eq!(Client::of(&restarted).register("other@example.org").await.unwrap().status, 201);
    smtp.wait_for_mail("other@example.org", "Verify your e-mail address").await;
    assert_eq!(smtp.mails().len(), MAILS + PARALLEL + 1);
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_a_kill_between_sending_and_marking_leads_to_one_more_copy_of_a_mail() {
    a_killed_server_sends_at_most_one_copy(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_a_kill_between_sending_and_marking_leads_to_one_more_copy_of_a_mail() {
    a_killed_server_sends_at_most_one_copy(Backend::Postgres).await;
}
