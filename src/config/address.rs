//! A host and a port, as people write them: `10.0.0.1:7400`, `[::1]:7400`, `db-1.example:7400`.
//! Names stay names: they are resolved when they are used, and again after a connection is lost.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where something listens, or can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// An IP address (IPv6 without its brackets) or a name.
    pub host: String,
    /// The TCP port, never zero.
    pub port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No port, or not a number.
    #[error("{0:?} has no port: write HOST:PORT, as in 10.0.0.1:7400 or [::1]:7400")]
    NoPort(String),
    /// The port is zero or over 65535.
    #[error("{0:?} has a port outside 1 to 65535")]
    Port(String),
    /// An IPv6 address without brackets.
    #[error("{0:?} is ambiguous: put an IPv6 address in brackets, as in [::1]:7400")]
    Brackets(String),
    /// Nothing before the port, or a character that no host has.
    #[error("{0:?} has no valid host before its port")]
    Host(String),
}

impl Address {
    /// The same host at `offset` ports higher; `None` past 65535.
    pub fn port_plus(&self, offset: u16) -> Option<Self> {
        Some(Self { host: self.host.clone(), port: self.port.checked_add(offset)? })
    }

    /// The socket addresses that the host has at the moment: itself, or what the resolver says.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let whole = || text.to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(whole()))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) if inner.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => inner,
            Some(_) => return Err(AddressError::Host(whole())),
            None if host.contains(':') => return Err(AddressError::Brackets(whole())),
            None => host,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(AddressError::Host(whole()));
        }
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::NoPort(whole()));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self { host: host.to_owned(), port }),
            _ => Err(AddressError::Port(whole())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what people write is read, and shown again as they wrote it.
    #[test]
    fn addresses_read_and_show_alike() {
        for text in ["10.0.0.1:7400", "[::1]:7400", "db-1.example:1", "[fe80::1]:65535"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    /// Goal: what can't be meant is refused, each with its own reason.
    #[test]
    fn nonsense_is_refused() {
        let error = |text: &str| text.parse::<Address>().expect_err(text);
        assert!(matches!(error("localhost"), AddressError::NoPort(_)));
        assert!(matches!(error("localhost:"), AddressError::NoPort(_)));
        assert!(matches!(error("localhost:http"), AddressError::NoPort(_)));
        assert!(matches!(error("localhost:0"), AddressError::Port(_)));
        assert!(matches!(error("localhost:65536"), AddressError::Port(_)));
        assert!(matches!(error("::1:7400"), AddressError::Brackets(_)));
        assert!(matches!(error(":7400"), AddressError::Host(_)));
        assert!(matches!(error("[localhost]:7400"), AddressError::Host(_)));
        assert!(matches!(error("a b:7400"), AddressError::Host(_)));
    }
}
