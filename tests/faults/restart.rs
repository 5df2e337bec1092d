//! PostgreSQL is restarted under load: clients are told to come back, and nothing that was acknowledged is lost.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::client::Client;
use crate::cycles;
use crate::server::Server;
use crate::support::program::{Serving, latchkey};

const CLIENTS: usize = 6;
/// How long there is load before a restart, and after it.
const LOAD: Duration = Duration::from_secs(1);
/// How long after the server takes connections again everything is done: two seconds, and room for a busy machine.
const RECOVERY: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Acknowledged {
    pages: Vec<String>,
    dead_keys: Vec<String>,
    live_keys: Vec<String>,
    answers: u32,
    told_to_come_back: u32,
    slowest: Duration,
}

/// Reads, writes, makes keys and ends them, until the time is over.
async fn work(client: &Client, token: &str, name: &str, world: &Mutex<Acknowledged>, end: impl Fn() -> bool) {
    let mut number = 0;
    let note = |answer: &crate::client::Answer| {
        let good = answer.is_fair(name);
        let mut world = world.lock().unwrap();
        world.answers += 1;
        world.told_to_come_back += u32::from(!good);
        world.slowest = world.slowest.max(answer.took);
        good
    };
    while !end() {
        number += 1;
        for path in ["/protected-route", "/page/", "/me"] {
            note(&client.ask("GET", path, token, None).await.unwrap());
        }
        let title = format!("{name} {number}");
        if note(&client.write_page(token, &title).await.unwrap()) {
            world.lock().unwrap().pages.push(title);
        }
        let made = client.make_key(token).await.unwrap();
        if note(&made) {
            let (path, key) = (format!("/me/keys/{}", made.body["id"]), made.text("key"));
            let ended = number % 4 != 0 && note(&client.ask("DELETE", &path, token, None).await.unwrap());
            let mut world = world.lock().unwrap();
            if ended {
                world.dead_keys.push(key);
            } else if number % 4 == 0 {
                world.live_keys.push(key);
            }
        }
    }
}

async fn outlives(signal: &'static str) {
    let home = TempDir::new().unwrap();
    let Some(mut server) = Server::start(home.path(), &[]) else { return };
    let place = TempDir::new().unwrap();
    let mut command = latchkey(place.path(), &[]);
    command.env("DATABASE_URL", server.url()).env("LATCHKEY__LIMITS__ENABLED", "false");
    let serving = Serving::start(command.env("LATCHKEY__AUTH__CACHE_SIZE", "0"));
    let client = Client::of(&serving);
    let mut tokens = Vec::new();
    for number in 0..CLIENTS {
        tokens.push(client.new_user(&format!("user-{number}@example.org")).await);
    }
    let world = Mutex::<Acknowledged>::default();
    for cycle in 0..cycles() {
        let stop = Mutex::new(None::<Instant>);
        let end = || stop.lock().unwrap().is_some_and(|end| Instant::now() > end);
        let work = join_all(tokens.iter().enumerate().map(|(number, token)| {
            let (client, world, end) = (&client, &world, &end);
            async move { work(client, token, &format!("cycle {cycle}, client {number}"), world, end).await }
        }));
        let harm = async {
            tokio::time::sleep(LOAD).await;
            server = tokio::task::spawn_blocking(move || {
                server.restart(signal);
                server
            })
            .await
            .unwrap();
            let back = Instant::now();
            for path in ["/protected-route", "/page/"] {
                while client.ask("GET", path, &tokens[0], None).await.unwrap().status != 200 {
                    assert!(back.elapsed() < RECOVERY, "not back yet");
                }
            }
            println!("{signal}, cycle {cycle}: all is well {:?} after the server is", back.elapsed());
            *stop.lock().unwrap() = Some(Instant::now() + LOAD);
            server
        };
        (_, server) = tokio::join!(work, harm);
    }
    let world = world.into_inner().unwrap();
    let pages = client.ask("GET", "/page/?size=1", &tokens[0], None).await.unwrap();
    let total = usize::try_from(pages.body["total"].as_u64().unwrap()).unwrap();
    assert!(total >= world.pages.len(), "{} pages were acknowledged, {total} are there", world.pages.len());
    for (keys, expected) in [(&world.live_keys, 200), (&world.dead_keys, 403)] {
        assert!(!keys.is_empty(), "there was load");
        for key in keys {
            let answer = client.ask("GET", "/protected-route", key, None).await.unwrap();
            assert_eq!(answer.status, expected, "a key is lost, or something dead has risen");
        }
    }
    assert!(world.told_to_come_back > 0, "it was felt");
    println!(
        "{signal}: {} restarts; {} answers, of which {} were 503, the slowest after {:?}; {} pages and {} keys kept, {} keys stayed dead",
        cycles(),
        world.answers,
        world.told_to_come_back,
        world.slowest,
        world.pages.len(),
        world.live_keys.len(),
        world.dead_keys.len(),
    );
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_fast_restart_of_postgres_is_felt_as_503_and_loses_nothing() {
    outlives("-INT").await;
}

#[tokio::test]
#[ignore = "takes long"]
async fn an_immediate_restart_of_postgres_is_felt_as_503_and_loses_nothing() {
    outlives("-QUIT").await;
}
