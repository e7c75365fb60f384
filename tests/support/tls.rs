//! Certificates made for a test, and a client that takes any of them and shows which it got.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Addr, BOUND};

/// A certificate for `localhost` that vouches for itself, and its key.
#[derive(Debug)]
pub struct Identity {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
}

impl Identity {
    pub fn make() -> Identity {
        Identity::of(&["localhost", "127.0.0.1"])
    }

    /// One for these hosts.
    pub fn of(names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().to_vec() }
    }

    /// One that does for every test that does not look at it.
    pub fn any() -> &'static Identity {
        static ANY: OnceLock<Identity> = OnceLock::new();
        ANY.get_or_init(Identity::make)
    }

    /// Writes `cert.pem` and `key.pem`, the latter for the owner alone.
    pub fn write_to(&self, folder: &Path) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(folder.join("cert.pem"), &self.cert).unwrap();
        let key = folder.join("key.pem");
        std::fs::write(&key, &self.key).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// TLS in front of a server that speaks none. Dropping it closes its address.
#[derive(Debug)]
pub struct TlsFront {
    addr: std::net::SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsFront {
    /// Shows `identity` and passes on what comes to `server`.
    pub async fn before(server: &Addr, identity: &Identity) -> TlsFront {
        let Addr::Tcp(server) = *server else { panic!("{server} is no TCP address") };
        let chain = vec![CertificateDer::from(identity.der.clone())];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        TlsFront { addr, accepting }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A connection that has shaken hands, offering these protocols.
pub async fn connect(addr: &Addr, protocols: &[&str]) -> TlsStream<TcpStream> {
    let tried = try_connect(addr, protocols, rustls::ALL_VERSIONS).await;
    tried.unwrap_or_else(|e| panic!("TLS handshake with {addr}: {e}"))
}

/// As [`connect`], with these versions alone, and with the error if nothing becomes of it.
pub async fn try_connect(
    addr: &Addr,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(addr, Arc::new(client_config(protocols, versions))).await
}

/// As [`try_connect`], with what the client keeps from one connection to the next.
pub async fn connect_with(
    addr: &Addr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(addr, "localhost", config).await
}

/// As [`connect_with`], asking for `name`.
pub async fn connect_as(
    addr: &Addr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let (Addr::Tls(tcp) | Addr::Tcp(tcp)) = addr else { panic!("no TLS on {addr}") };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let work = async {
        let stream = TcpStream::connect(tcp).await?;
        // After a handshake the system would keep a short request back for a while.
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    match tokio::time::timeout(BOUND, work).await {
        Ok(done) => done,
        Err(_) => panic!("TLS handshake with {addr}: nothing within {BOUND:?}"),
    }
}

/// TLS settings of a client.
pub fn client_config(
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let mut config = builder
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Accepts any certificate whose key the other side really has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS on a connection that is there already.
pub async fn over(stream: TcpStream, protocols: &[&str]) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let config = Arc::new(client_config(protocols, rustls::ALL_VERSIONS));
    let shaking = TlsConnector::from(config).connect(name, stream);
    tokio::time::timeout(BOUND, shaking).await.expect("a TLS handshake in time").unwrap()
}
