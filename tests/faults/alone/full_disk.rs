//! When the disk is full, changes return 503, reads work, and no change is stored in part. The log, the readiness check
//! and a metric state the reason. A read-only file system is reported at the start.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, RECOVERY, until_available};
use crate::command::without_limits;
use crate::server::Server;
use crate::support::Backend;
use crate::support::database::Database;
use crate::support::program::{Serving, failure, latchkey, out, run};
use crate::support::skipped;

/// A small file system in memory. It is unmounted when dropped.
pub struct SmallDisk {
    place: TempDir,
}

impl SmallDisk {
    /// Mounts one. If the process is not allowed to mount, it reports this and returns `None`.
    pub fn mount(megabytes: u32) -> Option<Self> {
        let place = TempDir::with_prefix("latchkey-disk-").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "tmpfs"]).arg(place.path());
        if mount.output().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self { place });
        }
        assert!(std::env::var("REQUIRE_TMPFS").is_err(), "REQUIRE_TMPFS=1, but a tmpfs cannot be mounted");
        skipped("mount a tmpfs: tests of a full disk require it");
        None
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Fills the free space except for a megabyte. Returns the file that occupies it.
    pub fn fill(&self) -> PathBuf {
        let file = self.path().join("filler");
        let _ = Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", file.display())).output();
        let filler = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - (1 << 20)).unwrap();
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Maximum time until the rest of the disk is full.
const MAX_FILL: Duration = Duration::from_secs(120);
/// Maximum time until the server notices that a token has expired.
const MAX_EXPIRY: Duration = Duration::from_secs(60);
/// Maximum time until the server notices that the disk has space again.
const MAX_FREE: Duration = Duration::from_secs(30);

/// Fills the disk under a running server, and frees it again.
async fn survives(url: &str, disk: &SmallDisk) {
    let place = TempDir::new().unwrap();
    let mut command = without_limits(place.path(), url);
    let mut serving = Serving::start(command.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0"));
    let metrics = serving.metrics_url();
    let client = Client::of(&serving);
    let expires = client.new_user("grace@example.org").await;
    let leaves = client.new_user("linus@example.org").await;
    let token = client.new_user("ada@example.org").await;
    let key = until_available(|| client.create_key(&token)).await;
    let (path, key) = (format!("/me/keys/{}", key.number("id")), key.text("key"));
    // Expiry must be noticed although nothing can be removed.
    Database::at(url).execute(expires_soon(url)).await;

    let filler = disk.fill();
    let (mut acknowledged, mut unknown, mut refused) = (Vec::new(), 0, 0);
    let began = Instant::now();
    while refused < 5 {
        assert!(began.elapsed() < MAX_FILL, "the disk was never full: {} pages", acknowledged.len());
        let title = format!("page {}", acknowledged.len());
        let body = json!({ "title": title, "body": "x".repeat(60_000) });
        let answer = client.request("POST", "/page/", &token, Some(body)).await;
        let answer = answer.expect("the server runs and responds");
        match answer.assert_graceful("the disk is full") {
            true => acknowledged.push(title),
            false if answer.status == 504 => unknown += 1,
            // Another reason, on a busy machine.
            false if readiness(&client).await != disk_full() => {}
            false => refused += 1,
        }
    }
    assert!(disk_is_full(&metrics).await, "the metric states the reason");
    // The write-ahead log may have space left for small changes.
    let revoked = client.request("DELETE", &path, &token, None).await.unwrap();
    let signed_out = client.request("DELETE", "/token", &leaves, None).await.unwrap();
    let [is_revoked, is_signed_out] = [&revoked, &signed_out].map(|answer| answer.assert_graceful("full"));
    for (secret, is_ended, change) in [(&key, is_revoked, &revoked), (&leaves, is_signed_out, &signed_out)] {
        let answer = client.available("GET", "/protected-route", secret).await;
        // After 504 it is unknown.
        let is_right = answer.status == if is_ended { 403 } else { 200 } || change.status == 504;
        assert!(is_right, "the state matches the responses: {change:?}, then {answer:?}");
    }
    for path in ["/protected-route", "/page/", "/me", "/me/keys", "/health/live"] {
        let answer = client.available("GET", path, &token).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let full = Instant::now();
    loop {
        let answer = client.available("GET", "/protected-route", &expires).await;
        if answer.status == 403 {
            break;
        }
        assert!(answer.status == 200 && full.elapsed() < MAX_EXPIRY, "{answer:?} after {:?}", full.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // It stays so without further changes.
    await_readiness(&client, disk_full(), RECOVERY).await;
    std::fs::remove_file(filler).unwrap();
    // The server becomes ready without a restart.
    await_readiness(&client, (200, String::new()), MAX_FREE).await;
    assert!(!disk_is_full(&metrics).await, "the metric states that the disk is free again");
    let token = client.new_token("ada@example.org").await;
    let written = until_available(|| client.write_page(&token, "after")).await;
    assert!(written.is_success(), "{written:?}");
    let again = client.available("DELETE", &path, &token).await;
    assert!(again.status == if is_revoked { 404 } else { 204 } || revoked.status == 504, "{revoked:?}, then {again:?}");
    let rejected = client.available("GET", "/protected-route", &key).await;
    assert_eq!(rejected.status, 403, "{rejected:?}");
    let list = client.available("GET", "/page/?size=1", &token).await;
    let (total, least) = (usize::try_from(list.number("total")).unwrap(), acknowledged.len() + 1);
    assert!((least..=least + unknown).contains(&total), "{total} pages, {least} acknowledged, {unknown} unknown");
    println!("{} pages fitted; key revoked: {is_revoked}, signed out: {is_signed_out}; recovered", acknowledged.len());
    assert!(!acknowledged.is_empty(), "no page fitted");

    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
    let lines = serving.remaining_lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    // By the change and by the readiness check, and not for each request.
    let full = count("the disk of the database is full: changes fail until there is space");
    assert!((1..=4).contains(&full), "{lines:#?}");
    assert_eq!(count("changes can be stored again"), 1, "{lines:#?}");
}

/// Lets the token of the first user expire.
fn expires_soon(url: &str) -> &'static str {
    match Database::at(url).backend {
        Backend::Sqlite => {
            "UPDATE access_tokens SET expiration_date = strftime('%Y-%m-%d %H:%M:%f', 'now', '+20 seconds')
             WHERE user_id = 1"
        }
        Backend::Postgres => {
            "UPDATE access_tokens SET expiration_date = (now() AT TIME ZONE 'UTC') + interval '20 seconds'
             WHERE user_id = 1"
        }
    }
}

/// The status of the readiness check, and the code of its error.
async fn readiness(client: &Client) -> (u16, String) {
    let answer = client.request("GET", "/health/ready", "", None).await.expect("the server runs and responds");
    (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
}

/// The result of the readiness check while the disk is full.
fn disk_full() -> (u16, String) {
    (503, "disk_full".to_owned())
}

/// Waits until the readiness check has this result.
async fn await_readiness(client: &Client, expected: (u16, String), limit: Duration) {
    let began = Instant::now();
    loop {
        let found = readiness(client).await;
        if found == expected {
            return;
        }
        assert!(began.elapsed() < limit, "the readiness check returns {found:?}, {expected:?} is expected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn disk_is_full(metrics: &str) -> bool {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = http.get(metrics).send().await.unwrap().text().await.unwrap();
    let (_, value) = text.split_once("latchkey_not_ready{reason=\"disk_full\"} ").unwrap();
    value.starts_with('1')
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_full_disk_under_sqlite_stops_only_changes() {
    let Some(disk) = SmallDisk::mount(16) else { return };
    let file = disk.path().join("latchkey.db");
    survives(&format!("sqlite://{}", file.display()), &disk).await;
    let checked = Command::new("sqlite3").arg(&file).arg("PRAGMA integrity_check").output();
    if let Ok(checked) = checked {
        assert_eq!(String::from_utf8_lossy(&checked.stdout).trim(), "ok");
    }
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_full_disk_under_postgres_stops_only_changes() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let home = disk.path().join("postgres");
    std::fs::create_dir(&home).unwrap();
    // The write-ahead log stays small, so that the test fills the rest of the disk.
    let options = &["-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB", "-c", "shared_buffers=8MB"];
    let Some(server) = Server::start(&home, options) else { return };
    survives(&server.url(), &disk).await;
}

#[test]
#[ignore = "takes long"]
fn a_read_only_file_system_is_reported_at_the_start() {
    let Some(disk) = SmallDisk::mount(16) else { return };
    out(&run(&mut latchkey(disk.path(), &["migrate", "up"])));
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap();
    assert!(remounted.success());
    for arguments in [&[][..], &["user", "list"], &["migrate", "up"]] {
        let message = failure(&run(&mut latchkey(disk.path(), arguments)));
        assert!(message.contains("the file system or the directory of the database is not writable"), "{message}");
        assert!(message.contains("latchkey.db"), "{message}");
    }
    let mut elsewhere = latchkey(disk.path(), &[]);
    let message = failure(&run(elsewhere.env("DATABASE_URL", "other.db")));
    assert!(message.contains("Read-only file system"), "{message}");
}
