//! The documentation page in headless Chromium: *Authorize* and *Try it out* return 200, operations are short, and the
//! page loads nothing from other hosts. Pictures of it are in `target/tmp/`.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use thirtyfour::error::WebDriverResult;
use thirtyfour::prelude::*;

use crate::support::app::PASSWORD;
use crate::support::{App, Backend, Profile, installed};

/// ChromeDriver on a port of its choice. The process is killed on drop.
pub(crate) struct Driver {
    child: Child,
    url: String,
    /// Kept open because ChromeDriver keeps writing to it.
    _output: BufReader<ChildStdout>,
}

impl Driver {
    /// Returns `None` if no browser is installed.
    pub(crate) fn start() -> Option<Self> {
        let program = |name: &str| {
            let status = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.ok()
        };
        let programs = program("chromedriver").and_then(|_| program("chromium"));
        installed(programs, "BROWSER", "chromium and chromedriver")?;
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

    /// Starts Chromium with this profile directory.
    pub(crate) async fn open(&self, profile: &Path) -> WebDriver {
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
            "--window-size=1280,2400",
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

/// Waits up to 20 seconds until the element exists and can be clicked.
pub(crate) async fn find(browser: &WebDriver, css: &str) -> WebDriverResult<WebElement> {
    browser.query(By::Css(css)).wait(Duration::from_secs(20), Duration::from_millis(50)).and_clickable().first().await
}

pub(crate) async fn click(browser: &WebDriver, css: &str) -> WebDriverResult<()> {
    find(browser, css).await?.click().await
}

pub(crate) async fn fill(browser: &WebDriver, css: &str, text: &str) -> WebDriverResult<()> {
    let field = find(browser, css).await?;
    field.clear().await?;
    field.send_keys(text).await
}

/// Keeps a picture of the page in `target/tmp/`, for people.
async fn keep_picture(browser: &WebDriver, name: &str) -> WebDriverResult<()> {
    browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).await
}

const OPERATION: &str = "#operations-Sign-in-protectedRoute";
const TOKEN_FIELD: &str = "#api_key_value";
const REMOVE_AUTHORIZATION: &str = ".modal-ux button[aria-label='Remove authorization']";
const CLOSE_DIALOG: &str = ".modal-ux .btn-done";

/// Clicks *Execute* and returns the displayed status and body.
async fn try_it_out(browser: &WebDriver) -> WebDriverResult<(String, String)> {
    click(browser, &format!("{OPERATION} .execute")).await?;
    let answer = format!("{OPERATION} .live-responses-table .response");
    let status = find(browser, &format!("{answer} .response-col_status")).await?.text().await?;
    let body = find(browser, &format!("{answer} .highlight-code")).await?.text().await?;
    click(browser, &format!("{OPERATION} .btn-clear")).await?;
    Ok((status, body))
}

async fn check_page(app: &App, browser: &WebDriver) -> WebDriverResult<()> {
    let token = app.token_of("ada@example.org").await;
    browser.goto(app.url("/docs/")).await?;
    find(browser, OPERATION).await?;
    keep_picture(browser, "docs-page-top.png").await?;
    click(browser, &format!("{OPERATION} .opblock-summary-control")).await?;
    let (status, body) = try_it_out(browser).await?;
    keep_picture(browser, "docs-page-operation.png").await?;
    assert_eq!(status, app.expected.no_credential.to_string(), "without a credential: {body}");

    // A token.
    click(browser, &format!("{OPERATION} .authorization__btn")).await?;
    let cookie = find(browser, ".modal-ux .cookie-auth").await?;
    assert!(cookie.find_all(By::Css("input")).await?.is_empty(), "a page cannot set the cookie");
    fill(browser, TOKEN_FIELD, &token).await?;
    click(browser, &format!(".auth-container:has({TOKEN_FIELD}) .authorize")).await?;
    click(browser, CLOSE_DIALOG).await?;
    let (status, body) = try_it_out(browser).await?;
    assert_eq!(status, "200", "with a token: {body}");
    assert!(body.contains("Adaline"), "{body}");

    // No token, but e-mail and password.
    click(browser, &format!("{OPERATION} .authorization__btn")).await?;
    click(browser, REMOVE_AUTHORIZATION).await?;
    fill(browser, "#oauth_username", "ada@example.org").await?;
    fill(browser, "#oauth_password", PASSWORD).await?;
    click(browser, ".auth-container:has(#oauth_username) .authorize").await?;
    find(browser, REMOVE_AUTHORIZATION).await?;
    click(browser, CLOSE_DIALOG).await?;
    let (status, body) = try_it_out(browser).await?;
    assert_eq!(status, "200", "with e-mail and password: {body}");

    // That sign-in replaced the first token.
    let old = app.get("/me", &crate::support::Credential::Bearer(token)).await;
    assert_eq!(old.status, 401, "{old:?}");

    // Every resource was loaded from this server.
    let script = "return performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)";
    let hosts = browser.execute(script, vec![]).await?;
    let hosts = hosts.json().as_array().unwrap().clone();
    assert!(hosts.len() >= 4, "{hosts:?}");
    assert!(hosts.iter().all(|host| *host == json!(app.address.to_string())), "{hosts:?}");
    Ok(())
}

/// Expands an operation, executes what is filled in, and returns the status and the body.
async fn execute(browser: &WebDriver, operation: &str) -> WebDriverResult<(String, String)> {
    let operation = format!("#operations-{operation}");
    click(browser, &format!("{operation} .opblock-summary-control")).await?;
    click(browser, &format!("{operation} .execute")).await?;
    let answer = format!("{operation} .live-responses-table .response");
    let status = find(browser, &format!("{answer} .response-col_status")).await?.text().await?;
    let body = browser.find(By::Css(format!("{answer} .response-col_description"))).await?.text().await?;
    click(browser, &format!("{operation} .opblock-summary-control")).await?;
    Ok((status.lines().next().unwrap_or_default().to_owned(), body))
}

/// Executes eight operations one after the other, with what the page fills in.
async fn check_examples(app: &App, browser: &WebDriver) -> WebDriverResult<()> {
    // The key and the page of the examples belong to another user, so that only the links lead to the right ids.
    let ada = app.user("ada@example.org").await;
    app.key_of(&ada, &[]).await;
    assert_eq!(app.post("/page/", &ada, &json!({ "title": "t", "body": "b" })).await.status, 201);
    browser.goto(app.url("/docs/")).await?;
    for (operation, expected, text) in [
        ("Sign-in-register", "201", "grace@example.org"),
        ("Sign-in-signIn", "200", "access_token"),
        // The page has taken over the token.
        ("Sign-in-protectedRoute", "200", "Grace"),
        ("My_account-editMe", "200", "https://www.example.org"),
        ("My_API_keys-createKey", "201", "lkk_"),
        ("My_API_keys-rotateKey", "200", "\"id\": 2"),
        ("Pages-createPage", "201", "Flight plan"),
        ("Pages-replacePage", "200", "\"version\": 2"),
    ] {
        let (status, body) = execute(browser, operation).await?;
        assert!(status == expected && body.contains(text), "{operation}: {status} {body}");
    }

    // The sign-in of the example, as Grace, replaces the token of the page only if it is Grace's.
    for (email, password, name) in
        [("grace@example.org", "correct horse battery", "Grace"), ("ada@example.org", PASSWORD, "Adaline")]
    {
        browser.goto(app.url("/docs/")).await?;
        browser.refresh().await?;
        click(browser, ".auth-wrapper .authorize").await?;
        fill(browser, "#oauth_username", email).await?;
        fill(browser, "#oauth_password", password).await?;
        click(browser, ".auth-container:has(#oauth_username) .authorize").await?;
        find(browser, REMOVE_AUTHORIZATION).await?;
        click(browser, CLOSE_DIALOG).await?;
        assert_eq!(execute(browser, "Sign-in-signIn").await?.0, "200", "{email}");
        let (status, body) = execute(browser, "Sign-in-protectedRoute").await?;
        assert!(status == "200" && body.contains(name), "{email}: {status} {body}");
    }
    Ok(())
}

/// Nine of ten operations are less than 1,600 pixels high when expanded.
async fn check_heights(app: &App, browser: &WebDriver) -> WebDriverResult<()> {
    browser.goto(app.url("/docs/")).await?;
    find(browser, OPERATION).await?;
    // One script for all operations, because each command redraws the page.
    let expand = "document.querySelectorAll('.opblock-summary-control').forEach(control => control.click())";
    browser.execute(expand, vec![]).await?;
    let collapsed = "return document.querySelectorAll('.opblock:not(:has(.responses-table))').length";
    let deadline = Instant::now() + Duration::from_secs(20);
    while browser.execute(collapsed, vec![]).await?.convert::<u64>()? > 0 {
        assert!(Instant::now() < deadline, "all operations expand");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let measure = "return [...document.querySelectorAll('.opblock')]
        .map(block => [Math.round(block.getBoundingClientRect().height), block.id])";
    let heights: Vec<(f64, String)> = browser.execute(measure, vec![]).await?.convert()?;
    let high: Vec<_> = heights.iter().filter(|(height, _)| *height >= 1600.0).collect();
    assert!(heights.len() > 30 && high.len() * 10 <= heights.len(), "{} operations, too high: {high:?}", heights.len());
    Ok(())
}

/// The dialog begins with what to enter, and its error names the scopes that a member does not hold.
async fn check_dialog(app: &App, browser: &WebDriver) -> WebDriverResult<()> {
    app.register("eve@example.org").await;
    browser.goto(app.url("/docs/")).await?;
    click(browser, ".auth-wrapper .authorize").await?;
    fill(browser, "#oauth_username", "eve@example.org").await?;
    let script = "return [document.querySelector('.modal-ux-content').scrollTop, document.activeElement.id]";
    assert_eq!(*browser.execute(script, vec![]).await?.json(), json!([0, "oauth_username"]));
    keep_picture(browser, "docs-page-authorize.png").await?;
    let dialog = find(browser, ".modal-ux").await?.text().await?;
    assert!(dialog.contains("Enter your e-mail address and your password. Leave all scopes unselected"), "{dialog}");
    assert!(!dialog.contains("client_secret"), "{dialog}");
    fill(browser, "#oauth_password", PASSWORD).await?;
    click(browser, ".scopes a[data-all]").await?;
    click(browser, ".auth-container:has(#oauth_username) .authorize").await?;
    let error = find(browser, ".modal-ux .errors").await?.text().await?;
    assert!(error.contains("Your role does not hold: keys:issue"), "{error}");
    click(browser, ".scopes h2 a:not([data-all])").await?;
    click(browser, ".auth-container:has(#oauth_username) .authorize").await?;
    find(browser, REMOVE_AUTHORIZATION).await?;
    Ok(())
}

/// Runs `check` with a new server and a new browser, and keeps a picture of a failure.
macro_rules! in_browser {
    ($driver:expr, $profile:expr, $check:expr) => {
        let app = App::start(Backend::Sqlite, $profile).await.unwrap();
        let home = tempfile::TempDir::new().unwrap();
        let browser = $driver.open(home.path()).await;
        let outcome = $check(&app, &browser).await;
        if let Err(error) = &outcome {
            let picture = std::env::temp_dir().join("latchkey-browser.png");
            let _ = browser.screenshot(&picture).await;
            eprintln!("{error}; see {}", picture.display());
        }
        browser.quit().await.unwrap();
        outcome.unwrap();
    };
}

#[tokio::test]
async fn authorize_and_try_it_out_return_200_with_a_token_and_with_a_password() {
    let Some(driver) = Driver::start() else { return };
    for profile in [Profile::Fastapi, Profile::Rfc] {
        in_browser!(driver, profile, check_page);
    }
}

#[tokio::test]
async fn what_the_page_fills_in_works_from_registration_on() {
    let Some(driver) = Driver::start() else { return };
    in_browser!(driver, Profile::Fastapi, check_examples);
}

#[tokio::test]
async fn expanded_operations_are_short() {
    let Some(driver) = Driver::start() else { return };
    in_browser!(driver, Profile::Fastapi, check_heights);
}

#[tokio::test]
async fn the_dialog_names_what_to_enter_and_why_scopes_are_refused() {
    let Some(driver) = Driver::start() else { return };
    in_browser!(driver, Profile::Fastapi, check_dialog);
}
