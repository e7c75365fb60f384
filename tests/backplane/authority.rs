//! An authority that signs certificates, for a Redis that speaks TLS and for its clients.

use crate::support::TempDir;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::PathBuf;

/// See the [module](self). Its files go with it.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
    ca: PathBuf,
}

/// The files of a certificate and its key.
pub(crate) struct Signed {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority made for a test");
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let folder = TempDir::new("authority");
        let ca = folder.write("ca.pem", own.pem());
        Authority { issuer: Issuer::new(params, key), folder, ca }
    }

    /// The file of its own certificate.
    pub(crate) fn ca(&self) -> &PathBuf {
        &self.ca
    }

    /// A certificate for `name`, which is a part of the files' names.
    pub(crate) fn sign(&self, name: &str) -> Signed {
        use std::os::unix::fs::PermissionsExt;
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = cert.signed_by(&key, &self.issuer).unwrap();
        let cert = self.folder.write(&format!("{name}.cert.pem"), cert.pem());
        let key = self.folder.write(&format!("{name}.key.pem"), key.serialize_pem());
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Signed { cert, key }
    }

    /// Options of `redis-server` for TLS on `port` as `name`.
    pub(crate) fn options(&self, port: u16, name: &str) -> Vec<String> {
        let Signed { cert, key } = self.sign(name);
        let show = |path: &PathBuf| path.display().to_string();
        [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", show(&cert)),
            ("--tls-key-file", show(&key)),
            ("--tls-ca-cert-file", show(&self.ca)),
        ]
        .into_iter()
        .flat_map(|(key, value)| [key.to_owned(), value])
        .collect()
    }
}
