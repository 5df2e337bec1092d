//! Responses to bytes that do not become a request. actix-http returns 400 (malformed request) and 431 (head too large)
//! without headers and body, so they are completed when they are written. The connection detects a slow head (408).

use std::time::{Duration, UNIX_EPOCH};

use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;

use crate::clock::time_of_day;
use crate::http::request::request_id::RequestId;
use crate::http::transport::edge::finish;
use crate::http::wire::problem;

/// The longest early response of actix-http, in bytes.
const MAX_LENGTH: usize = 160;
/// The header after the status line of each of them.
const EMPTY_BODY: &str = "content-length: 0";
/// The headers that they can have.
const HEADERS: [&str; 3] = ["content-length", "connection", "date"];

/// The position in the written bytes at which an early response begins, if they end with one.
pub fn find(written: &[u8]) -> Option<usize> {
    if !written.ends_with(b" GMT\r\n\r\n") {
        return None;
    }
    let from = written.len().saturating_sub(MAX_LENGTH);
    let end = written.get(from..)?;
    let at = end.windows(7).rposition(|bytes| bytes == b"HTTP/1.")?;
    status(end.get(at..)?).map(|_| from + at)
}

/// The status of an early response; `None` for all other responses, which have more headers, or a body.
fn status(head: &[u8]) -> Option<StatusCode> {
    let mut lines = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse::<StatusCode>().ok()?;
    let is_expected = |line: &str| line.split_once(": ").is_some_and(|(name, _)| HEADERS.contains(&name));
    (lines.next()? == EMPTY_BODY && lines.all(is_expected) && status.as_u16() >= 400).then_some(status)
}

/// The complete response that is written instead.
pub struct EarlyResponse {
    bytes: Vec<u8>,
    written: usize,
}

impl EarlyResponse {
    /// The replacement for the early response `written`; `None` if `written` is not one.
    pub fn replacing(written: &[u8], is_secure: bool) -> Option<Self> {
        let status = (find(written)? == 0).then(|| status(written))??;
        Some(Self::new(status, is_secure))
    }

    /// A response after which the connection closes.
    pub fn new(status: StatusCode, is_secure: bool) -> Self {
        let id = RequestId::random();
        let mut response = problem::early_response(status, &id);
        finish(response.headers_mut(), &id, is_secure);
        let reason = status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\nconnection: close\r\n", status.as_str()).into_bytes();
        for (name, value) in response.headers() {
            bytes.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let now = Duration::from_micros(u64::try_from(time_of_day()).unwrap_or_default());
        let date = HttpDate::from(UNIX_EPOCH + now);
        let body = response.into_body().try_into_bytes().unwrap_or_default();
        bytes.extend_from_slice(format!("date: {date}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        Self { bytes, written: 0 }
    }

    /// The bytes that are not written yet.
    pub fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Records that `written` more bytes have been written.
    pub fn advance(&mut self, written: usize) {
        self.written += written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "date: Wed, 25 Nov 2026 20:53:57 GMT\r\n\r\n";

    #[test]
    fn only_a_response_without_headers_is_completed() {
        let early = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n{DATE}");
        let before = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(find(early.as_bytes()), Some(0));
        assert_eq!(find(&[before, early.as_bytes()].concat()), Some(before.len()));
        for other in [
            format!("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n{DATE}"),
            format!("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-request-id: a\r\n{DATE}"),
            format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nremote-name: HTTP/1.1 400 Bad Request\r\n{DATE}"),
            early.replace("\r\n\r\n", "\r\n"),
        ] {
            assert_eq!(find(other.as_bytes()), None, "{other}");
        }
        let mut response = EarlyResponse::replacing(early.as_bytes(), false).unwrap();
        let text = String::from_utf8(response.unwritten().to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"), "{head}");
        for header in ["x-request-id: ", "cache-control: no-store", "x-frame-options: DENY", "date: "] {
            assert!(head.contains(&format!("\r\n{header}")), "{header}: {head}");
        }
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "malformed_request");
        // A socket can accept a part of the bytes.
        for written in [3, 5] {
            response.advance(written);
        }
        assert_eq!(response.unwritten(), &text.as_bytes()[8..]);
    }
}
