//! A web page of another origin in headless Chromium: Swagger UI, as FastAPI serves it, signs in at Latchkey.

use std::path::Path;

use serde_json::json;
use thirtyfour::error::WebDriverResult;
use thirtyfour::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::openapi::browser::{Driver, click, fill, find};
use crate::support::app::PASSWORD;
use crate::support::{App, Backend, Profile};

const PAGE: &str = r##"<!DOCTYPE html><link rel="stylesheet" href="swagger-ui.css"><div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", tryItOutEnabled: true })</script>"##;
const OPERATION: &str = "#operations-default-hello";
const SIGN_IN: &str = ".modal-ux .auth-btn-wrapper .authorize";
const SIGN_OUT: &str = ".modal-ux button[aria-label='Remove authorization']";

/// The document of a service whose sign-in and only operation are those of the Latchkey server at `url`.
fn document(url: &str) -> String {
    let flow = json!({ "tokenUrl": format!("{url}/token"), "scopes": {} });
    let operation = json!({
        "operationId": "hello",
        "security": [{ "password": [] }],
        "responses": { "200": { "description": "OK" } },
    });
    json!({
        "openapi": "3.0.3",
        "info": { "title": "another service", "version": "1" },
        "servers": [{ "url": url }],
        "paths": { "/protected-route": { "get": operation } },
        "components": { "securitySchemes": { "password": { "type": "oauth2", "flows": { "password": flow } } } },
    })
    .to_string()
}

/// Serves Swagger UI and `document` until the task is aborted.
async fn serve(listener: TcpListener, document: String) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let document = document.clone();
        tokio::spawn(async move {
            // The browser may close a connection at any time.
            let _ = respond(stream, &document).await;
        });
    }
}

async fn respond(stream: TcpStream, document: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let asset =
        |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/swagger-ui").join(name)).unwrap();
    let gzip = "\r\nContent-Encoding: gzip";
    let (status, content_type, coding, body) = match head.split(' ').nth(1).unwrap_or_default() {
        "/" => ("200 OK", "text/html; charset=utf-8", "", PAGE.into()),
        "/openapi.json" => ("200 OK", "application/json", "", document.into()),
        "/swagger-ui-bundle.js" => ("200 OK", "text/javascript; charset=utf-8", gzip, asset("swagger-ui-bundle.js.gz")),
        "/swagger-ui.css" => ("200 OK", "text/css", gzip, asset("swagger-ui.css.gz")),
        _ => ("404 Not Found", "text/plain", "", Vec::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}{coding}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// The status of a request that a script of the page sends to `url` with this header, or 0 if the browser blocks it.
async fn fetch(browser: &WebDriver, url: &str, header: &str) -> WebDriverResult<u64> {
    let script = "return fetch(arguments[0], { headers: { [arguments[1]]: 'a' } })
        .then(answer => answer.status, () => 0)";
    let status = browser.execute(script, vec![json!(url), json!(header)]).await?;
    Ok(status.json().as_u64().unwrap())
}

async fn check_page(app: &App, browser: &WebDriver, page: &str, is_allowed: bool) -> WebDriverResult<()> {
    browser.goto(page).await?;
    click(browser, &format!("{OPERATION} .opblock-summary-control")).await?;
    click(browser, &format!("{OPERATION} .authorization__btn")).await?;
    fill(browser, "#oauth_username", "ada@example.org").await?;
    fill(browser, "#oauth_password", PASSWORD).await?;
    click(browser, SIGN_IN).await?;
    if is_allowed {
        find(browser, SIGN_OUT).await?;
        click(browser, ".modal-ux .btn-done").await?;
        click(browser, &format!("{OPERATION} .execute")).await?;
        let answer = format!("{OPERATION} .live-responses-table .response");
        let status = find(browser, &format!("{answer} .response-col_status")).await?.text().await?;
        let body = find(browser, &format!("{answer} .highlight-code")).await?.text().await?;
        assert!(status == "200" && body.contains("Adaline"), "{status}: {body}");
    } else {
        let error = find(browser, ".modal-ux .errors").await?.text().await?;
        assert!(error.contains("Failed to fetch"), "{error}");
    }
    let sent = ["token", "x-requested-with", "traceparent", "tracestate", "baggage", "sentry-trace"];
    for (header, is_listed) in sent.map(|header| (header, true)).into_iter().chain([("x-unknown", false)]) {
        let status = fetch(browser, &app.url("/health/live"), header).await?;
        assert_eq!(status, if is_allowed && is_listed { 200 } else { 0 }, "{header}");
    }
    Ok(())
}

#[tokio::test]
async fn swagger_ui_of_another_origin_signs_in_if_the_settings_list_the_origin() {
    let Some(driver) = Driver::start() else { return };
    for (profile, is_allowed) in [(Profile::Fastapi, true), (Profile::Rfc, true), (Profile::Fastapi, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let app = App::start_with(Backend::Sqlite, profile, |settings| {
            let origins = if is_allowed { json!([origin]) } else { json!([]) };
            settings.http.cors_origins = serde_json::from_value(origins).unwrap();
        });
        let app = app.await.unwrap();
        app.register("ada@example.org").await;
        let service = tokio::spawn(serve(listener, document(&app.url(""))));
        let home = tempfile::TempDir::new().unwrap();
        let browser = driver.open(home.path()).await;
        let outcome = check_page(&app, &browser, &format!("{origin}/"), is_allowed).await;
        if let Err(error) = &outcome {
            let picture = std::env::temp_dir().join("latchkey-cors-browser.png");
            let _ = browser.screenshot(&picture).await;
            eprintln!("{error}; see {}", picture.display());
        }
        browser.quit().await.unwrap();
        service.abort();
        outcome.unwrap();
    }
}
