//! When the disk is full, changes return 503, reads work, and no change is stored in part. The log, the readiness check
//! and a metric state the reason. A read-only file system is reported at the start.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::command::without_limits;
use crate::server::Server;
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

/// Fills the disk under a running server, and frees it again.
async fn survives(url: &str, disk: &SmallDisk) {
    let place = TempDir::new().unwrap();
    let mut command = without_limits(place.path(), url);
    // Expiry must be noticed although nothing can be removed.
    command.env("LATCHKEY__METRICS__LISTEN", "127.0.0.1:0");
    let mut serving = Serving::start(command.env("LATCHKEY__AUTH__TOKEN_TTL", "15"));
    let metrics = serving.metrics_url();
    let client = Client::of(&serving);
    let expires = client.new_user("grace@example.org").await;
    let leaves = client.new_user("linus@example.org").await;
    let token = client.new_user("ada@example.org").await;
    let key = client.create_key(&token).await.unwrap();
    let (id, key) = (key.body["id"].clone(), key.text("key"));

    let filler = disk.fill();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    while refused < 5 {
        let title = format!("page {}", acknowledged.len());
        let body = json!({ "title": title, "body": "x".repeat(60_000) });
        let answer = client.request("POST", "/page/", &token, Some(body)).await.unwrap();
        match answer.assert_graceful("the disk is full") {
            true => acknowledged.push(title),
            false => refused += 1,
        }
        assert!(acknowledged.len() < 2_000, "the disk was never full");
    }
    assert_eq!(readiness(&client).await, (503, "disk_full".to_owned()));
    assert!(disk_is_full(&metrics).await);
    // The write-ahead log may have space left for small changes.
    let revoked =
        client.request("DELETE", &format!("/me/keys/{id}"), &token, None).await.unwrap().assert_graceful("full");
    let signed_out = client.request("DELETE", "/token", &leaves, None).await.unwrap().assert_graceful("full");
    for (secret, is_revoked) in [(&key, revoked), (&leaves, signed_out), (&token, false)] {
        let answer = client.request("GET", "/protected-route", secret, None).await.unwrap();
        assert_eq!(answer.status, if is_revoked { 403 } else { 200 }, "the state matches the responses");
    }
    for path in ["/page/", "/me", "/me/keys", "/health/live"] {
        let answer = client.request("GET", path, &token, None).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    while client.request("GET", "/protected-route", &expires, None).await.unwrap().status == 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert_eq!(readiness(&client).await, (503, "disk_full".to_owned()), "it stays so without further changes");
    std::fs::remove_file(filler).unwrap();
    let freed = Instant::now();
    while readiness(&client).await.0 != 200 {
        assert!(freed.elapsed() < Duration::from_secs(15), "the server becomes ready without a restart");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!disk_is_full(&metrics).await);
    let token = client.sign_in("ada@example.org").await.unwrap().text("access_token");
    assert!(client.write_page(&token, "after").await.unwrap().is_success());
    let again = client.request("DELETE", &format!("/me/keys/{id}"), &token, None).await.unwrap();
    assert_eq!(again.status, if revoked { 404 } else { 204 });
    assert_eq!(client.request("GET", "/protected-route", &key, None).await.unwrap().status, 403);
    let list = client.request("GET", "/page/?size=1", &token, None).await.unwrap();
    let total = usize::try_from(list.body["total"].as_u64().unwrap()).unwrap();
    assert_eq!(total, acknowledged.len() + 1, "exactly the acknowledged pages are stored");
    println!("{} pages fitted; key revoked: {revoked}, signed out: {signed_out}; recovered", acknowledged.len());
    assert!(!acknowledged.is_empty() && refused > 0);

    serving.signal("-TERM");
    assert!(serving.child.wait().unwrap().success());
    let lines = serving.remaining_lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("the disk of the database is full: changes fail until there is space"), 2, "{lines:#?}");
    assert_eq!(count("changes can be stored again"), 1, "{lines:#?}");
}

/// The status of the readiness check, and the code of its error.
async fn readiness(client: &Client) -> (u16, String) {
    let answer = client.request("GET", "/health/ready", "", None).await.unwrap();
    (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
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
