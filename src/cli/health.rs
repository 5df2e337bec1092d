//! `latchkey health`: for a container without curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Outcome;
use crate::config::Settings;
use crate::tls;

/// How long to wait for a connection, and for each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most that is read of the answer, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;
const PATH: &str = "/health/ready";

pub(super) fn ask(settings: &Settings) -> Outcome {
    let address = reachable(settings.server.listen);
    let scheme = if settings.tls.is_on() { "https" } else { "http" };
    let failed = |reason: String| -> Outcome { Err(format!("{scheme}://{address}{PATH}: {reason}").into()) };
    let place = settings.places.of("server.listen").map_or("the default".to_owned(), |place| place.to_string());
    if address.port() == 0 {
        return failed(format!("port 0 is no address to ask. Set the server's own port: server.listen ({place})."));
    }
    let answer = match connect(settings, address) {
        Ok(answer) => answer,
        Err(error) => {
            return failed(format!("{error}. Is the server running? The address is server.listen ({place})."));
        }
    };
    let status = answer.lines().next().unwrap_or_default();
    match status.strip_prefix("HTTP/1.1 ") {
        Some(status) if status.starts_with("200 ") => super::print("ready\n"),
        Some(status) => failed(format!("not ready: {status}")),
        None if answer.is_empty() => failed("no answer".to_owned()),
        None => failed(format!("no answer in HTTP. Does the server speak {scheme}?")),
    }
}

fn connect(settings: &Settings, address: SocketAddr) -> Result<String, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(match settings.tls.is_on() {
        true => exchange(tls::connect_to_ours(&settings.tls, stream)?)?,
        false => exchange(stream)?,
    })
}

fn exchange(mut stream: impl Read + Write) -> std::io::Result<String> {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where to reach a server that listens everywhere.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}
