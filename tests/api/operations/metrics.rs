//! The metrics, which a separate listener serves.

use serde_json::json;
use tempfile::TempDir;

use crate::support::program::{Serving, latchkey};
use crate::support::{Credential, specify};

specify! {
    async fn the_api_listener_serves_no_metrics(app: App) {
        app.get("/metrics", &Credential::None).await.assert_error(404, "no_such_route");
    }
}

/// The value of a metric without labels.
fn value_of(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn the_metrics_listener_reports_requests_sign_ins_and_queues() {
    let home = TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &[]);
    command.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0").env("LATCHKEY__LIMITS__REGISTRATIONS__BURST", "1");
    let mut serving = Serving::start(&mut command);
    let metrics = serving.metrics_url();
    let api = format!("http://{}", serving.address());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();

    let ada = json!({ "name": "Adaline", "surname": "", "email": "ada@example.org", "password": "correct horse" });
    for expected in [201, 429] {
        assert_eq!(http.post(format!("{api}/register")).json(&ada).send().await.unwrap().status(), expected);
    }
    for (username, password, expected) in [
        ("ada@example.org", "correct horse", 200),
        ("ada@example.org", "a wrong password", 401),
        ("unknown@example.org", "a wrong password", 401),
    ] {
        let form = [("username", username), ("password", password)];
        assert_eq!(http.post(format!("{api}/token")).form(&form).send().await.unwrap().status(), expected);
    }
    for path in ["/page/17", "/page/18", "/nowhere/lkt_secret"] {
        http.get(format!("{api}{path}")).send().await.unwrap();
    }
    let unknown_method = http.request("BREW".parse().unwrap(), format!("{api}/nowhere"));
    unknown_method.send().await.unwrap();

    let scrape = async |accept: &str| {
        let answer = http.get(&metrics).header("Accept", accept).send().await.unwrap();
        let media_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (media_type, answer.text().await.unwrap())
    };
    let (classic, openmetrics) =
        ("text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                        application/openmetrics-text;version=0.0.1;q=0.4,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for (accept, expected) in [
        ("*/*", classic),
        ("text/html, */*;q=0.5", classic),
        ("text/plain", classic),
        ("application/openmetrics-text", openmetrics),
        ("application/openmetrics-text;q=0, */*", classic),
        ("application/openmetrics-text;q=0.4, text/*;q=0.3", openmetrics),
        ("application/openmetrics-text;version=2.0.0", classic),
        ("image/png", classic),
        (prometheus_2, openmetrics),
        (prometheus_3, openmetrics),
    ] {
        let (media_type, text) = scrape(accept).await;
        assert_eq!(media_type, expected, "{accept}");
        assert_eq!(text.ends_with("# EOF\n"), expected == openmetrics, "{accept}");
    }
    let (_, text) = scrape(prometheus_2).await;
    for line in [
        "latchkey_request_duration_seconds_count{method=\"POST\",route=\"/register\",status=\"201\"} 1",
        "latchkey_request_duration_seconds_count{method=\"GET\",route=\"/page/{id}\",status=\"403\"} 2",
        "latchkey_request_duration_seconds_count{method=\"GET\",route=\"\",status=\"404\"} 1",
        "latchkey_request_duration_seconds_count{method=\"other\",route=\"\",status=\"404\"} 1",
        "latchkey_sign_ins_total{outcome=\"success\"} 1",
        "latchkey_sign_ins_total{outcome=\"failure\"} 2",
        "latchkey_audit_entries_total{outcome=\"success\"} 2",
        "latchkey_audit_entries_total{outcome=\"failure\"} 2",
        "latchkey_throttled_total{limit=\"registrations\"} 1",
        "latchkey_throttled_total{limit=\"claims\"} 0",
        "latchkey_sign_ins_total{outcome=\"unavailable\"} 0",
        // A registration and three sign-ins: a sign-in with an unknown e-mail computes a hash too.
        "latchkey_hash_wait_seconds_count 4",
        "latchkey_hash_queue 0",
        "latchkey_hash_lanes_in_use 0",
    ] {
        assert!(text.lines().any(|reported| reported == line), "{line} in {text}");
    }
    for (name, least, most) in [
        ("process_cpu_seconds_total", 0.01, 600.0),
        ("process_resident_memory_bytes", 1e6, 4e9),
        ("process_virtual_memory_bytes", 1e6, 1e12),
        ("process_open_fds", 5.0, 1_000.0),
        ("process_max_fds", 256.0, 1e10),
    ] {
        let value = value_of(&text, name);
        assert!((least..most).contains(&value), "{name} {value}");
    }
    let started = value_of(&text, "process_start_time_seconds");
    let next_second = f64::from(u32::try_from(latchkey::clock::Clock::default().now().seconds()).unwrap()) + 1.0;
    assert!((next_second - 120.0..=next_second).contains(&started), "{started}");
    assert_eq!(value_of(&scrape(classic).await.1, "process_start_time_seconds"), started, "it does not change");
    assert!(!text.contains("secret") && !text.contains("ada"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    let elsewhere = http.get(metrics.replace("/metrics", "/health/live")).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
    let traced = http.request("TRACE".parse().unwrap(), &metrics).header("X-Canary", "canary").send().await.unwrap();
    assert!(traced.status().is_client_error(), "{traced:?}");
    let echo = traced.text().await.unwrap();
    assert!(!echo.contains("canary"), "{echo}");
    for answer in [elsewhere, http.get(&metrics).send().await.unwrap()] {
        assert!(answer.headers().contains_key("x-request-id"), "{answer:?}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }

    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
}
