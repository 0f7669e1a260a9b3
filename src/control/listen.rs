//! Taking a port: alone, or not at all. SO_REUSEPORT would let a second node take the same port
//! and half of its connections, without a word.

use crate::config::Address;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;

/// Why a port can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has it.
    #[error(
        "{port} port {address} is taken: another process listens on it (`ss -ltnp 'sport = :{number}'` \
         names it)",
        number = .address.port
    )]
    Taken {
        /// What the port is for.
        port: &'static str,
        /// The address.
        address: Address,
    },
    /// The host is not one of this machine, or has no address.
    #[error("{port} address {address} is not one of this machine's: set listen.{port}")]
    NotHere {
        /// What the port is for.
        port: &'static str,
        /// The address.
        address: Address,
    },
    /// Anything else.
    #[error("{port} port {address} can't be listened on: {error}")]
    Refused {
        /// What the port is for.
        port: &'static str,
        /// The address.
        address: Address,
        /// What the kernel says.
        error: io::Error,
    },
}

/// Listens on an address, non-blocking. `port` names what it is for: peer, client or http.
///
/// SO_REUSEADDR only: a restart may follow at once, a second process may not.
pub fn bind(port: &'static str, address: &Address) -> Result<TcpListener, BindError> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { port, address: address.clone() },
        io::ErrorKind::AddrNotAvailable => BindError::NotHere { port, address: address.clone() },
        _ => BindError::Refused { port, address: address.clone(), error },
    };
    let resolved = address.resolve().map_err(refused)?;
    let first =
        resolved.first().ok_or_else(|| BindError::NotHere { port, address: address.clone() })?;
    bind_to(*first).map_err(refused)
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // One address means one address: IPv4 has its own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a taken port is named, and is not shared.
    #[test]
    fn a_taken_port_is_named() {
        let held = bind_to("127.0.0.1:0".parse().expect("address")).expect("bind");
        let port = held.local_addr().expect("address").port();
        let address = Address { host: "127.0.0.1".into(), port };
        let error = bind("client", &address).expect_err("taken");
        assert!(matches!(error, BindError::Taken { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("client port 127.0.0.1:{port} is taken")));
    }

    /// Goal: another machine's address is named with the setting to change.
    #[test]
    fn a_foreign_address_is_named() {
        let address = Address { host: "192.0.2.1".into(), port: 7400 };
        let error = bind("peer", &address).expect_err("not here").to_string();
        assert!(error.contains("192.0.2.1:7400") && error.contains("listen.peer"), "{error}");
    }
}
