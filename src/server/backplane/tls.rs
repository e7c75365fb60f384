//! TLS to Redis and its sentinels, and advice for its failures.

use super::Server;
use crate::server::net::tls_client::{HandshakeError, TlsClient, cause, untrusted};
use rustls::{AlertDescription, Error};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Does the handshake with `server` over `stream`.
pub(super) async fn handshake(
    tls: &TlsClient,
    server: &Server,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    tls.handshake(&server.host, stream).await.map_err(|error| match error {
        HandshakeError::Name => {
            format!("{} is no name that a certificate can be for", server.host)
        }
        HandshakeError::Tls(error) => match cause(&error) {
            Some(cause) => describe(cause),
            None => format!("TLS with it failed: {error}; does it speak TLS?"),
        },
    })
}

/// The problem, and its remedy.
pub(super) fn describe(error: &Error) -> String {
    use AlertDescription as Alert;
    match error {
        Error::InvalidCertificate(error) => untrusted(error, "backplane.ca"),
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
