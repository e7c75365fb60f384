//! Addresses as users write them: `host:port`, `[::1]:port`, `unix:/path`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on or to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP address; the host is a name or an IP address, IPv6 without its brackets.
    Tcp {
        /// Host name or IP address.
        host: String,
        /// Port; 0 lets the system choose one.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// Error for a text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no address; write host:port, [::1]:port or unix:/path")]
pub struct AddressError(String);

impl Address {
    /// The TCP address of `socket`.
    pub fn tcp(socket: SocketAddr) -> Self {
        Self::Tcp { host: socket.ip().to_string(), port: socket.port() }
    }

    /// True if only this machine can reach it: loopback, `localhost` or a unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(error()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(error)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
            Some(_) => return Err(error()),
            None => host,
        };
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let valid = host.parse::<IpAddr>().is_ok() || !host.is_empty() && host.bytes().all(name);
        if !valid || host.contains(':') && !text.starts_with('[') {
            return Err(error());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_shown_alike() {
        for text in ["127.0.0.1:80", "[::1]:8080", "site.example:80", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "80",
            "host",
            "host:",
            ":80",
            "host:99999",
            "::1:80",
            "[::1]",
            "a b:1",
            "unix:rel",
            "host:+1",
            "http://a:1",
            "[a]:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_and_unix_are_local() {
        let local = |text: &str| text.parse::<Address>().is_ok_and(|a| a.is_local());
        assert!(
            local("127.0.0.9:1") && local("[::1]:1") && local("unix:/a") && local("localhost:1")
        );
        assert!(!local("0.0.0.0:1") && !local("10.0.0.1:1") && !local("a.example:1"));
    }
}
