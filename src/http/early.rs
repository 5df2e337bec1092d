//! Answers before there is a request. actix-http makes those to what is no request (400) and to a head that is too large
//! (431) without headers or body, so they are completed where they are written. A slow head (408) is for the connection
//! to notice.

use std::time::{Duration, UNIX_EPOCH};

use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;

use super::edge::{RequestId, finish};
use super::problem;
use crate::clock::time_of_day;

/// The longest such answer, in bytes.
const LONGEST: usize = 160;
/// How each of them goes on after its status.
const EMPTY: &str = "content-length: 0";
/// The headers that they may have.
const KNOWN: [&str; 3] = ["content-length", "connection", "date"];

/// Where in what is written such an answer begins. It is always the last.
pub fn find(written: &[u8]) -> Option<usize> {
    if !written.ends_with(b" GMT\r\n\r\n") {
        return None;
    }
    let from = written.len().saturating_sub(LONGEST);
    let end = written.get(from..)?;
    let at = end.windows(7).rposition(|bytes| bytes == b"HTTP/1.")?;
    status(end.get(at..)?).map(|_| from + at)
}

/// The status of such an answer. All others have more headers, if they have no body.
fn status(head: &[u8]) -> Option<StatusCode> {
    let mut lines = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse::<StatusCode>().ok()?;
    let is_known = |line: &str| line.split_once(": ").is_some_and(|(name, _)| KNOWN.contains(&name));
    (lines.next()? == EMPTY && lines.all(is_known) && status.as_u16() >= 400).then_some(status)
}

/// What is written instead.
pub struct Answer {
    bytes: Vec<u8>,
    written: usize,
}

impl Answer {
    /// The whole answer for an empty one, which `written` must be.
    pub fn instead_of(written: &[u8], is_secure: bool) -> Option<Self> {
        let status = (find(written)? == 0).then(|| status(written))??;
        Some(Self::new(status, is_secure))
    }

    /// The last answer on a connection.
    pub fn new(status: StatusCode, is_secure: bool) -> Self {
        let id = RequestId::random();
        let mut answer = problem::early(status, &id);
        finish(answer.headers_mut(), &id, is_secure);
        let reason = status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\nconnection: close\r\n", status.as_str()).into_bytes();
        for (name, value) in answer.headers() {
            bytes.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let now = Duration::from_micros(u64::try_from(time_of_day()).unwrap_or_default());
        let date = HttpDate::from(UNIX_EPOCH + now);
        let body = answer.into_body().try_into_bytes().unwrap_or_default();
        bytes.extend_from_slice(format!("date: {date}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        Self { bytes, written: 0 }
    }

    /// What is not written yet.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Takes note of what has been written.
    pub fn advance(&mut self, written: usize) {
        self.written += written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "date: Wed, 25 Nov 2026 20:53:57 GMT\r\n\r\n";

    #[test]
    fn an_answer_without_headers_is_completed_and_no_other() {
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
        let mut answer = Answer::instead_of(early.as_bytes(), false).unwrap();
        let text = String::from_utf8(answer.rest().to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"), "{head}");
        for header in ["x-request-id: ", "cache-control: no-store", "x-frame-options: DENY", "date: "] {
            assert!(head.contains(&format!("\r\n{header}")), "{header}: {head}");
        }
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "malformed_request");
        // A socket takes as much as it has room for.
        for written in [3, 5] {
            answer.advance(written);
        }
        assert_eq!(answer.rest(), &text.as_bytes()[8..]);
    }
}
