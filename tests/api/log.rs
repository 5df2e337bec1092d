//! What is logged of a request.

use std::process::Command;

use tempfile::TempDir;

use crate::support::program::{Serving, latchkey};

/// The request ids of the access lines that these requests leave, on one thread.
async fn lines_of(every: &str, requests: &[(&str, &str)]) -> Vec<String> {
    let home = TempDir::new().unwrap();
    let mut command: Command = latchkey(home.path(), &[]);
    command.env("LATCHKEY__LOG__ACCESS_EVERY", every).env("LATCHKEY__SERVER__WORKERS", "1");
    let mut serving = Serving::start(&mut command);
    let (address, http) = (serving.address(), reqwest::Client::builder().no_proxy().build().unwrap());
    for (id, path) in requests {
        http.get(format!("http://{address}{path}")).header("X-Request-Id", *id).send().await.unwrap();
    }
    serving.signal("-INT");
    serving.child.wait().unwrap();
    let lines = serving.rest().into_iter().filter(|line| line.contains("latchkey::access"));
    lines.map(|line| line.split_once("request_id=").unwrap().1.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn of_requests_that_succeed_as_many_are_logged_as_the_settings_say_and_all_that_fail() {
    let (live, missing) = ("/health/live", "/nowhere");
    let requests = [("a", live), ("b", live), ("c", missing), ("d", live), ("e", "/me"), ("f", live)];
    for (every, logged) in [("1", "a b c d e f"), ("2", "a c d e"), ("3", "a c e f"), ("0", "c e")] {
        let expected: Vec<&str> = logged.split(' ').collect();
        assert_eq!(lines_of(every, &requests).await, expected, "every {every}");
    }
}
