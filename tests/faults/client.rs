//! A client that notes how long everything takes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::app::{PASSWORD, registration};
use crate::support::program::Serving;

/// How long an answer may take while the database is in trouble: two seconds, and room for a busy machine.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// The same if its commit had begun in time, and its outcome is waited for two seconds longer.
const COMMIT_PATIENCE: Duration = Duration::from_millis(4_500);
/// How long after the trouble everything works again: two seconds, and room for a busy machine.
pub const RECOVERY: Duration = Duration::from_millis(2_500);

pub struct Client {
    http: reqwest::Client,
    url: String,
}

#[derive(Debug)]
pub struct Answer {
    /// Where to it was asked.
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

    /// Nothing if the program dies over it.
    pub async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Option<Answer> {
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
        let asked = Instant::now();
        let response = request.send().await.ok()?;
        let path = response.url().path().to_owned();
        let (status, retry_after) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
        let text = response.text().await.ok()?;
        Some(Answer {
            path,
            status,
            retry_after,
            body: serde_json::from_str(&text).unwrap_or_default(),
            took: asked.elapsed(),
        })
    }

    /// A connection of its own, on which nothing has been said.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub async fn register(&self, email: &str) -> Option<Answer> {
        self.ask("POST", "/register", "", Some(registration(email))).await
    }

    /// The token of a new user.
    pub async fn new_user(&self, email: &str) -> String {
        let registered = self.register(email).await.unwrap();
        assert_eq!(registered.status, 201, "{registered:?}");
        self.sign_in(email).await.unwrap().text("access_token")
    }

    pub async fn write_page(&self, token: &str, title: &str) -> Option<Answer> {
        self.ask("POST", "/page/", token, Some(json!({ "title": title, "body": "text" }))).await
    }

    pub async fn make_key(&self, token: &str) -> Option<Answer> {
        self.ask("POST", "/me/keys", token, Some(json!({ "name": "a key", "scopes": [] }))).await
    }
}

impl Answer {
    pub fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("{member} in {self:?}")).to_owned()
    }

    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Checks that this is what clients may be told while the database is in trouble: that it was done, that it was not
    /// and to come back, or that nobody knows; and in time. Whether it was done.
    pub fn is_fair(&self, about: &str) -> bool {
        let patience = if self.status == 503 { PATIENCE } else { COMMIT_PATIENCE };
        assert!(self.took <= patience, "{about}, {}: {self:?}", self.path);
        let is_told = self.status == 503 && self.retry_after || self.status == 504 && !self.retry_after;
        assert!(self.is_good() || is_told, "{about}: {self:?}");
        self.is_good()
    }
}
