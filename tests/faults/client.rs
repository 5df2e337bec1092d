//! An HTTP client that measures response times.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::app::{PASSWORD, registration};
use crate::support::program::Serving;

/// Maximum response time while the database is unavailable: two seconds, and a margin for a busy machine.
const MAX_RESPONSE_TIME: Duration = Duration::from_millis(2_500);
/// The same for a request whose commit has started. The server waits two seconds longer for its outcome.
const MAX_COMMIT_TIME: Duration = Duration::from_millis(4_500);
/// Maximum time until all requests succeed after an outage: two seconds, and a margin for a busy machine.
pub const RECOVERY: Duration = Duration::from_millis(2_500);

pub struct Client {
    http: reqwest::Client,
    url: String,
}

#[derive(Debug)]
pub struct Answer {
    /// Path of the request.
    pub path: String,
    pub status: u16,
    pub retry_after: bool,
    pub body: Value,
    pub took: Duration,
}

impl Client {
    pub fn of(serving: &Serving) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, url: format!("http://{}", serving.address()) }
    }

    /// Sends a request; `None` if the server dies before it has responded.
    pub async fn request(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Option<Answer> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.header("Token", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Self::send(request).await
    }

    pub async fn sign_in(&self, email: &str) -> Option<Answer> {
        let form = [("grant_type", "password"), ("username", email), ("password", PASSWORD)];
        Self::send(self.http.post(format!("{}/token", self.url)).form(&form)).await
    }

    async fn send(request: reqwest::RequestBuilder) -> Option<Answer> {
        let sent = Instant::now();
        let response = request.send().await.ok()?;
        let path = response.url().path().to_owned();
        let (status, retry_after) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
        let text = response.text().await.ok()?;
        Some(Answer {
            path,
            status,
            retry_after,
            body: serde_json::from_str(&text).unwrap_or_default(),
            took: sent.elapsed(),
        })
    }

    /// A new connection, on which nothing was sent.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub async fn register(&self, email: &str) -> Option<Answer> {
        self.request("POST", "/register", "", Some(registration(email))).await
    }

    /// The token of a new user.
    pub async fn new_user(&self, email: &str) -> String {
        let registered = self.register(email).await.unwrap();
        assert_eq!(registered.status, 201, "{registered:?}");
        self.sign_in(email).await.unwrap().text("access_token")
    }

    pub async fn write_page(&self, token: &str, title: &str) -> Option<Answer> {
        self.request("POST", "/page/", token, Some(json!({ "title": title, "body": "text" }))).await
    }

    pub async fn create_key(&self, token: &str) -> Option<Answer> {
        self.request("POST", "/me/keys", token, Some(json!({ "name": "a key", "scopes": [] }))).await
    }
}

impl Answer {
    pub fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("{member} in {self:?}")).to_owned()
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Checks that this response is allowed while the database is unavailable: success, 503 with `Retry-After` (not
    /// carried out), or 504 without it (unknown outcome), each in time. Returns whether it is a success.
    pub fn assert_graceful(&self, about: &str) -> bool {
        let limit = if self.status == 503 { MAX_RESPONSE_TIME } else { MAX_COMMIT_TIME };
        assert!(self.took <= limit, "{about}, {}: {self:?}", self.path);
        let is_unavailable = self.status == 503 && self.retry_after || self.status == 504 && !self.retry_after;
        assert!(self.is_success() || is_unavailable, "{about}: {self:?}");
        self.is_success()
    }
}
