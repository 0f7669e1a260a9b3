//! The little HTTP that commands need of a node: one request, one answer, one connection.

use super::Global;
use crate::config::Address;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The longest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How far a node's HTTP port is from its client port, unless its file says otherwise.
const HTTP_PORT_OFFSET: u16 = 2;

/// The status and body of an answer.
pub(crate) fn ask(
    address: &Address,
    method: &str,
    path: &str,
    body: &str,
    timeout: Duration,
) -> io::Result<(u16, String)> {
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let resolved = *address.resolve()?.first().ok_or_else(nowhere)?;
    let mut socket = TcpStream::connect_timeout(&resolved, timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(nonsense)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(nonsense)?, body.to_owned()))
}

/// Where nodes serve HTTP: as named, else beside their client ports, as `ringraft init` puts it.
pub(crate) fn of_nodes(named: &[Address], global: &Global) -> Vec<Address> {
    if !named.is_empty() {
        return named.to_vec();
    }
    global.endpoints.iter().filter_map(|client| client.port_plus(HTTP_PORT_OFFSET)).collect()
}
