//! The listening sockets, bound or inherited before anything is built, so that an address that is
//! taken stops the start.

use super::AppError;
use super::upgrade::Inherited;
use crate::config::Config;
use crate::protocol::address::Address;
use crate::server::net::listener::{Bound, Shared};
use crate::server::net::socket_file::SocketFile;

/// Every user may connect to a unix socket of the public side, only the group to an internal one.
pub(super) const PUBLIC_MODE: u32 = 0o666;
const INTERNAL_MODE: u32 = 0o660;

pub(super) struct Listeners {
    pub(super) public: Vec<Bound>,
    /// Those that redirect plain HTTP to HTTPS.
    pub(super) redirect: Vec<Bound>,
    pub(super) internal: Vec<Bound>,
}

/// The addresses of the listeners, with the ports that the kernel chose.
pub struct Addresses {
    /// Of the public side.
    pub public: Vec<Address>,
    /// Those that redirect plain HTTP to HTTPS.
    pub redirect: Vec<Address>,
    /// Of the internal side.
    pub internal: Vec<Address>,
}

impl Listeners {
    /// Binds the addresses of `config`, and takes those over that a running gate hands on.
    pub(super) fn bind(config: &Config, inherited: &mut Inherited) -> Result<Self, AppError> {
        let public = inherited.bind(&config.listen, PUBLIC_MODE)?;
        let internal = inherited.bind(&config.internal, INTERNAL_MODE)?;
        let plain = config.tls.iter().flat_map(|tls| tls.redirect.clone());
        let redirect = inherited.bind(&plain.collect::<Vec<_>>(), PUBLIC_MODE)?;
        Ok(Self { public, redirect, internal })
    }

    pub(super) fn addresses(&self) -> Addresses {
        let of = |bound: &[Bound]| bound.iter().map(|bound| bound.address.clone()).collect();
        Addresses {
            public: of(&self.public),
            redirect: of(&self.redirect),
            internal: of(&self.internal),
        }
    }

    /// The sockets, for the process that takes over.
    pub(super) fn shared(&self) -> Vec<Shared> {
        let bound = self.public.iter().chain(&self.internal).chain(&self.redirect);
        bound.map(Bound::share).collect()
    }
}

impl Addresses {
    /// The files of the public unix sockets.
    pub(super) fn public_files(&self) -> Vec<SocketFile> {
        self.public.iter().chain(&self.redirect).filter_map(SocketFile::at).collect()
    }

    /// The files of the internal unix sockets.
    pub(super) fn internal_files(&self) -> Vec<SocketFile> {
        self.internal.iter().filter_map(SocketFile::at).collect()
    }
}
