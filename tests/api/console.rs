//! The files of the web console, their headers, and that they are what `console/` builds. The pages themselves are tested
//! in a browser: `tests/console/run`.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{Answer, App, Backend, Credential, Profile, specify};

const INDEX: &str = include_str!("../../assets/console/index.html");
const SCRIPT: &[u8] = include_bytes!("../../assets/console/app.js.gz");
const STYLE: &[u8] = include_bytes!("../../assets/console/app.css.gz");
const ICON: &[u8] = include_bytes!("../../assets/console/icon.svg");
/// The most that a browser loads before the first page, compressed.
const MAX_SIZE: usize = 80_000;

/// The path of a file that the page names, such as `/console/app-0123456789abcdef.js`.
fn path_in_index(extension: &str) -> String {
    let name = INDEX.split('"').find(|text| text.starts_with("app-") && text.ends_with(extension));
    format!("/console/{}", name.expect("the page names the file"))
}

fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut contents = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut contents).unwrap();
    contents
}

#[test]
fn the_page_names_the_files_by_their_contents() {
    for (extension, bytes) in [(".js", SCRIPT), (".css", STYLE)] {
        let hash: String = Sha256::digest(decompressed(bytes)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path_in_index(extension), format!("/console/app-{}{extension}", &hash[..16]), "npm run build");
    }
}

#[test]
fn the_console_is_smaller_than_80_kb() {
    let size = [INDEX.as_bytes(), SCRIPT, STYLE, ICON].iter().map(|file| file.len()).sum::<usize>();
    assert!(size < MAX_SIZE, "{size} bytes");
}

#[test]
fn the_files_name_no_other_host() {
    // Names of XML namespaces and links to read, which the browser does not load.
    let allowed = ["http://www.w3.org/"];
    for file in [INDEX.as_bytes().to_vec(), decompressed(SCRIPT), decompressed(STYLE), ICON.to_vec()] {
        let text = String::from_utf8(file).unwrap();
        for scheme in ["http://", "https://", "ws://", "wss://"] {
            for (at, _) in text.match_indices(scheme) {
                let shown: String = text[at..].chars().take(60).collect();
                assert!(allowed.iter().any(|allowed| shown.starts_with(allowed)), "{shown}");
            }
        }
    }
}

/// The exception is `sessionStorage`, which holds the mark that a sign-out is not confirmed.
#[test]
fn the_console_stores_no_data_in_the_browser() {
    let script = String::from_utf8(decompressed(SCRIPT)).unwrap();
    for storage in ["localStorage", "indexedDB", "document.cookie", "caches.open", "serviceWorker"] {
        assert!(!script.contains(storage), "{storage}");
    }
    let written: Vec<_> = script.match_indices("sessionStorage.setItem(").collect();
    assert_eq!(written.len(), 1, "{written:?}");
}

fn assert_is_never_stored(answer: &Answer) {
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{answer:?}");
}

specify! {
    async fn the_page_runs_only_its_own_script_and_is_never_stored(app: App) {
        let page = app.get("/console/", &Credential::None).await;
        assert_is_never_stored(&page);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(page.text, INDEX);
        assert_eq!(page.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("x-frame-options"), "DENY");
        let mut policy: Vec<&str> = page.header("content-security-policy").split("; ").collect();
        policy.sort_unstable();
        let expected = [
            "base-uri 'none'",
            "connect-src 'self'",
            "default-src 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "img-src 'self'",
            "require-trusted-types-for 'script'",
            "script-src 'self'",
            "style-src 'self'",
            "trusted-types 'none'",
        ];
        assert_eq!(policy, expected);
        let redirect = app.get("/console", &Credential::None).await;
        assert_eq!((redirect.status, redirect.header("location")), (308, "console/"));
    }

    async fn files_named_by_their_contents_are_stored_for_ever(app: App) {
        for (extension, content_type) in [(".js", "text/javascript; charset=utf-8"), (".css", "text/css; charset=utf-8")] {
            let path = path_in_index(extension);
            let file = app.get(&path, &Credential::None).await;
            assert_eq!((file.status, file.header("content-type")), (200, content_type), "{path}");
            assert_eq!(file.header("content-encoding"), "gzip", "{path}");
            assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable", "{path}");
            assert_eq!(file.header("vary"), "", "{path}");
        }
        let icon = app.get("/console/icon.svg", &Credential::None).await;
        assert_eq!((icon.status, icon.header("content-type")), (200, "image/svg+xml"));
        // A replica of another version must not fill a cache with its own files under a name that it does not know.
        for path in ["/console/app.js", "/console/app-0123456789abcdef.js", "/console/app.css", "/console/nothing"] {
            let missing = app.get(path, &Credential::None).await;
            missing.assert_error(404, "no_such_route");
            assert_eq!(missing.header("cache-control"), "no-store", "{path}");
        }
    }

    async fn everyone_can_read_the_settings_that_the_console_shows(app: App) {
        let settings = app.get("/console/settings.json", &Credential::None).await;
        assert_is_never_stored(&settings);
        let expected = json!({
            "registration": "open", "mail": false, "verified_email_required": false,
            "name_min": 5, "password_min": 8, "password_max": 128,
        });
        assert_eq!(settings.body, expected);
    }
}

#[tokio::test]
async fn the_console_shows_changed_settings() {
    for app in App::start_on_all(|settings| {
        settings.registration.mode = latchkey::config::RegistrationMode::Closed;
        settings.registration.name_min_length = 1;
        settings.auth.require_verified_email = true;
        settings.auth.password_min_length = 12;
        settings.auth.password_max_length = 64;
    })
    .await
    {
        let settings = app.get("/console/settings.json", &Credential::None).await;
        let expected = json!({
            "registration": "closed", "mail": false, "verified_email_required": true,
            "name_min": 1, "password_min": 12, "password_max": 64,
        });
        assert_eq!(settings.body, expected);
    }
}

#[tokio::test]
async fn a_disabled_console_does_not_exist() {
    let app = App::start_with(Backend::Sqlite, Profile::Fastapi, |settings| settings.console.enabled = false);
    let app = app.await.unwrap();
    for path in ["/console", "/console/", "/console/settings.json", "/console/icon.svg", &path_in_index(".js")] {
        app.get(path, &Credential::None).await.assert_error(404, "no_such_route");
    }
    assert_eq!(app.get("/docs/", &Credential::None).await.status, 200);
}
