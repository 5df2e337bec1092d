//! The command `latchkey health`, a readiness check for containers without curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Outcome;
use crate::config::Settings;
use crate::tls;

/// Time-out for the connection, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of bytes to read of the response.
const RESPONSE_MAX: u64 = 64 * 1024;
const PATH: &str = "/health/ready";

pub(super) fn check(settings: &Settings) -> Outcome {
    let address = reachable_address(settings.server.listen);
    let scheme = if settings.tls.is_on() { "https" } else { "http" };
    let failed = |reason: String| -> Outcome { Err(format!("{scheme}://{address}{PATH}: {reason}").into()) };
    let source = settings.places.of("server.listen").map_or("the default".to_owned(), |source| source.to_string());
    if address.port() == 0 {
        return failed(format!(
            "port 0 cannot be checked. Set the port of the running server: server.listen ({source})."
        ));
    }
    let response = match connect(settings, address) {
        Ok(response) => response,
        Err(error) => {
            return failed(format!("{error}. Is the server running? The address is server.listen ({source})."));
        }
    };
    let status = response.lines().next().unwrap_or_default();
    match status.strip_prefix("HTTP/1.1 ") {
        Some(status) if status.starts_with("200 ") => super::print("ready\n"),
        Some(status) => failed(format!("not ready: {status}")),
        None if response.is_empty() => failed("no response".to_owned()),
        None => failed(format!("the response is not HTTP. Does the server use {scheme}?")),
    }
}

fn connect(settings: &Settings, address: SocketAddr) -> Result<String, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(match settings.tls.is_on() {
        true => exchange(tls::connect_pinned(&settings.tls, stream)?)?,
        false => exchange(stream)?,
    })
}

fn exchange(mut stream: impl Read + Write) -> std::io::Result<String> {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.take(RESPONSE_MAX).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Replaces the unspecified address, such as `0.0.0.0`, by the loopback address.
fn reachable_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}
