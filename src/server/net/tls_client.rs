//! TLS of the gate as a client: trusted authorities, our certificate, and why a server is not
//! trusted.

use super::certificate::{Identity, read_chain};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// TLS settings of a client. Two are equal if they trust the same authorities and present the same
/// certificate.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    /// The authorities from the user's file; empty = those of this machine.
    trusted: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

/// The reason why there is no handshake.
#[derive(Debug)]
pub enum HandshakeError {
    /// No certificate can be for this host.
    Name,
    /// TLS failed.
    Tls(io::Error),
}

impl TlsClient {
    /// Trusts the certificates in `ca`, or those that this machine trusts, and presents `identity`
    /// to servers that ask. The error explains what is wrong with them.
    pub fn new(ca: Option<&Path>, identity: Option<&Identity>) -> Result<Self, String> {
        let trusted = ca.map(read_chain).transpose()?.unwrap_or_default();
        let roots = if ca.is_some() { of_file(&trusted)? } else { of_machine()? };
        // Named, as another part of the program might install another default.
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match identity {
            Some(identity) => {
                let shown = SingleCertAndKey::from(identity.certified());
                builder.with_client_cert_resolver(Arc::new(shown))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), trusted, identity: identity.cloned() })
    }

    /// Does the handshake with the server `host` over `stream`.
    pub async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_: InvalidDnsNameError| HandshakeError::Name)?;
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(name, stream).await.map_err(HandshakeError::Tls)
    }
}

fn of_file(trusted: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        let added = roots.add(certificate.clone());
        added.map_err(|error| format!("holds a certificate that cannot be used ({error})"))?;
    }
    Ok(roots)
}

fn of_machine() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err("missing; this machine trusts no authority: name the file of the one that \
                    signed the server's certificate, or install the package ca-certificates"
            .to_owned());
    }
    Ok(roots)
}

impl PartialEq for TlsClient {
    fn eq(&self, other: &Self) -> bool {
        self.trusted == other.trusted && self.identity == other.identity
    }
}

impl Eq for TlsClient {}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").field("trusted", &self.trusted.len()).finish_non_exhaustive()
    }
}

/// The TLS error behind another one.
pub fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(error);
    }
    // The redis crate shares what it wraps; the one in an I/O error is not its source.
    let shared = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>();
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match (shared, inner) {
        (Some(shared), _) => cause(&**shared),
        (_, Some(inner)) => cause(inner),
        _ => error.source().and_then(cause),
    }
}

/// The names of a certificate, which are shown as `DnsName("host")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_end_matches(')').trim_matches('"').to_owned()
    };
    match presented {
        [] => "nothing".to_owned(),
        some => some.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

/// Why a server's certificate is not trusted, and the remedy; `ca` is the key that names the file of
/// an authority.
pub fn untrusted(error: &CertificateError, ca: &str) -> String {
    use CertificateError as Wrong;
    match error {
        Wrong::NotValidForName => "its certificate is for another name; it must name the host of \
                                   the URL among its subject alternative names"
            .to_owned(),
        Wrong::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {}, only for {}; name it so in the URL, or give it a \
             certificate with this subject alternative name",
            expected.to_str(),
            names(presented)
        ),
        // An authority that was made anew under its old name has another key.
        Wrong::UnknownIssuer | Wrong::BadSignature => {
            format!(
                "its certificate was signed by nobody we trust; name the file of the authority \
                 that signed it as {ca}"
            )
        }
        Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "its certificate is not valid yet; are the clocks right?".to_owned()
        }
        error => format!("its certificate cannot be trusted: {error}"),
    }
}
