//! An HTTP client that measures response times.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::app::{PASSWORD, registration};
use crate::support::program::Serving;

/// Maximum response time while the database is unavailable: two seconds, and a margin for a busy machine, on which
/// hashes and the client itself also take time.
const MAX_RESPONSE_TIME: Duration = Duration::from_millis(2_500);
/// The same for a request whose commit has started. The server waits two seconds longer for its outcome.
const MAX_COMMIT_TIME: Duration = Duration::from_millis(4_500);
/// Maximum time until all requests succeed after an outage: two seconds, and a margin for a busy machine.
pub const RECOVERY: Duration = Duration::from_millis(2_500);

/// Pause between two attempts, so that retries do not themselves load the machine.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

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
    /// Null if the body is not JSON.
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

    /// The response to a request without a body, which is repeated as [`until_available`] does.
    pub async fn available(&self, method: &str, path: &str, token: &str) -> Answer {
        until_available(|| self.request(method, path, token, None)).await
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

    /// The token of a new user. A request whose response is 503 was not carried out, and is repeated.
    pub async fn new_user(&self, email: &str) -> String {
        let registered = until_available(|| self.register(email)).await;
        assert_eq!(registered.status, 201, "{registered:?}");
        self.new_token(email).await
    }

    /// A new token of a user.
    pub async fn new_token(&self, email: &str) -> String {
        until_available(|| self.sign_in(email)).await.text("access_token")
    }

    pub async fn write_page(&self, token: &str, title: &str) -> Option<Answer> {
        self.request("POST", "/page/", token, Some(json!({ "title": title, "body": "text" }))).await
    }

    pub async fn create_key(&self, token: &str) -> Option<Answer> {
        self.request("POST", "/me/keys", token, Some(json!({ "name": "a key", "scopes": [] }))).await
    }
}

/// Repeats a request while its response is 503, for up to [`RECOVERY`]: right after a failure, and on a busy machine, a
/// single request may find no connection to the database. Returns the last response.
pub async fn until_available<R: Future<Output = Option<Answer>>>(send: impl Fn() -> R) -> Answer {
    let began = Instant::now();
    loop {
        let answer = send().await.expect("the server runs and responds");
        if answer.status != 503 || began.elapsed() > RECOVERY {
            return answer;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl Answer {
    pub fn number(&self, member: &str) -> u64 {
        self.body[member].as_u64().unwrap_or_else(|| panic!("{member} in {self:?}"))
    }

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
