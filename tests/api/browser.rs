//! The documentation page in a real browser, headless Chromium (C9): lock → Authorize → Try it out → 200, without any
//! address but the server's own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use thirtyfour::error::WebDriverResult;
use thirtyfour::prelude::*;

use crate::support::app::PASSWORD;
use crate::support::{App, Backend, Profile, installed};

/// ChromeDriver on a port that it chose, killed when dropped.
struct Driver {
    child: Child,
    url: String,
    /// Kept open, because it goes on writing.
    _output: BufReader<ChildStdout>,
}

impl Driver {
    /// `None`, after one clear line, if there is no browser.
    fn start() -> Option<Self> {
        let program = |name: &str| {
            let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            asked.ok()
        };
        let both = program("chromedriver").and_then(|_| program("chromium"));
        installed(both, "BROWSER", "chromium and chromedriver")?;
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let port = output.by_ref().lines().find_map(|line| {
            let line = line.expect("chromedriver writes text");
            line.split_once("successfully on port ")
                .map(|(_, port)| port.trim_end_matches('.').parse::<u16>().expect("a port"))
        });
        let port = port.expect("chromedriver prints its port");
        Some(Self { child, url: format!("http://127.0.0.1:{port}"), _output: output })
    }

    async fn open(&self, profile: &std::path::Path) -> WebDriver {
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1400,2000",
        ] {
            capabilities.add_arg(argument).unwrap();
        }
        capabilities.add_arg(&format!("--user-data-dir={}", profile.display())).unwrap();
        WebDriver::new(&self.url, capabilities).await.expect("Chromium starts")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The element, once it is there and can be clicked.
async fn find(browser: &WebDriver, css: &str) -> WebDriverResult<WebElement> {
    browser.query(By::Css(css)).wait(Duration::from_secs(20), Duration::from_millis(50)).and_clickable().first().await
}

async fn click(browser: &WebDriver, css: &str) -> WebDriverResult<()> {
    find(browser, css).await?.click().await
}

async fn fill(browser: &WebDriver, css: &str, text: &str) -> WebDriverResult<()> {
    let field = find(browser, css).await?;
    field.clear().await?;
    field.send_keys(text).await
}

const OPERATION: &str = "#operations-user-protectedRoute";
const TOKEN_FIELD: &str = "#api_key_value";
const FORGET: &str = ".modal-ux button[aria-label='Remove authorization']";
const CLOSE: &str = ".modal-ux .btn-done";

/// The status that *Try it out* → *Execute* shows, and the body.
async fn try_it_out(browser: &WebDriver) -> WebDriverResult<(String, String)> {
    click(browser, &format!("{OPERATION} .execute")).await?;
    let answer = format!("{OPERATION} .live-responses-table .response");
    let status = find(browser, &format!("{answer} .response-col_status")).await?.text().await?;
    let body = find(browser, &format!("{answer} .highlight-code")).await?.text().await?;
    click(browser, &format!("{OPERATION} .btn-clear")).await?;
    Ok((status, body))
}

async fn specification(app: &App, browser: &WebDriver) -> WebDriverResult<()> {
    let token = app.token_of("ada@example.org").await;
    browser.goto(app.url("/docs/")).await?;
    click(browser, &format!("{OPERATION} .opblock-summary-control")).await?;
    let (status, body) = try_it_out(browser).await?;
    assert_eq!(status, app.expected.no_credential.to_string(), "without a credential: {body}");

    // A token.
    click(browser, &format!("{OPERATION} .authorization__btn")).await?;
    fill(browser, TOKEN_FIELD, &token).await?;
    click(browser, &format!(".auth-container:has({TOKEN_FIELD}) .authorize")).await?;
    click(browser, CLOSE).await?;
    let (status, body) = try_it_out(browser).await?;
    assert_eq!(status, "200", "with a token: {body}");
    assert!(body.contains("Adaline"), "{body}");

    // No token, but e-mail and password.
    click(browser, &format!("{OPERATION} .authorization__btn")).await?;
    click(browser, FORGET).await?;
    fill(browser, "#oauth_username", "ada@example.org").await?;
    fill(browser, "#oauth_password", PASSWORD).await?;
    click(browser, ".auth-container:has(#oauth_username) .authorize").await?;
    find(browser, FORGET).await?;
    click(browser, CLOSE).await?;
    let (status, body) = try_it_out(browser).await?;
    assert_eq!(status, "200", "with e-mail and password: {body}");

    // The first token was replaced by that sign-in.
    let old = app.get("/me", &crate::support::Credential::Bearer(token)).await;
    assert_eq!(old.status, 401, "{old:?}");

    // Everything came from this server.
    let loaded = "return performance.getEntriesByType('resource').map(one => new URL(one.name).host)";
    let hosts = browser.execute(loaded, vec![]).await?;
    let hosts = hosts.json().as_array().unwrap().clone();
    assert!(hosts.len() >= 4, "{hosts:?}");
    assert!(hosts.iter().all(|host| *host == json!(app.address.to_string())), "{hosts:?}");
    Ok(())
}

#[tokio::test]
async fn authorize_and_try_it_out_answer_200_by_token_and_by_password() {
    let Some(driver) = Driver::start() else { return };
    for profile in [Profile::Fastapi, Profile::Rfc] {
        let app = App::start(Backend::Sqlite, profile).await.unwrap();
        let home = tempfile::TempDir::new().unwrap();
        let browser = driver.open(home.path()).await;
        let outcome = specification(&app, &browser).await;
        if let Err(error) = &outcome {
            let picture = std::env::temp_dir().join("latchkey-browser.png");
            let _ = browser.screenshot(&picture).await;
            eprintln!("{error}; see {}", picture.display());
        }
        browser.quit().await.unwrap();
        outcome.unwrap();
    }
}
