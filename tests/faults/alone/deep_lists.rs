//! The end of a very long list is as fast as its beginning.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::fill::fill;
use crate::support::{App, Backend, Credential, Profile};

const PAGES: i64 = 300_000;
/// Maximum difference between the end and the beginning, with a margin for a busy machine.
const MAX_DIFFERENCE: Duration = Duration::from_millis(50);
/// Requests of each path.
const REQUESTS: usize = 50;

async fn insert_pages(app: &App) {
    for _ in 0..PAGES / 20_000 {
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
                    INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by) \
                    SELECT 1, 'a title', 'some text', 1, '2026-11-25 20:00:00', '2026-11-25 20:00:00', 1 FROM n";
        fill(&app.database, rows).await;
    }
}

/// Median time of a response with this status.
async fn median(app: &App, path: &str, caller: &Credential, status: u16) -> Duration {
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let sent = Instant::now();
        assert_eq!(app.get(path, caller).await.status, status, "{path}");
        took.push(sent.elapsed());
    }
    took.sort_unstable();
    took[REQUESTS / 2]
}

#[tokio::test]
#[ignore = "takes long"]
async fn the_end_of_a_long_list_is_as_fast_as_its_beginning() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(app) = App::start(backend, Profile::Fastapi).await else { continue };
        let (ada, eve) = (app.user("ada@example.org").await, app.user("eve@example.org").await);
        insert_pages(&app).await;
        let beginning = median(&app, "/page/?size=100", &ada, 200).await;
        println!("{backend:?} the beginning: {beginning:?}");
        for (path, status) in [
            ("/page/?after=299000&size=100", 200),
            ("/page/?page=101&size=100", 200),
            ("/page/?page=1000000000&size=100", 422),
        ] {
            let took = median(&app, path, &ada, status).await;
            println!("{backend:?} {path}: {took:?}");
            assert!(
                took <= beginning + MAX_DIFFERENCE,
                "{backend:?} {path} takes {took:?}, the beginning {beginning:?}"
            );
        }
        // Deep pages that one user requests do not slow other users.
        let alone = median(&app, "/me", &ada, 200).await;
        let request_deep_pages = async |_| {
            for _ in 0..20 {
                assert_eq!(app.get("/page/?page=101&size=100", &eve).await.status, 200);
            }
        };
        let (took, _) = tokio::join!(median(&app, "/me", &ada, 200), join_all((0..8).map(request_deep_pages)));
        println!("{backend:?} /me alone: {alone:?}, with eight concurrent lists: {took:?}");
        assert!(took <= alone + 4 * MAX_DIFFERENCE, "{backend:?}: /me takes {took:?}, alone {alone:?}");
    }
}
