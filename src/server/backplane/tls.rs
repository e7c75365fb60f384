//! TLS to Redis and its sentinels: trusted authorities, our certificate, and advice for failures.

use super::Server;
use crate::server::net::certificate::{Identity, read_chain};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// TLS settings of a client. Two are equal if they trust the same authorities and present the same
/// certificate.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// The authorities from the user's file; empty = those of this machine.
    trusted: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
}

impl Tls {
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

    /// Does the handshake with `server` over `stream`.
    pub(super) async fn handshake(
        &self,
        server: &Server,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(server.host.clone());
        let name = name.map_err(|_: InvalidDnsNameError| {
            format!("{} is no name that a certificate can be for", server.host)
        })?;
        let greeted = TlsConnector::from(self.config.clone()).connect(name, stream).await;
        greeted.map_err(|error| match cause(&error) {
            Some(cause) => describe(cause),
            None => format!("TLS with it failed: {error}; does it speak TLS?"),
        })
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
                    signed Redis' certificate, or install the package ca-certificates"
            .to_owned());
    }
    Ok(roots)
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.trusted == other.trusted && self.identity == other.identity
    }
}

impl Eq for Tls {}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("trusted", &self.trusted.len()).finish_non_exhaustive()
    }
}

/// The TLS error behind another one.
pub(super) fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
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

/// The problem, and its remedy.
pub(super) fn describe(error: &Error) -> String {
    use AlertDescription as Alert;
    match error {
        Error::InvalidCertificate(error) => reject(error),
        Error::InvalidMessage(_) => "it does not speak TLS there; name its port for TLS, or write \
                                     redis in place of rediss"
            .to_owned(),
        Error::AlertReceived(Alert::CertificateRequired) => {
            "it wants a certificate of ours; set backplane.cert and backplane.key".to_owned()
        }
        Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::DecryptError,
        ) => format!(
            "it does not take our certificate ({error}); look at backplane.cert and at what \
             Redis has as tls-ca-cert-file"
        ),
        error => format!("TLS with it failed: {error}"),
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

fn reject(error: &CertificateError) -> String {
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
            "its certificate was signed by nobody we trust; name the file of \
                                 the authority that signed it as backplane.ca"
                .to_owned()
        }
        Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
            "its certificate is not valid yet; are the clocks right?".to_owned()
        }
        error => format!("its certificate cannot be trusted: {error}"),
    }
}
