//! Told to stop under load, or while the database hangs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::acknowledged::{Acknowledged, Worker};
use crate::client::Client;
use crate::server::Server;
use crate::support::Backend;
use crate::support::app::PASSWORD;
use crate::support::database::Database;
use crate::support::program::{Serving, latchkey};

/// How long it may take to end.
const END: Duration = Duration::from_secs(8);
/// Requests that are under way when the program is told to stop.
const UNDER_WAY: usize = 50;

/// A request that has been sent, and the connection on which its answer comes.
async fn send(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The first line of an answer, once all of it is there and the connection is closed.
async fn status_line(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap().lines().next().unwrap_or_default().to_owned()
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

/// How long it took to end, and well.
fn ends(serving: &mut Serving, told: Instant) -> Duration {
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    let took = told.elapsed();
    assert!(took <= END, "{took:?}");
    took
}

async fn finishes_what_it_has_begun(backend: Backend) {
    let Some(database) = Database::create(backend) else { return };
    let home = TempDir::new().unwrap();
    let start = || {
        let mut command = latchkey(home.path(), &[]);
        command.env("DATABASE_URL", &database.url).env("LATCHKEY__LIMITS__ENABLED", "false");
        Serving::start(&mut command)
    };
    let mut serving = start();
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    let key = client.make_key(&token).await.unwrap().text("key");
    let world = Mutex::new(Acknowledged::default());
    let workers: Vec<_> =
        (0..4).map(|number| Worker { name: format!("user-{number}"), client: &client, world: &world }).collect();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Those wait for a hash, and these for nothing.
        let requests = [sign_in("ada@example.org"), get_me(&key)];
        let sent = (0..UNDER_WAY).map(|number| send(client.address(), &requests[number % 2]));
        let sent = join_all(sent).await;
        serving.signal("-TERM");
        let told = Instant::now();
        let answers = join_all(sent.into_iter().map(status_line)).await;
        let took = tokio::task::spawn_blocking(move || ends(&mut serving, told)).await.unwrap();
        (answers, took)
    };
    let (_, (answers, took)) = tokio::join!(join_all(workers.iter().map(|worker| worker.work(|| false))), stop);
    let done = answers.iter().filter(|line| *line == "HTTP/1.1 200 OK").count();
    assert_eq!(done, UNDER_WAY, "{answers:?}");
    let world = world.into_inner().unwrap();
    println!("{backend:?}: ended after {took:?}; {done} requests under way were finished; {world}");
    world.holds(&Client::of(&start()), &database).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_sqlite_it_finishes_what_it_has_begun_and_ends_in_time() {
    finishes_what_it_has_begun(Backend::Sqlite).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn on_postgres_it_finishes_what_it_has_begun_and_ends_in_time() {
    finishes_what_it_has_begun(Backend::Postgres).await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn while_the_database_hangs_it_tells_those_who_wait_and_ends_in_time() {
    let home = TempDir::new().unwrap();
    let Some(server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = latchkey(place.path(), &[]);
    command.env("DATABASE_URL", server.url()).env("LATCHKEY__LIMITS__ENABLED", "false");
    let mut serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let token = client.new_user("ada@example.org").await;
    server.signal("-STOP");
    let request = get_me(&token);
    let sent = join_all((0..UNDER_WAY).map(|_| send(client.address(), &request))).await;
    serving.signal("-TERM");
    let told = Instant::now();
    let answers = join_all(sent.into_iter().map(status_line)).await;
    assert!(answers.iter().all(|line| line.starts_with("HTTP/1.1 503 ")), "{answers:?}");
    let took = tokio::task::spawn_blocking(move || ends(&mut serving, told)).await.unwrap();
    server.signal("-CONT");
    println!("ended after {took:?}; {UNDER_WAY} who waited for the database were told to come back");
}
