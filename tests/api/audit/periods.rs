//! `since` and `until` among many entries.

use serde_json::Value;

use super::add_entries;
use crate::support::{App, Backend, Profile};

/// Number of entries before the period and after it. One request searches 10,000 entries if no index covers its filter.
const OTHERS: usize = 12_000;

#[tokio::test]
async fn one_request_finds_a_period_among_many_entries() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Rfc).await else { continue };
        let now = app.clock.now();
        let at = |days: i64, seconds: i64| now.plus_seconds(seconds - days * 86_400);
        add_entries(&app.database, OTHERS, "user:7", "success", at(9, 0)).await;
        add_entries(&app.database, 30, "user:7", "success", at(5, 0)).await;
        // Another server, whose clock is five minutes behind.
        add_entries(&app.database, 2, "key:8", "failure", at(5, -300)).await;
        add_entries(&app.database, 10, "user:7", "success", at(5, 10)).await;
        add_entries(&app.database, OTHERS, "user:7", "success", at(1, 0)).await;
        let root = app.admin("root@example.org").await;
        let around = format!("since={}&until={}", at(5, -360), at(5, 60));
        let behind = format!("since={}&until={}", at(5, -301), at(5, -240));
        for (query, count) in [
            (around.clone(), 42),
            (format!("{around}&outcome=failure"), 2),
            (format!("{around}&actor=key:8"), 2),
            (format!("{around}&target=page:1"), 42),
            (format!("{around}&action=page.delete"), 0),
            (behind, 2),
            (format!("since={}&until={}", at(4, 0), at(3, 0)), 0),
            (format!("until={}", at(20, 0)), 0),
            (format!("since={}", at(-1, 0)), 0),
        ] {
            for order in ["oldest", "newest"] {
                let list = app.get(&format!("/audit?order={order}&limit=50&{query}"), &root).await;
                let found = list.body["items"].as_array().unwrap().len();
                assert_eq!((found, &list.body["next"]), (count, &Value::Null), "{backend:?} {order} {query}");
            }
        }
        // The pages of a period follow each other.
        let (mut after, mut ids) = (String::new(), Vec::new());
        loop {
            let list = app.get(&format!("/audit?limit=20&{around}{after}"), &root).await;
            ids.extend(list.body["items"].as_array().unwrap().iter().map(|entry| entry["id"].as_u64().unwrap()));
            let Some(next) = list.body["next"].as_u64() else { break };
            after = format!("&after={next}");
        }
        let first = u64::try_from(OTHERS).unwrap() + 1;
        assert_eq!(ids, (first..first + 42).rev().collect::<Vec<_>>());
    }
}
