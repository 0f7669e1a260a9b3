//! Taking a port: alone, or not at all. SO_REUSEPORT would let a second node take the same port
//! and half of its connections, without a word.

use crate::config::Address;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;
/// How long a port may be taken by a process that has just ended.
const TAKEN_TIME: Duration = Duration::from_secs(3);
/// Between two tries.
const TAKEN_PAUSE: Duration = Duration::from_millis(50);

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
/// SO_REUSEADDR only: a restart may follow at once, a second process may not. What a process that
/// was killed had in its rings the kernel gives back a little later, its listening sockets among
/// it: so a port that is taken is tried again for three seconds.
pub fn bind(port: &'static str, address: &Address) -> Result<TcpListener, BindError> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { port, address: address.clone() },
        io::ErrorKind::AddrNotAvailable => BindError::NotHere { port, address: address.clone() },
        _ => BindError::Refused { port, address: address.clone(), error },
    };
    let resolved = address.resolve().map_err(refused)?;
    let first =
        resolved.first().ok_or_else(|| BindError::NotHere { port, address: address.clone() })?;
    let mut tries = TAKEN_TIME.as_millis() / TAKEN_PAUSE.as_millis();
    let waits = || {
        std::thread::sleep(TAKEN_PAUSE);
        tries = tries.saturating_sub(1);
        tries > 0
    };
    bind_when_free(*first, waits).map_err(refused)
}

/// As long as the port is taken and `waits` says that there is time.
fn bind_when_free(address: SocketAddr, mut waits: impl FnMut() -> bool) -> io::Result<TcpListener> {
    loop {
        match bind_to(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && waits() => {}
            done => return done,
        }
    }
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

    /// A port that comes free while it is waited for is had; one that doesn't is refused.
    #[test]
    fn a_port_that_comes_free_is_taken() {
        let holder = TcpListener::bind("127.0.0.1:0").expect("any port");
        let address = holder.local_addr().expect("bound");
        let error = bind_when_free(address, || false).expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let (mut holder, mut waited) = (Some(holder), 0);
        let waits = || {
            waited += 1;
            if waited == 3 {
                holder = None;
            }
            true
        };
        let bound = bind_when_free(address, waits).expect("it is free in the end");
        assert_eq!((bound.local_addr().expect("bound"), waited), (address, 3));
    }
}
