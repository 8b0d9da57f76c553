//! Addresses as people write them. Resolves no names, except where it says so.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An address to listen on: `127.0.0.1:7001`, `[::1]:7001`, `localhost:7001`, or only a port, which
/// leaves the address to what is around it. Not port 0: others derive theirs from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    ip: Option<IpAddr>,
    pub(crate) port: u16,
}

/// Somewhere else, `host:port`; the host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote(String);

/// The host that others reach this node at: an address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(String);

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    #[error("expected IP:PORT, such as 127.0.0.1:7001, or a port from 1 to 65535")]
    Endpoint,
    #[error("expected HOST:PORT, such as 10.0.0.5:16379")]
    Remote,
    #[error("expected an address or a name, without a port")]
    Host,
}

impl Endpoint {
    pub(crate) const fn local(port: u16) -> Self {
        Self { ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port }
    }

    /// The address, on `ip` unless it names one itself.
    pub(crate) fn on(self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(ip), self.port)
    }

    /// The address, on this machine unless it names another.
    pub(crate) fn socket(self) -> SocketAddr {
        self.on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let endpoint = if let Ok(port) = text.parse() {
            Self { ip: None, port }
        } else if let Some(port) = text.strip_prefix("localhost:") {
            Self::local(port.parse().map_err(|_| AddressError::Endpoint)?)
        } else {
            let address: SocketAddr = text.parse().map_err(|_| AddressError::Endpoint)?;
            Self { ip: Some(address.ip()), port: address.port() }
        };
        if endpoint.port == 0 { Err(AddressError::Endpoint) } else { Ok(endpoint) }
    }
}

impl Remote {
    /// As it was written.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl FromStr for Remote {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Remote)?;
        let named = is_name(host);
        let bracketed =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(is_ipv6);
        match port.parse::<u16>() {
            Ok(1..) if named || bracketed => Ok(Self(text.to_owned())),
            _ => Err(AddressError::Remote),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Host {
    /// Asks the system's resolver; an address of the family of `like` if there is one.
    pub(crate) fn resolve(&self, like: IpAddr) -> std::io::Result<Option<IpAddr>> {
        if let Ok(ip) = self.0.parse() {
            return Ok(Some(ip));
        }
        let mut found: Vec<IpAddr> =
            (self.0.as_str(), 0).to_socket_addrs()?.map(|a| a.ip()).collect();
        found.sort_by_key(|ip| ip.is_ipv4() != like.is_ipv4());
        Ok(found.first().copied())
    }
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if is_name(text) || is_ipv6(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AddressError::Host)
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name or an IPv4 address, going by its letters alone.
fn is_name(host: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.chars().all(letter)
}

fn is_ipv6(host: &str) -> bool {
    host.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_listens_where_the_others_do() {
        let inner = IpAddr::from([10, 0, 0, 5]);
        let check = |text: &str, on: &str| {
            assert_eq!(text.parse::<Endpoint>().unwrap().on(inner), on.parse().unwrap(), "{text}");
        };
        check("7001", "10.0.0.5:7001");
        check("127.0.0.1:7001", "127.0.0.1:7001");
        check("localhost:7001", "127.0.0.1:7001");
        check("[::1]:7001", "[::1]:7001");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in ["", "0", "70000", "127.0.0.1", "127.0.0.1:0", "example.com:80", ":80"] {
            assert_eq!(text.parse::<Endpoint>(), Err(AddressError::Endpoint), "{text}");
        }
    }

    #[test]
    fn a_remote_may_be_named() {
        for text in ["10.0.0.5:16379", "cache-1.internal:16379", "[fe80::1]:16379"] {
            assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
        }
        for text in ["", "host", "host:", ":1", "host:0", "host:99999", "fe80::1:1", "a b:1"] {
            assert_eq!(text.parse::<Remote>(), Err(AddressError::Remote), "{text}");
        }
    }

    #[test]
    fn an_advertised_host_has_no_port() {
        let like = IpAddr::from([127, 0, 0, 1]);
        let resolved = |text: &str| text.parse::<Host>().unwrap().resolve(like).unwrap();
        assert_eq!(resolved("10.0.0.5"), Some(IpAddr::from([10, 0, 0, 5])));
        assert_eq!(resolved("::1"), Some("::1".parse().unwrap()));
        assert!("10.0.0.5:1".parse::<Host>().is_err());
    }
}
