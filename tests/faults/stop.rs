//! The server is stopped under load, or while the database hangs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::acknowledged::{Acknowledged, Worker, load};
use crate::client::{Client, until_available};
use crate::command::without_limits;
use crate::server::Server;
use crate::support::Backend;
use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::program::Serving;

/// Maximum time until the process has ended: `server.shutdown_timeout`.
const MAX_STOP: Duration = Duration::from_secs(8);
/// Requests in progress when the signal is sent.
const IN_PROGRESS: usize = 50;

/// Sends a request. Returns the connection.
async fn send(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads a response until the connection is closed, and returns its first line.
async fn status_line(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    read.unwrap_or_else(|error| panic!("{error} after {text:?}"));
    text.lines().next().unwrap_or_default().to_owned()
}

fn sign_in(email: &str) -> String {
    let form =
        format!("grant_type=password&username={}&password={}", email.replace('@', "%40"), PASSWORD.replace(' ', "+"));
    format!(
        "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
}

fn get_me(secret: &str) -> String {
    format!("GET /me HTTP/1.1\r\nHost: x\r\nToken: {secret}\r\n\r\n")
}

/// Waits until the process has ended with success, and returns the time since the signal.
fn stop_time(serving: &mut Serving, signalled: Instant) -> Duration {
    let ended = serving.child.wait().unwrap();
    let took = signalled.elapsed();
    assert_eq!(ended.code(), Some(0), "after {took:?}");
    assert!(took <= MAX_STOP, "the process ended after {took:?}");
    took
}

async fn stop_finishes_started_requests(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let start = || Serving::start(&mut without_limits(home.path(), &database.url));
    let mut serving = start();
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let key = until_available(|| client.create_key(&token)).await.text("key");
    let acknowledged = Mutex::new(Acknowledged::default());
    let workers = Worker::group("user", 4, &client, &acknowledged);
    let stop = async {
        load(&acknowledged, Duration::ZERO).await;
        // Sign-ins wait for a hash, the others do not wait.
        let requests = [sign_in("ada@example.org"), get_me(&key)];
        let sent = (0..IN_PROGRESS).map(|number| send(client.address(), &requests[number % 2]));
        let sent = join_all(sent).await;
        serving.signal("-TERM");
        let signalled = Instant::now();
        let answers = join_all(sent.into_iter().map(status_line)).await;
        let took = tokio::task::spawn_blocking(move || stop_time(&mut serving, signalled)).await.unwrap();
        (answers, took)
    };
    let (_, (answers, took)) = tokio::join!(join_all(workers.iter().map(|worker| worker.run(|| false))), stop);
    let finished = answers.iter().filter(|line| *line == "HTTP/1.1 200 OK").count();
    assert_eq!(finished, IN_PROGRESS, "{answers:?}");
    let acknowledged = acknowledged.into_inner().unwrap();
    println!("{backend:?}: stopped after {took:?}; {finished} requests in progress were finished; {acknowledged}");
    acknowledged.assert_stored(&Client::of(&start()), &database).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_a_stop_under_load_finishes_started_requests_in_time() {
    stop_finishes_started_requests(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_a_stop_under_load_finishes_started_requests_in_time() {
    stop_finishes_started_requests(Backend::Postgres).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_stop_while_the_database_hangs_returns_503_to_waiting_requests_and_ends_in_time() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = without_limits(place.path(), server.url());
    let mut serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    server.signal("-STOP");
    let request = get_me(&token);
    let sent = join_all((0..IN_PROGRESS).map(|_| send(client.address(), &request))).await;
    serving.signal("-TERM");
    let signalled = Instant::now();
    let answers = join_all(sent.into_iter().map(status_line)).await;
    assert!(answers.iter().all(|line| line.starts_with("HTTP/1.1 503 ")), "{answers:?}");
    let took = tokio::task::spawn_blocking(move || stop_time(&mut serving, signalled)).await.unwrap();
    server.signal("-CONT");
    println!("stopped after {took:?}; {IN_PROGRESS} requests that waited for the database returned 503");
}
