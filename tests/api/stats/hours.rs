//! Events belong to the hour in which they happen, also if they are written later or by several processes.

use diesel::RunQueryDsl;
use latchkey::error::CredentialHeader;
use latchkey::service::identity::authenticate::Purpose;

use super::{
    DAY, HOUR, advance_to, advance_to_last_day_of_month, by_hour, counted, flush, open_service, open_service_with,
    stored, this_hour,
};
use crate::support::app::PASSWORD;
use crate::support::{App, Credential, specify};

async fn sign_in(app: &App) {
    assert_eq!(app.sign_in("ada@example.org", PASSWORD).await.status, 200);
}

/// Makes every write of counts fail, or succeed again.
async fn hide_table(app: &App, is_hidden: bool) {
    let (from, to) = if is_hidden { ("hourly_counts", "hidden") } else { ("hidden", "hourly_counts") };
    app.database.execute(format!("ALTER TABLE {from} RENAME TO {to}")).await;
}

specify! {
    async fn the_last_minute_of_a_month_and_the_first_of_the_next_are_different_hours_and_days(app: App) {
        app.register("ada@example.org").await;
        flush(&app).await;
        advance_to_last_day_of_month(&app, DAY - 60);
        let last_hour = this_hour(&app);
        for _ in 0..3 {
            sign_in(&app).await;
        }
        app.clock.advance(60);
        assert!(this_hour(&app).ends_with("-01 00:00"), "{}", this_hour(&app));
        sign_in(&app).await;
        let hours = by_hour(&app, "sign_ins_succeeded").await;
        assert_eq!(hours, [format!("{last_hour} 3"), format!("{} 1", this_hour(&app))], "one write has both hours");

        let root = app.admin("root@example.org").await;
        flush(&app).await;
        let days = app.get("/stats?step=day", &root).await.body;
        let days: Vec<_> = days["items"].as_array().unwrap().iter().rev().take(3).map(|day| {
            (day["at"].as_str().unwrap()[8..16].to_owned(), day["sign_ins_succeeded"].as_i64().unwrap())
        }).collect();
        let yesterday = &last_hour[3..5];
        assert_eq!(days[0], ("01T00:00".to_owned(), 2));
        assert_eq!(days[1], (format!("{yesterday}T00:00"), 3));
        assert_eq!(days[2].1, 0);
    }

    async fn the_uses_of_a_key_at_the_end_of_an_hour_and_at_the_start_of_the_next_count_in_both(app: App) {
        advance_to(&app, DAY - 30);
        let (key, _) = app.key_of(&app.user("ada@example.org").await, &["pages:read"]).await;
        // The server does not write the second use for a minute.
        app.get("/page/", &key).await;
        flush(&app).await;
        app.clock.advance(HOUR - 1);
        app.get("/page/", &key).await;
        app.clock.advance(HOUR);
        app.get("/page/", &key).await;
        assert_eq!(by_hour(&app, "keys_used").await.len(), 3);
        assert_eq!(counted(&app, ["keys_used", "keys_new_in_day"]).await, [3, 2]);
    }

    async fn the_counts_of_all_processes_add_up_and_a_key_counts_once(app: App) {
        advance_to(&app, HOUR + 600);
        let (key, _) = app.key_of(&app.user("ada@example.org").await, &["pages:read"]).await;
        let processes = [open_service(&app).await, open_service(&app).await];
        for (number, process) in processes.iter().enumerate() {
            for _ in 0..=number {
                process.count_decision(true);
                process.count_decision(false);
                process.metrics().sign_in("failure");
                process.identities().authenticate(key.secret(), CredentialHeader::Token, None, Purpose::Read).await.unwrap();
            }
            process.metrics().hourly().hashes_wait(3 + number);
        }
        assert_eq!(app.get("/page/", &key).await.status, 200);
        let flushes = processes.iter().map(|process| async {
            process.identities().last_uses().flush().await;
            process.stats_writer().flush().await;
        });
        tokio::join!(futures_util::future::join_all(flushes), flush(&app));
        // Creating the key, and the request with it, are guarded, too.
        let sums = ["requests_authorized", "requests_refused", "sign_ins_failed", "sign_ins_succeeded", "keys_used", "hash_queue_max"];
        assert_eq!(counted(&app, sums).await, [2 + 1 + 2, 1 + 2, 1 + 2, 1, 1, 4]);
        assert_eq!(app.database.number("SELECT count(*) FROM hourly_counts").await, 1);
    }

    async fn counts_that_cannot_be_written_are_written_later_in_their_own_hours(app: App) {
        advance_to(&app, HOUR + 600);
        let process = open_service(&app).await;
        hide_table(&app, true).await;
        let mut expected = Vec::new();
        for number in 1..=5 {
            (0..number).for_each(|_| process.metrics().sign_in("throttled"));
            process.stats_writer().flush().await;
            expected.push(format!("{} {number}", this_hour(&app)));
            app.clock.advance(HOUR * 7);
        }
        hide_table(&app, false).await;
        process.stats_writer().flush().await;
        process.stats_writer().flush().await;
        assert_eq!(by_hour(&app, "sign_ins_throttled").await, expected, "nothing is lost or written twice");
    }

    async fn uses_of_keys_that_cannot_be_written_are_counted_later_in_their_own_hours(app: App) {
        advance_to(&app, HOUR + 600);
        let (key, _) = app.key_of(&app.user("ada@example.org").await, &["pages:read"]).await;
        hide_table(&app, true).await;
        let mut expected = Vec::new();
        for _ in 0..4 {
            assert_eq!(app.get("/page/", &key).await.status, 200);
            app.service.identities().last_uses().flush().await;
            expected.push(format!("{} 1", this_hour(&app)));
            app.clock.advance(HOUR * 5);
        }
        hide_table(&app, false).await;
        assert_eq!(by_hour(&app, "keys_used").await, expected);
        assert_eq!(counted(&app, ["keys_new_in_day"]).await, [1]);
    }

    async fn a_write_that_has_to_wait_too_long_for_another_process_is_repeated(app: App) {
        let process = open_service(&app).await;
        process.count_decision(true);
        process.stats_writer().flush().await;
        process.count_decision(true);
        let (locked_sender, locked) = tokio::sync::oneshot::channel();
        let (end_sender, end) = std::sync::mpsc::channel::<()>();
        let db = app.database.open();
        let other = tokio::spawn(async move {
            db.write(move |conn| {
                diesel::sql_query("UPDATE hourly_counts SET registrations = 7").execute(conn)?;
                locked_sender.send(()).unwrap();
                end.recv().unwrap();
                Err::<(), _>(latchkey::error::AppError::Stale)
            })
            .await
        });
        locked.await.unwrap();
        process.stats_writer().flush().await;
        end_sender.send(()).unwrap();
        other.await.unwrap().unwrap_err();
        assert_eq!(stored(&app.database, "requests_authorized").await, 1);
        process.count_decision(true);
        process.stats_writer().flush().await;
        assert_eq!(stored(&app.database, "requests_authorized").await, 3);
    }

    async fn more_than_a_hundred_hours_are_written_by_one_flush(app: App) {
        advance_to(&app, HOUR + 600);
        let process = open_service(&app).await;
        for _ in 0..250 {
            process.count_decision(false);
            app.clock.advance(HOUR);
        }
        process.stats_writer().flush().await;
        assert_eq!(app.database.number("SELECT count(*) FROM hourly_counts WHERE requests_refused = 1").await, 250);
    }

    async fn counts_beyond_the_retention_are_not_kept_in_memory_either(app: App) {
        let process = open_service_with(&app, |settings| settings.stats.retention_days = 2).await;
        advance_to(&app, HOUR + 600);
        hide_table(&app, true).await;
        for _ in 0..100 {
            process.count_decision(true);
            process.stats_writer().flush().await;
            app.clock.advance(HOUR);
        }
        hide_table(&app, false).await;
        process.stats_writer().flush().await;
        let kept = app.database.number("SELECT count(*) FROM hourly_counts").await;
        assert_eq!(kept, 48);
    }

    async fn hours_are_removed_when_their_retention_ends(app: App) {
        let at = |days: i64, hours: i64| {
            let start = latchkey::clock::Timestamp::start_of_hour(app.clock.now().hour() - days * 24 - hours);
            format!("('{}', 1, 1, 1, 1, 1, 1, 1, 1, 1)", start.utc().format("%Y-%m-%d %H:%M:%S"))
        };
        let rows: Vec<String> = (-2..1_100).map(|hour| at(400, hour)).chain([at(10, 0), at(0, 1)]).collect();
        app.database.execute(format!("INSERT INTO hourly_counts VALUES {}", rows.join(", "))).await;
        let process = open_service(&app).await;
        assert_eq!(process.lifecycle().purge().run_once().await.unwrap(), 1_100);
        assert_eq!(app.database.number("SELECT count(*) FROM hourly_counts").await, 4);
        let short = open_service_with(&app, |settings| settings.stats.retention_days = 1).await;
        assert_eq!(short.lifecycle().purge().run_once().await.unwrap(), 3);
        assert_eq!(short.lifecycle().purge().run_once().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_server_that_stops_writes_its_counts() {
    use crate::support::Backend;
    use crate::support::database::Database;
    use crate::support::program::{Serving, latchkey};

    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = Database::create(backend) else { continue };
        let home = tempfile::TempDir::new().unwrap();
        let mut serving = Serving::start(latchkey(home.path(), &[]).env("DATABASE_URL", &database.url));
        let client = serving.client();
        let ada = client.user("ada@example.org").await;
        let (key, _) = client.key_of(&ada, &["pages:read"]).await;
        for (caller, status) in [(&key, 200), (&Credential::None, 403)] {
            assert_eq!(client.get("/page/", caller).await.status, status);
        }
        serving.signal("-TERM");
        assert!(serving.child.wait().unwrap().success());
        let columns = ["registrations", "sign_ins_succeeded", "requests_authorized", "requests_refused", "keys_used"];
        for (column, expected) in columns.into_iter().zip([1, 1, 2, 1, 1]) {
            assert_eq!(stored(&database, column).await, expected, "{column}");
        }
    }
}
