//! Listening addresses.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `host:port` or `unix:/path`, as on the gate's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addr {
    Tcp(SocketAddr),
    /// TCP with TLS on it.
    Tls(SocketAddr),
    Unix(PathBuf),
}

impl Addr {
    /// Reads an address, also with `http://` or `https://` before it.
    pub fn parse(text: &str) -> Option<Addr> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(Addr::Unix(path.into()));
        }
        if let Some(tls) = text.strip_prefix("https://") {
            return tls.trim_end_matches('/').parse().ok().map(Addr::Tls);
        }
        let bare = text.strip_prefix("http://");
        bare.unwrap_or(text).trim_end_matches('/').parse().ok().map(Addr::Tcp)
    }

    /// The URL of a path (with its leading slash); only TCP has one.
    pub fn url(&self, path: &str) -> String {
        match self {
            Addr::Tcp(addr) => format!("http://{addr}{path}"),
            Addr::Tls(addr) => format!("https://{addr}{path}"),
            Addr::Unix(_) => panic!("{self} has no URL"),
        }
    }

    /// Value of a client's `Host` header.
    pub fn host(&self) -> String {
        match self {
            Addr::Tcp(addr) | Addr::Tls(addr) => addr.to_string(),
            Addr::Unix(_) => "localhost".into(),
        }
    }

    /// The port; panics for a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Addr::Tcp(addr) | Addr::Tls(addr) => addr.port(),
            Addr::Unix(_) => panic!("{self} has no port"),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(addr) | Addr::Tls(addr) => addr.fmt(f),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
