//! The disk is full: what would write is told to come back, what reads goes on, and nothing is half there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::server::Server;
use crate::support::announce;
use crate::support::program::{Serving, latchkey};

/// A file system in memory, of so many megabytes. It goes with this.
struct SmallDisk {
    place: TempDir,
}

impl SmallDisk {
    /// `None`, after one clear line, where nobody may mount one.
    fn mount(megabytes: u32) -> Option<Self> {
        let place = TempDir::with_prefix("latchkey-disk-").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "tmpfs"]).arg(place.path());
        if mount.output().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self { place });
        }
        assert!(std::env::var("REQUIRE_TMPFS").is_err(), "REQUIRE_TMPFS=1, but a tmpfs cannot be mounted");
        announce("tests of a full disk are skipped: a tmpfs cannot be mounted here");
        None
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// Fills what is left but for a megabyte; what it takes can be given back.
    fn fill(&self) -> PathBuf {
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

/// Fills the disk under a program that serves, and frees it again.
async fn survives(url: &str, disk: &SmallDisk) {
    let place = TempDir::new().unwrap();
    let mut command = latchkey(place.path(), &[]);
    command.env("DATABASE_URL", url).env("LATCHKEY__LIMITS__ENABLED", "false");
    // Expiry must be noticed although nothing can be removed.
    let serving = Serving::start(command.env("LATCHKEY__AUTH__TOKEN_TTL", "15"));
    let client = Client::of(&serving);
    let expires = client.new_user("grace@example.org").await;
    let leaves = client.new_user("linus@example.org").await;
    let token = client.new_user("ada@example.org").await;
    let key = client.make_key(&token).await.unwrap();
    let (id, key) = (key.body["id"].clone(), key.text("key"));

    let filler = disk.fill();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    while refused < 5 {
        let title = format!("page {}", acknowledged.len());
        let body = json!({ "title": title, "body": "x".repeat(60_000) });
        let answer = client.ask("POST", "/page/", &token, Some(body)).await.unwrap();
        match answer.is_fair("the disk is full") {
            true => acknowledged.push(title),
            false => refused += 1,
        }
        assert!(acknowledged.len() < 2_000, "the disk is never full");
    }
    // A log that is written ahead may have room left for small changes.
    let ended = client.ask("DELETE", &format!("/me/keys/{id}"), &token, None).await.unwrap().is_fair("full");
    let signed_out = client.ask("DELETE", "/token", &leaves, None).await.unwrap().is_fair("full");
    for (secret, is_dead) in [(&key, ended), (&leaves, signed_out), (&token, false)] {
        let answer = client.ask("GET", "/protected-route", secret, None).await.unwrap();
        assert_eq!(answer.status, if is_dead { 403 } else { 200 }, "it is as it was said");
    }
    for path in ["/page/", "/me", "/me/keys", "/health/live"] {
        let answer = client.ask("GET", path, &token, None).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    while client.ask("GET", "/protected-route", &expires, None).await.unwrap().status == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    std::fs::remove_file(filler).unwrap();
    let token = client.sign_in("ada@example.org").await.unwrap().text("access_token");
    assert!(client.write_page(&token, "after").await.unwrap().is_good());
    let again = client.ask("DELETE", &format!("/me/keys/{id}"), &token, None).await.unwrap();
    assert_eq!(again.status, if ended { 404 } else { 204 });
    assert_eq!(client.ask("GET", "/protected-route", &key, None).await.unwrap().status, 403);
    let list = client.ask("GET", "/page/?size=1", &token, None).await.unwrap();
    let total = usize::try_from(list.body["total"].as_u64().unwrap()).unwrap();
    assert_eq!(total, acknowledged.len() + 1, "all that was acknowledged is there, and nothing else");
    println!("{} pages fitted; key ended: {ended}, signed out: {signed_out}; all is well again", acknowledged.len());
    assert!(!acknowledged.is_empty() && refused > 0);
}

#[tokio::test]
#[ignore = "takes long"]
async fn a_full_disk_under_sqlite_stops_changes_and_nothing_else() {
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
async fn a_full_disk_under_postgres_stops_changes_and_nothing_else() {
    let Some(disk) = SmallDisk::mount(192) else { return };
    let home = disk.path().join("postgres");
    std::fs::create_dir(&home).unwrap();
    // Its log of changes stays small; the rest of the disk is filled.
    let options = &["-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB", "-c", "shared_buffers=8MB"];
    let Some(server) = Server::start(&home, options) else { return };
    survives(&server.url(), &disk).await;
}
