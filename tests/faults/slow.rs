//! Clients that are slow on purpose.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::program::{Serving, latchkey};

const CONNECTIONS: usize = 900;
/// The longest that the program waits for a head or a body, and room for a busy machine.
const CUT_AFTER: Duration = Duration::from_secs(30);

/// Whether the server ends the connection in time; whatever it says before.
async fn is_cut(mut stream: TcpStream) -> bool {
    let mut said = Vec::new();
    tokio::time::timeout(CUT_AFTER, stream.read_to_end(&mut said)).await.is_ok()
}

#[tokio::test]
#[ignore = "takes long"]
async fn connections_that_trickle_or_say_nothing_are_cut_and_hurt_nobody() {
    let home = TempDir::new().unwrap();
    let serving = Serving::start(&mut latchkey(home.path(), &[]));
    let address = serving.address();
    let body =
        "POST /register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{\"name\":";
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let said = ["", "GET /health/live HTTP/1.1\r\nHost:", body][number % 3];
        stream.write_all(said.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let asked = Instant::now();
        let answer = http.get(format!("http://{address}/health/ready")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        slowest = slowest.max(asked.elapsed());
    }
    let cut = join_all(held.into_iter().map(is_cut)).await;
    assert!(cut.iter().all(|cut| *cut), "{} of {CONNECTIONS} are still open", cut.iter().filter(|cut| !**cut).count());
    println!("{CONNECTIONS} held connections: the slowest of 200 answers took {slowest:?}; all were cut");
}
