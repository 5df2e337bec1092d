//! An HTTP client for tests: requests, and responses with assertions.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::database::Database;

/// The cookie of a session.
pub const SESSION_COOKIE: &str = "__Host-latchkey";
/// The password of all users that tests register.
pub const PASSWORD: &str = "correct horse battery staple";

/// The credential of a request: none, the `Token` header, `Authorization: Bearer`, or the cookie of a session with the
/// header that a browser adds for a page of the server.
#[derive(Clone, Debug)]
pub enum Credential {
    None,
    Token(String),
    Bearer(String),
    Session(String),
}

impl Credential {
    /// The token, key or secret of the session; empty without a credential.
    pub fn secret(&self) -> &str {
        match self {
            Self::None => "",
            Self::Token(secret) | Self::Bearer(secret) | Self::Session(secret) => secret,
        }
    }
}

/// A client of one server. It follows no redirects and uses no proxy.
pub struct Client {
    url: String,
    http: reqwest::Client,
    /// The URL of the database, if the test may write to it.
    database: Option<String>,
}

impl Client {
    /// A client of the server at `url`, such as `http://127.0.0.1:8080`.
    pub fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url: url.to_owned(), http, database: None }
    }

    /// States the URL of the database of the server.
    pub fn with_database(self, url: &str) -> Self {
        Self { database: Some(url.to_owned()), ..self }
    }

    /// The database of the server; `None` if the test may not write to it.
    pub fn database(&self) -> Option<Database> {
        self.database.as_deref().map(Database::at)
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.http.request(method.parse().unwrap(), self.url(path)))
    }

    pub async fn get(&self, path: &str, credential: &Credential) -> Answer {
        self.request("GET", path).credential(credential).send().await
    }

    pub async fn post(&self, path: &str, credential: &Credential, body: &Value) -> Answer {
        self.request("POST", path).credential(credential).json(body).send().await
    }

    pub async fn delete(&self, path: &str, credential: &Credential) -> Answer {
        self.request("DELETE", path).credential(credential).send().await
    }

    pub async fn patch(&self, path: &str, credential: &Credential, body: &Value) -> Answer {
        self.request("PATCH", path).credential(credential).json(body).send().await
    }

    pub async fn put(&self, path: &str, credential: &Credential, body: &Value) -> Answer {
        self.request("PUT", path).credential(credential).json(body).send().await
    }

    /// Signs in with `POST /session`, as a page of the server does.
    pub async fn begin_session(&self, email: &str, password: &str) -> Answer {
        let body = json!({ "email": email, "password": password });
        self.request("POST", "/session").header("Sec-Fetch-Site", "same-origin").json(&body).send().await
    }

    /// Signs in a registered user; returns the new session and its id.
    pub async fn session_of(&self, email: &str) -> (Credential, i64) {
        let signed_in = self.begin_session(email, PASSWORD).await;
        assert_eq!(signed_in.status, 201, "{signed_in:?}");
        (Credential::Session(signed_in.session_secret()), signed_in.body["id"].as_i64().unwrap())
    }

    /// Registers a user with [`PASSWORD`].
    pub async fn register(&self, email: &str) -> Answer {
        self.post("/register", &Credential::None, &registration(email)).await
    }

    /// Sends the password grant (`POST /token`).
    pub async fn sign_in(&self, email: &str, password: &str) -> Answer {
        let form = [("grant_type", "password"), ("username", email), ("password", password)];
        self.request("POST", "/token").form(&form).send().await
    }

    /// Registers a user and signs in; returns the access token.
    pub async fn token_of(&self, email: &str) -> String {
        let registered = self.register(email).await;
        assert_eq!(registered.status, 201, "{registered:?}");
        self.new_token_of(email).await
    }

    /// Signs in a registered user; returns the new access token.
    pub async fn new_token_of(&self, email: &str) -> String {
        let signed_in = self.sign_in(email, PASSWORD).await;
        assert_eq!(signed_in.status, 200, "{signed_in:?}");
        signed_in.body["access_token"].as_str().unwrap().to_owned()
    }

    /// Registers a user; returns their access token as a `Token` header.
    pub async fn user(&self, email: &str) -> Credential {
        Credential::Token(self.token_of(email).await)
    }

    /// Creates an API key of `owner`; returns it as a `Token` header, and its id.
    pub async fn key_of(&self, owner: &Credential, scopes: &[&str]) -> (Credential, i64) {
        let created = self.post("/me/keys", owner, &json!({ "name": "a key", "scopes": scopes })).await;
        assert_eq!(created.status, 201, "{created:?}");
        (Credential::Token(created.text_of("key")), created.body["id"].as_i64().unwrap())
    }
}

/// The body of a registration with [`PASSWORD`].
pub fn registration(email: &str) -> Value {
    json!({
        "name": "Adaline",
        "surname": "Lovelace",
        "email": email,
        "website": "https://example.org",
        "password": PASSWORD,
    })
}

/// A request that is not sent yet.
pub struct Request(reqwest::RequestBuilder);

impl Request {
    pub fn new(builder: reqwest::RequestBuilder) -> Self {
        Self(builder)
    }

    pub fn credential(self, credential: &Credential) -> Self {
        match credential {
            Credential::None => self,
            Credential::Token(token) => self.header("Token", token),
            Credential::Bearer(token) => self.header("Authorization", &format!("Bearer {token}")),
            Credential::Session(secret) => {
                self.header("Cookie", &format!("{SESSION_COOKIE}={secret}")).header("Sec-Fetch-Site", "same-origin")
            }
        }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value.as_bytes()))
    }

    /// Sets a header to bytes that need not be ASCII.
    pub fn raw_header(self, name: &str, value: &[u8]) -> Self {
        Self(self.0.header(name, value))
    }

    pub fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        Self(self.0.form(fields))
    }

    pub fn body(self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.header("Content-Type", content_type).body(body))
    }

    /// Sets a body without a `Content-Type`.
    pub fn bare_body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub async fn send(self) -> Answer {
        let response = self.0.send().await.expect("the server responds");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a complete body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }
}

/// A response, read to the end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// `Null` unless the body is JSON.
    pub body: Value,
}

impl Answer {
    /// The value of a header; empty if the header is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The secret in the session cookie that the response sets.
    pub fn session_secret(&self) -> String {
        let cookies: Vec<&str> = self.headers.get_all("set-cookie").iter().map(|text| text.to_str().unwrap()).collect();
        let [cookie] = cookies.as_slice() else { panic!("one cookie in {self:?}") };
        let value = cookie.strip_prefix(&format!("{SESSION_COOKIE}=")).unwrap_or_else(|| panic!("{self:?}"));
        value.split_once(';').unwrap().0.to_owned()
    }

    /// A string member of the JSON body.
    pub fn text_of(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("{member} in {self:?}")).to_owned()
    }

    /// Asserts an error with this status and code: problem details (RFC 9457), or an OAuth error (RFC 6749).
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        match self.header("content-type") {
            "application/problem+json" => {
                assert_eq!(self.body["status"], status, "{self:?}");
                assert_eq!(self.body["code"], code, "{self:?}");
                assert_eq!(self.body["request_id"], self.header("x-request-id"), "{self:?}");
                for member in ["type", "title", "detail"] {
                    assert!(self.body[member].is_string(), "{member} in {self:?}");
                }
            }
            "application/json" => {
                assert_eq!(self.body["error"], code, "{self:?}");
                for member in ["error_description", "detail"] {
                    assert!(self.body[member].is_string(), "{member} in {self:?}");
                }
            }
            other => panic!("an error of type {other:?}: {self:?}"),
        }
    }

    /// The names of the invalid fields of a 422 response, sorted.
    pub fn bad_fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut fields: Vec<&str> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        fields.sort_unstable();
        fields
    }

    /// The names of the members of the JSON body, sorted.
    pub fn members(&self) -> Vec<&str> {
        let mut members: Vec<&str> = self.body.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        members
    }
}
