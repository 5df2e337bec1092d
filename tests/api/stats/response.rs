//! The response of `GET /stats`: its steps, its bounds, and its callers.

use diesel::{QueryableByName, RunQueryDsl};
use latchkey::db::Conn;
use serde_json::{Value, json};

use super::{HOUR, advance_to, flush};
use crate::support::{App, Backend, Credential, Profile, specify};

/// The numbers of items that are returned for `query`, and the whole response.
async fn items(app: &App, reader: &Credential, query: &str) -> (usize, Value) {
    let answer = app.get(&format!("/stats?{query}"), reader).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    (answer.body["items"].as_array().unwrap().len(), answer.body)
}

async fn insert(app: &App, rows: &str) {
    app.database.execute(format!("INSERT INTO hourly_counts VALUES {rows}")).await;
}

specify! {
    async fn each_member_of_an_item_is_the_count_of_its_name(app: App) {
        let root = app.admin("root@example.org").await;
        insert(&app, "('2026-01-31 22:00:00', 1, 2, 3, 4, 5, 6, 7, 7, 9), ('2026-01-31 23:00:00', 10, 20, 30, 40, 50, 60, 70, 5, 8), \
            ('2026-02-01 00:00:00', 100, 0, 0, 0, 0, 0, 2, 2, 0)").await;
        let item = |at: &str, counts: [i64; 8]| json!({
            "at": format!("2026-{at}:00:00.000000Z"), "sign_ins_succeeded": counts[0], "sign_ins_failed": counts[1],
            "sign_ins_throttled": counts[2], "registrations": counts[3], "requests_authorized": counts[4],
            "requests_refused": counts[5], "keys_used": counts[6], "hash_queue_max": counts[7],
        });
        let (_, hours) = items(&app, &root, "from=2026-01-31T21:30:00Z&to=2026-02-01T00:00:00Z").await;
        assert_eq!(hours, json!({
            "step": "hour", "from": "2026-01-31T21:00:00.000000Z", "to": "2026-02-01T00:00:00.000000Z",
            "items": [item("01-31T21", [0; 8]), item("01-31T22", [1, 2, 3, 4, 5, 6, 7, 9]), item("01-31T23", [10, 20, 30, 40, 50, 60, 70, 8])],
        }));
        let (_, days) = items(&app, &root, "step=day&from=2026-01-30T12:00:00Z&to=2026-02-01T00:00:00.5Z").await;
        assert_eq!(days, json!({
            "step": "day", "from": "2026-01-30T00:00:00.000000Z", "to": "2026-02-01T00:00:00.500000Z",
            "items": [
                item("01-30T00", [0; 8]),
                // Keys are counted once a day, and the longest queue is the longest of all hours.
                item("01-31T00", [11, 22, 33, 44, 55, 66, 12, 9]),
                item("02-01T00", [100, 0, 0, 0, 0, 0, 2, 0]),
            ],
        }));
    }

    async fn the_default_is_the_last_24_hours_with_the_current_one_at_the_end(app: App) {
        advance_to(&app, 13 * HOUR + 1_200);
        let root = app.admin("root@example.org").await;
        flush(&app).await;
        let (number, hours) = items(&app, &root, "").await;
        assert_eq!((number, &hours["step"]), (24, &json!("hour")));
        let at = |index: usize| hours["items"][index]["at"].as_str().unwrap()[11..16].to_owned();
        assert_eq!((at(0), at(23)), ("14:00".to_owned(), "13:00".to_owned()));
        assert_eq!(hours["items"][23]["registrations"], 1);
        assert!((0..23).all(|index| hours["items"][index]["registrations"] == 0));
        let (number, days) = items(&app, &root, "step=day").await;
        assert_eq!((number, &days["items"][29]["registrations"]), (30, &json!(1)));
        app.clock.advance(23 * HOUR);
        let root = Credential::Token(app.new_token_of("root@example.org").await);
        assert_eq!(items(&app, &root, "").await.1["items"][0]["registrations"], 1);
        app.clock.advance(HOUR);
        assert_eq!(items(&app, &root, "").await.1["items"][0]["registrations"], 0);
    }

    async fn periods_and_steps_are_bounded(app: App) {
        let root = app.admin("root@example.org").await;
        for (query, number) in [
            ("from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z", 744),
            ("from=2026-01-01T00:00:01Z&to=2026-02-01T00:00:01Z&step=hour", 745),
            ("from=2025-01-25T00:00:00Z&to=2026-03-01T00:00:00Z&step=day", 400),
            ("from=2026-01-01T00:00:00%2B01:00&to=2026-01-01T00:00:00Z", 1),
            ("to=2026-01-01T00:00:00Z", 24),
            ("to=2099-01-01T00:00:00Z&step=day", 30),
        ] {
            assert_eq!(items(&app, &root, query).await.0, number, "{query}");
        }
        for (query, field) in [
            ("from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:01Z", "from"),
            ("from=2025-01-25T00:00:00Z&to=2026-03-01T00:00:01Z&step=day", "from"),
            ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
            ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
            ("from=2099-01-01T00:00:00Z", "from"),
            ("from=2020-01-01T00:00:00Z", "from"),
            ("from=1969-12-31T23:00:00Z&to=1970-01-01T01:00:00Z", "from"),
            ("from=yesterday", "from"),
            ("from=2026-01-01", "from"),
            ("to=2026-01-01T00:00:00", "to"),
            ("to=2026-13-01T00:00:00Z", "to"),
            ("to=", "to"),
            ("step=minute", "step"),
            ("step=", "step"),
            ("step=hour&step=day", "step"),
        ] {
            let answer = app.get(&format!("/stats?{query}"), &root).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), [field], "{query}");
        }
        let schema = &app.get("/openapi.json", &root).await.body["components"]["schemas"]["StatsResponse"]["properties"];
        assert_eq!((&schema["items"]["maxItems"], &schema["step"]["enum"]), (&json!(745), &json!(["hour", "day"])));
    }

    async fn only_callers_with_the_scope_audit_read_see_statistics(app: App) {
        let root = app.admin("root@example.org").await;
        let auditor = app.user_of_role("eve@example.org", "auditor").await;
        let ada = app.user("ada@example.org").await;
        let (of_root, _) = app.key_of(&root, &["audit:read"]).await;
        let (narrow, _) = app.key_of(&root, &["users:read"]).await;
        for reader in [&root, &auditor, &of_root] {
            assert_eq!(items(&app, reader, "").await.0, 24);
        }
        for (caller, status) in [(&ada, 403), (&narrow, 403), (&Credential::None, app.expected.no_credential)] {
            let answer = app.get("/stats", caller).await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(!answer.text.contains("items"), "{answer:?}");
        }
        app.get("/stats", &ada).await.assert_error(403, "insufficient_scope");
        let entries = app.trail(&root, "action=request").await;
        assert!(entries.iter().all(|entry| entry["outcome"] == "denied"), "reads of statistics have no entries");
    }
}

/// A line of a query plan of SQLite.
#[derive(QueryableByName)]
struct SqlitePlan {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

/// A line of a query plan of PostgreSQL.
#[derive(QueryableByName)]
struct PostgresPlan {
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
    line: String,
}

async fn plan(app: &App) -> String {
    let query = "SELECT * FROM hourly_counts WHERE hour >= '2026-01-01 00:00:00' AND hour < '2026-02-01 00:00:00' ORDER BY hour";
    let db = app.database.open();
    let read = db.read(move |conn| {
        let lines: Vec<String> = match conn {
            Conn::Sqlite(conn) => {
                let rows: Vec<SqlitePlan> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(conn)?;
                rows.into_iter().map(|row| row.detail).collect()
            }
            Conn::Postgres(conn) => {
                let rows: Vec<PostgresPlan> = diesel::sql_query(format!("EXPLAIN {query}")).load(conn)?;
                rows.into_iter().map(|row| row.line).collect()
            }
        };
        Ok(lines.join("\n"))
    });
    read.await.unwrap()
}

#[tokio::test]
async fn the_largest_responses_are_bounded_and_read_one_range_of_an_index() {
    for (backend, profile) in [(Backend::Sqlite, Profile::Rfc), (Backend::Postgres, Profile::Fastapi)] {
        let Some(app) = App::start_with(backend, profile, |_| ()).await else { continue };
        let root = app.admin("root@example.org").await;
        let largest = i64::MAX / 10_000;
        let start = latchkey::clock::Timestamp::parse("2024-12-01T00:00:00Z").unwrap().hour();
        for day in 0..500 {
            let rows = (0..24).map(|hour| {
                let at = latchkey::clock::Timestamp::start_of_hour(start + day * 24 + hour).utc();
                format!("('{}'{})", at.format("%Y-%m-%d %H:%M:%S"), format!(", {largest}").repeat(9))
            });
            insert(&app, &rows.collect::<Vec<_>>().join(", ")).await;
        }
        for (query, number) in [
            ("from=2026-01-01T00:00:01Z&to=2026-02-01T00:00:01Z", 745),
            ("from=2025-01-25T00:00:01Z&to=2026-03-01T00:00:01Z&step=day", 401),
        ] {
            let answer = app.get(&format!("/stats?{query}"), &root).await;
            assert_eq!((answer.status, answer.body["items"].as_array().unwrap().len()), (200, number), "{query}");
            assert!(answer.text.len() < 256 * 1024, "{query}: {} bytes", answer.text.len());
        }
        app.database.execute("ANALYZE").await;
        let plan = plan(&app).await;
        let index = if backend == Backend::Sqlite {
            "SEARCH hourly_counts USING INDEX"
        } else {
            "Index Scan using hourly_counts_pkey"
        };
        assert!(plan.contains(index) && !plan.contains("Sort") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
