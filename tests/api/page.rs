//! Pages: create, read, change, delete and list them.

use serde_json::json;

use crate::support::specify;

specify! {
    async fn a_page_is_created_read_changed_and_deleted(app: App) {
        let ada = app.user("ada@example.org").await;
        let created = app.post("/page/", &ada, &json!({ "title": "First", "body": "Text" })).await;
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!(created.header("location"), "/page/1");
        assert_eq!(created.header("etag"), "\"1\"");
        let members = ["body", "created_at", "id", "owner", "title", "updated_at", "updated_by", "version"];
        assert_eq!(created.members(), members);
        assert_eq!(created.body["owner"], 1);
        assert_eq!(created.body["updated_by"], 1);
        assert_eq!(created.body["version"], 1);

        let read = app.get("/page/1", &ada).await;
        assert_eq!((read.status, &read.body), (200, &created.body));

        app.clock.advance(10);
        let replaced = app.request("PUT", "/page/1").credential(&ada).json(&json!({ "title": "Second", "body": "" })).send().await;
        assert_eq!(replaced.status, 200, "{replaced:?}");
        assert_eq!((&replaced.body["title"], &replaced.body["body"]), (&json!("Second"), &json!("")));
        assert_eq!(replaced.header("etag"), "\"2\"");
        assert_eq!(replaced.body["created_at"], created.body["created_at"]);
        assert_ne!(replaced.body["updated_at"], created.body["updated_at"]);

        let edited = app.request("PATCH", "/page/1").credential(&ada).json(&json!({ "body": "New text" })).send().await;
        assert_eq!(edited.status, 200, "{edited:?}");
        assert_eq!((&edited.body["title"], &edited.body["body"]), (&json!("Second"), &json!("New text")));
        assert_eq!(edited.body["version"], 3);

        let deleted = app.request("DELETE", "/page/1").credential(&ada).send().await;
        assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
        app.get("/page/1", &ada).await.assert_error(404, "not_found");
        let next = app.post("/page/", &ada, &json!({ "title": "Third", "body": "" })).await;
        assert_eq!(next.body["id"], 2, "ids are never reused");
    }

    async fn the_list_is_paginated_and_its_parameters_have_bounds(app: App) {
        let ada = app.user("ada@example.org").await;
        for number in 1..=5 {
            app.post("/page/", &ada, &json!({ "title": format!("Page {number}"), "body": "" })).await;
        }
        for path in ["/page/", "/page"] {
            let list = app.get(path, &ada).await;
            assert_eq!(list.status, 200, "{list:?}");
            assert_eq!(list.members(), ["items", "next", "page", "size", "total", "total_is_exact"]);
            assert_eq!((&list.body["page"], &list.body["size"], &list.body["total"]), (&json!(1), &json!(20), &json!(5)));
            assert_eq!(list.body["items"].as_array().unwrap().len(), 5);
        }
        for (query, titles) in [
            ("page=1&size=2", vec!["Page 1", "Page 2"]),
            ("page=3&size=2", vec!["Page 5"]),
            ("page=4&size=2", vec![]),
            ("page=101&size=100", vec![]),
            ("size=100", vec!["Page 1", "Page 2", "Page 3", "Page 4", "Page 5"]),
        ] {
            let list = app.get(&format!("/page/?{query}"), &ada).await;
            let found: Vec<_> = list.body["items"].as_array().unwrap().iter().map(|item| item["title"].as_str().unwrap()).collect();
            assert_eq!(found, titles, "{query}");
            assert_eq!(list.body["total"], 5);
        }
        for (query, field, code) in [
            ("page=0", "page", "range"), ("page=-1", "page", "range"), ("page=9223372036854775808", "page", "type"),
            ("page=one", "page", "type"), ("page=", "page", "type"), ("page=1.5", "page", "type"),
            ("page=1&page=2", "page", "repeated"), ("size=0", "size", "range"), ("size=101", "size", "range"),
            ("size=1000000000", "size", "range"), ("after=-1", "after", "range"), ("after=", "after", "type"),
            ("page=1&after=1", "after", "exclusive"),
            ("page=1000000000&size=100", "page", "page_too_deep"), ("page=102&size=100", "page", "page_too_deep"),
            ("page=10002&size=1", "page", "page_too_deep"), ("page=9223372036854775807&size=100", "page", "page_too_deep"),
        ] {
            let answer = app.get(&format!("/page/?{query}"), &ada).await;
            answer.assert_error(422, "invalid");
            assert_eq!(answer.bad_fields(), [field], "{query}");
            assert_eq!(answer.body["errors"][0]["code"], code, "{query}");
        }
        let deep = app.get("/page/?page=102&size=100", &ada).await;
        assert!(deep.body["errors"][0]["message"].as_str().unwrap().contains("`after`"), "{deep:?}");
        app.get("/page/?size=%31%zz", &ada).await.assert_error(400, "malformed_encoding");
    }

    async fn a_deletion_between_two_requests_hides_no_other_page(app: App) {
        let ada = app.user("ada@example.org").await;
        for number in 1..=7 {
            app.post("/page/", &ada, &json!({ "title": format!("Page {number}"), "body": "text" })).await;
        }
        let mut seen = Vec::new();
        let mut list = app.get("/page/?size=2", &ada).await;
        loop {
            seen.extend(list.body["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()));
            let Some(next) = list.body["next"].as_i64() else { break };
            // Deletes the first page, and the last one of this response, after which the list continues.
            for deleted in [seen[0], next] {
                app.delete(&format!("/page/{deleted}"), &ada).await;
            }
            list = app.get(&format!("/page/?after={next}&size=2"), &ada).await;
            assert_eq!((&list.body["page"], &list.body["size"]), (&json!(null), &json!(2)), "{list:?}");
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
        let from_start = app.get("/page/?after=0", &ada).await;
        assert_eq!((&from_start.body["total"], &from_start.body["next"]), (&json!(3), &json!(null)));
        let beyond = app.get("/page/?after=9223372036854775807", &ada).await;
        assert_eq!((&beyond.body["items"], &beyond.body["next"]), (&json!([]), &json!(null)));
    }

    async fn pages_are_counted_up_to_ten_thousand(app: App) {
        let ada = app.user("ada@example.org").await;
        let add = |count: i64| app.database.execute(format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             INSERT INTO pages (owner_id, title, body, version, created_at, updated_at, updated_by) \
             SELECT 1, 't', '', 1, '2026-01-01 00:00:00', '2026-01-01 00:00:00', 1 FROM n"
        ));
        for (added, exact) in [(10_000, true), (1, false), (5_000, false)] {
            add(added).await;
            let list = app.get("/page/?size=1", &ada).await;
            assert_eq!((&list.body["total"], &list.body["total_is_exact"]), (&json!(10_000), &json!(exact)), "{list:?}");
        }
        let last = app.get("/page/?page=101&size=100", &ada).await;
        assert_eq!(last.body["items"][99]["id"], 10_100, "the deepest page by number");
        assert_eq!(last.body["next"], 10_100);
        let deeper = app.get("/page/?after=14999&size=100", &ada).await;
        assert_eq!((deeper.body["items"].as_array().unwrap().len(), &deeper.body["next"]), (2, &json!(null)));
    }

    async fn a_list_of_long_pages_ends_early_and_omits_none(app: App) {
        let ada = app.user("ada@example.org").await;
        let long = "\n".repeat(39_000);
        for number in 1..=9 {
            let body = if number == 8 { "short" } else { &long };
            app.post("/page/", &ada, &json!({ "title": format!("Page {number}"), "body": body })).await;
        }
        let (mut seen, mut after) = (Vec::new(), json!(0));
        while after != json!(null) {
            let list = app.get(&format!("/page/?after={after}&size=100"), &ada).await;
            assert!(list.text.len() <= 257 * 1024, "{} bytes", list.text.len());
            for item in list.body["items"].as_array().unwrap() {
                assert_eq!(item["body"].as_str().unwrap(), if item["id"] == 8 { "short" } else { &long });
                seen.push(item["id"].as_i64().unwrap());
            }
            after = list.body["next"].clone();
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9]);

        // A numbered page contains all its items, but omits the bodies that do not fit.
        let list = app.get("/page/?size=100", &ada).await;
        assert!(list.text.len() <= 257 * 1024, "{} bytes", list.text.len());
        let has_body: Vec<_> = list.body["items"].as_array().unwrap().iter().map(|item| item["body"].is_string()).collect();
        assert_eq!(has_body, [true, true, true, false, false, false, false, true, false]);
        assert_eq!(list.body["next"], json!(null));
        assert_eq!(app.get("/page/9", &ada).await.body["body"].as_str().unwrap(), long);
    }

    async fn every_user_reads_a_page_and_only_its_owner_changes_it(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "Ada's", "body": "" })).await;
        assert_eq!(app.get("/page/1", &eve).await.status, 200);
        assert_eq!(app.get("/page/", &eve).await.body["total"], 1);
        let body = json!({ "title": "Eve's", "body": "" });
        for method in ["PUT", "PATCH"] {
            app.request(method, "/page/1").credential(&eve).json(&body).send().await.assert_error(403, "not_owner");
        }
        app.request("DELETE", "/page/1").credential(&eve).send().await.assert_error(403, "not_owner");
        assert_eq!(app.get("/page/1", &ada).await.body["title"], "Ada's");
    }

    async fn an_invalid_or_unknown_page_id_is_not_found(app: App) {
        let ada = app.user("ada@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "One", "body": "" })).await;
        assert_eq!(app.get("/page/%31", &ada).await.status, 200, "an escaped digit is the digit");
        let body = json!({ "title": "t", "body": "" });
        for id in ["2", "0", "-1", "01", "+1", "1.0", "x", "9223372036854775807", "9223372036854775808", "%31%00", "%2531", "1e0"] {
            let path = format!("/page/{id}");
            app.get(&path, &ada).await.assert_error(404, "not_found");
            app.request("PUT", &path).credential(&ada).json(&body).send().await.assert_error(404, "not_found");
            app.request("DELETE", &path).credential(&ada).send().await.assert_error(404, "not_found");
        }
    }

    async fn if_match_guards_against_lost_updates(app: App) {
        let ada = app.user("ada@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "One", "body": "" })).await;
        let put = |tag: &'static str, title: &'static str| {
            app.request("PUT", "/page/1").credential(&ada).header("If-Match", tag).json(&json!({ "title": title, "body": "" }))
        };
        assert_eq!(put("\"1\"", "Two").send().await.status, 200);
        for stale in ["\"1\"", "\"3\"", "W/\"2\", \"1\"", "\"02\"", "\"x\"", "\"1\", \"3\"", "\"1,2\"", "\"\"", "\"\\2\""] {
            put(stale, "Lost").send().await.assert_error(412, "stale");
        }
        for weak in ["W/\"2\"", "W/\"2\", W/\"1\""] {
            put(weak, "Lost").send().await.assert_error(412, "weak_if_match");
        }
        for malformed in ["2", "two words", "garbage, \"2\"", "\"2\", *", "", ",", "w/\"2\"", "W/ \"2\"", "\"2\" \"3\""] {
            put(malformed, "Lost").send().await.assert_error(400, "malformed_if_match");
        }
        assert_eq!(app.get("/page/1", &ada).await.body["title"], "Two");
        assert_eq!(put("\"1\", \"2\"", "Three").send().await.status, 200);
        assert_eq!(put("*", "Four").send().await.status, 200);
        let stale = app.request("DELETE", "/page/1").credential(&ada).header("If-Match", "\"1\"").send().await;
        stale.assert_error(412, "stale");
        let fresh = app.request("DELETE", "/page/1").credential(&ada).header("If-Match", "\"4\"").send().await;
        assert_eq!(fresh.status, 204, "{fresh:?}");
    }

    async fn every_response_with_a_page_has_its_current_version(app: App) {
        let ada = app.user("ada@example.org").await;
        let page = json!({ "title": "t", "body": "b" });
        let created = app.post("/page/", &ada, &page).await;
        let changes = [
            created,
            app.patch("/page/1", &ada, &json!({ "title": "u" })).await,
            app.put("/page/1", &ada, &page).await,
            app.patch("/page/1", &ada, &json!({ "body": "c" })).await,
        ];
        for (changed, version) in changes.iter().zip(1..) {
            assert_eq!(changed.body["version"], version, "{changed:?}");
            assert_eq!(changed.header("etag"), format!("\"{version}\""), "{changed:?}");
        }
        let read = app.get("/page/1", &ada).await;
        assert_eq!((read.header("etag"), &read.body["version"]), ("\"4\"", &json!(4)));
    }

    async fn a_list_and_its_total_are_consistent(app: App) {
        let ada = app.user("ada@example.org").await;
        let page = json!({ "title": "t", "body": "b" });
        let write = async || {
            for _ in 0..60 {
                assert_eq!(app.post("/page/", &ada, &page).await.status, 201);
            }
        };
        let writes_ended = std::cell::Cell::new(false);
        let read = async || {
            let mut lists = 0;
            while !writes_ended.get() {
                let list = app.get("/page/?size=100", &ada).await;
                assert_eq!(list.body["total"], list.body["items"].as_array().unwrap().len(), "{list:?}");
                lists += 1;
            }
            lists
        };
        let writer = async {
            write().await;
            writes_ended.set(true);
        };
        let (first, second, ()) = tokio::join!(read(), read(), writer);
        assert!(first + second > 10, "{first} and {second} lists were read during the writes");
    }

    async fn a_version_in_the_body_or_query_works_like_if_match(app: App) {
        let ada = app.user("ada@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "One", "body": "" })).await;
        let change = |method: &'static str, version: serde_json::Value| {
            app.request(method, "/page/1").credential(&ada).json(&json!({ "title": "t", "body": "", "version": version }))
        };
        for (method, version) in [("PUT", 1_i64), ("PATCH", 2)] {
            let changed = change(method, json!(version)).send().await;
            assert_eq!((changed.status, &changed.body["version"]), (200, &json!(version + 1)), "{changed:?}");
            for stale in [version, version + 2, 9_007_199_254_740_991] {
                change(method, json!(stale)).send().await.assert_error(412, "stale");
            }
            for wrong in [json!("2"), json!(null), json!(1.5), json!(0), json!(-1), json!(9_007_199_254_740_992_i64)] {
                change(method, wrong).send().await.assert_error(422, "invalid");
            }
        }
        // Both conditions must hold.
        for (tag, version) in [("\"3\"", 2), ("\"2\"", 3)] {
            change("PUT", json!(version)).header("If-Match", tag).send().await.assert_error(412, "stale");
        }
        assert_eq!(change("PUT", json!(3)).header("If-Match", "\"2\", \"3\"").send().await.status, 200);
        let only_version = app.request("PATCH", "/page/1").credential(&ada).json(&json!({ "version": 4 })).send().await;
        only_version.assert_error(422, "invalid");
        let created = app.post("/page/", &ada, &json!({ "title": "t", "body": "", "version": 1 })).await;
        created.assert_error(422, "invalid");
        for stale in ["3", "5"] {
            app.delete(&format!("/page/1?version={stale}"), &ada).await.assert_error(412, "stale");
        }
        for wrong in ["", "x", "0", "4&version=4"] {
            app.delete(&format!("/page/1?version={wrong}"), &ada).await.assert_error(422, "invalid");
        }
        assert_eq!(app.delete("/page/1?version=4", &ada).await.status, 204);
    }

    async fn title_and_body_have_exact_bounds(app: App) {
        let ada = app.user("ada@example.org").await;
        for (title, body, status) in [
            (1, 0, 201), (200, 65_536, 201), (0, 0, 422), (201, 0, 422), (1, 65_537, 422),
        ] {
            let page = json!({ "title": "t".repeat(title), "body": "b".repeat(body) });
            let answer = app.post("/page/", &ada, &page).await;
            assert_eq!(answer.status, status, "{title} and {body}: {:?}", answer.bad_fields());
        }
        let wide = json!({ "title": "\u{1f600}".repeat(200), "body": "\u{e9}".repeat(32_768) });
        assert_eq!(app.post("/page/", &ada, &wide).await.status, 201);
        let edit = |body: serde_json::Value| app.request("PATCH", "/page/1").credential(&ada).json(&body).send();
        edit(json!({})).await.assert_error(422, "invalid");
        edit(json!({ "title": null })).await.assert_error(422, "invalid");
        edit(json!({ "title": "" })).await.assert_error(422, "invalid");
        edit(json!({ "owner": 2, "title": "t" })).await.assert_error(422, "invalid");
    }

    async fn page_routes_require_a_credential(app: App) {
        for (method, path) in [
            ("GET", "/page"), ("GET", "/page/"), ("POST", "/page/"), ("GET", "/page/1"), ("PUT", "/page/1"),
            ("PATCH", "/page/1"), ("DELETE", "/page/1"), ("GET", "/page/1/nothing"),
        ] {
            let answer = app.request(method, path).send().await;
            answer.assert_error(app.expected.no_credential, "not_authenticated");
        }
        let ada = app.user("ada@example.org").await;
        app.get("/page/1/nothing", &ada).await.assert_error(404, "no_such_route");
    }

    async fn the_pages_of_a_user_are_deleted_with_the_user(app: App) {
        let ada = app.user("ada@example.org").await;
        let eve = app.user("eve@example.org").await;
        app.post("/page/", &ada, &json!({ "title": "Ada's", "body": "" })).await;
        app.post("/page/", &eve, &json!({ "title": "Eve's", "body": "" })).await;
        app.database.execute("DELETE FROM users WHERE email = 'ada@example.org'").await;
        app.get("/me", &ada).await.assert_error(app.expected.bad_token_header, "invalid_token");
        let list = app.get("/page/", &eve).await;
        assert_eq!(list.body["total"], 1, "{list:?}");
        assert_eq!(app.database.number("SELECT count(*) FROM access_tokens").await, 1);
        let again = app.register("ada@example.org").await;
        assert_eq!(again.body["id"], 3, "ids are never reused");
    }
}
