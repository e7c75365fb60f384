//! The certificates of the public listener: which one a client is shown, and the hosts it names.

use crate::server::gate::sites::{ByHost, HostPattern, normalized};
use crate::server::net::certificate::Identity;
use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, OnceLock};

/// The certificates by host; a client that names none, or one that has none, is shown the default.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    by_host: ByHost<Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// One certificate for all hosts, if there is one.
    pub fn of(identity: Option<&Identity>) -> Self {
        Self { default: identity.map(Identity::certified), ..Self::default() }
    }

    /// Adds a site's certificate; `default` = it is also the one for other hosts.
    pub fn add(&mut self, hosts: &[HostPattern], default: bool, identity: &Identity) {
        for pattern in hosts {
            self.by_host.insert(pattern, identity.certified());
        }
        if default {
            self.default = Some(identity.certified());
        }
    }

    /// True if there is none at all.
    pub fn is_empty(&self) -> bool {
        self.default.is_none() && self.by_host.is_empty()
    }

    fn choose(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let found = name.and_then(normalized).and_then(|name| self.by_host.get(&name));
        found.or(self.default.as_ref())
    }
}

/// The certificates presented at this moment.
#[derive(Debug)]
pub(super) struct Shown(pub(super) ArcSwap<Certificates>);

impl Shown {
    /// The certificate that all clients are shown, if it is the same for all.
    pub(super) fn only(&self) -> Option<Presented> {
        let all = self.0.load();
        all.default.clone().filter(|_| all.by_host.is_empty()).map(Presented)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name()).cloned()
    }
}

/// The choice of one connection, remembered: the certificates may be others when it is asked for.
#[derive(Debug)]
pub(super) struct Choice {
    shown: Arc<Shown>,
    made: OnceLock<Arc<CertifiedKey>>,
}

impl Choice {
    pub(super) fn of(shown: Arc<Shown>) -> Self {
        Self { shown, made: OnceLock::new() }
    }

    pub(super) fn made(&self) -> Option<Presented> {
        self.made.get().cloned().map(Presented)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.shown.resolve(hello)?;
        Some(self.made.get_or_init(|| chosen).clone())
    }
}

/// The certificate that the client of a connection was shown.
#[derive(Debug, Clone)]
pub(in crate::server::gate) struct Presented(Arc<CertifiedKey>);

impl Presented {
    /// True if the certificate names `host`; an absent host is named by any.
    pub(in crate::server::gate) fn names(&self, host: Option<&str>) -> bool {
        host.is_none_or(|host| names(&self.0, host))
    }
}

/// True if the certificate of `identity` names `host`.
pub fn is_named(identity: &Identity, host: &str) -> bool {
    names(&identity.certified(), host)
}

fn names(certified: &CertifiedKey, host: &str) -> bool {
    // An IPv6 address stands in brackets in a URL alone.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (Ok(host), Some(cert)) = (ServerName::try_from(host), certified.cert.first()) else {
        return false;
    };
    ParsedCertificate::try_from(cert).is_ok_and(|cert| verify_server_name(&cert, &host).is_ok())
}
