//! Name resolution.

use crate::protocol::address::Address;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The socket addresses behind a TCP address, in the system's order; empty for a unix socket.
/// A name is looked up now, which may block the thread.
pub fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match address {
        Address::Tcp { host, port } => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
        Address::Unix(_) => Ok(Vec::new()),
    }
}
