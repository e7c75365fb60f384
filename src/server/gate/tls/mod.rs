//! TLS on the public listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
//!
//! The fast path itself does the TLS handshake, within `limits.head_timeout`; a failed handshake is
//! the client's affair and no more than a debug line. A connection that waits holds its keys and no
//! buffer ([`stream`]). The certificate can be replaced while connections last: they keep theirs,
//! new ones get the new one.

mod certificates;
mod stream;

pub(super) use certificates::Presented;
pub use certificates::{Certificates, is_named};
pub(super) use stream::{HandshakeError, TlsStream};

use crate::protocol::address::Address;
use arc_swap::ArcSwap;
use certificates::{Choice, Shown};
use pingora::protocols::Stream;
use rustls::ServerConfig;
use rustls::crypto::ring;
use std::path::PathBuf;
use std::sync::Arc;

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file of the certificate and its chain, as PEM.
    pub cert: PathBuf,
    /// The file of its private key, as PEM.
    pub key: PathBuf,
    /// Listening addresses that redirect plain HTTP to HTTPS.
    pub redirect: Vec<Address>,
}

/// The TLS of the public listener.
pub struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

impl Tls {
    /// Presents `certificates` to clients.
    pub fn new(certificates: Certificates) -> Result<Self, rustls::Error> {
        let shown = Arc::new(Shown(ArcSwap::from_pointee(certificates)));
        // Named, as another part of the program might install another default.
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Clients keep what resumes their sessions; the gate stores none.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new()?;
        Ok(Self { config: Arc::new(config), shown })
    }

    /// Presents other certificates from now on.
    pub fn replace(&self, certificates: Certificates) {
        self.shown.0.store(Arc::new(certificates));
    }

    /// Does the handshake with the client of a connection; also returns the certificate that it was
    /// shown.
    pub(super) async fn handshake(
        &self,
        stream: Stream,
    ) -> Result<(TlsStream, Option<Presented>), HandshakeError> {
        if let Some(only) = self.shown.only() {
            return Ok((TlsStream::handshake(stream, self.config.clone()).await?, Some(only)));
        }
        let choice = Arc::new(Choice::of(self.shown.clone()));
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = choice.clone();
        let stream = TlsStream::handshake(stream, Arc::new(config)).await?;
        Ok((stream, choice.made()))
    }
}
