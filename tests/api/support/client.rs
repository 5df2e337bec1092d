//! Requests and answers.

use reqwest::header::HeaderMap;
use serde_json::Value;

#[derive(Clone, Debug)]
pub enum Credential {
    None,
    Token(String),
    Bearer(String),
}

impl Credential {
    /// The token or key itself; empty if there is none.
    pub fn secret(&self) -> &str {
        match self {
            Self::None => "",
            Self::Token(secret) | Self::Bearer(secret) => secret,
        }
    }
}

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
        }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value.as_bytes()))
    }

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

    pub fn bare_body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub async fn send(self) -> Answer {
        let response = self.0.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// `Null` unless the body is JSON.
    pub body: Value,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A member of the body that is text.
    pub fn text_of(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("{member} in {self:?}")).to_owned()
    }

    /// Checks that this is an error with this status, in the shape that DESIGN gives to its path.
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

    /// The names of the fields that a 422 complains about, in order.
    pub fn bad_fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut fields: Vec<&str> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        fields.sort_unstable();
        fields
    }

    /// The names of the members of the body, in order.
    pub fn members(&self) -> Vec<&str> {
        let mut members: Vec<&str> = self.body.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        members
    }
}
