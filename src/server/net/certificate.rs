//! A certificate and its key, read from their files and checked before a client sees them.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// No chain and no key is as long as this.
const MAX_BYTES: u64 = 1 << 20;

/// A certificate, its chain, and its key. Shows no key in `Debug`.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    /// True if users that have nothing to do with the gate can read the key.
    pub key_is_open: bool,
}

/// A problem with one of the two files, and its remedy.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// With the certificate.
    #[error("{0}")]
    Cert(String),
    /// With the key.
    #[error("{0}")]
    Key(String),
}

impl Identity {
    /// Reads both files; the error has the problems of each.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, Vec<IdentityError>> {
        let chain = read_chain(cert).map_err(IdentityError::Cert);
        let signing = read_key(key).map_err(IdentityError::Key);
        let (chain, (signing, key_is_open)) = match (chain, signing) {
            (Ok(chain), Ok(signing)) => (chain, signing),
            (chain, signing) => {
                return Err(chain.err().into_iter().chain(signing.err()).collect());
            }
        };
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // A key without access to its public half cannot be compared.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let message = format!(
                    "does not belong to the first certificate in {}; take the key it was made \
                     with, and let the site's own certificate stand before those that vouch for \
                     it",
                    cert.display()
                );
                return Err(vec![IdentityError::Key(message)]);
            }
            Err(error) => {
                let message = format!("the first certificate cannot be read ({error})");
                return Err(vec![IdentityError::Cert(message)]);
            }
        }
        Ok(Self { certified: Arc::new(certified), key_is_open })
    }

    /// The form in which rustls presents it to the other side.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// The same certificates; their keys are the same then.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.certified.cert.len()).finish()
    }
}

/// The certificates in a file, at least one; the error explains what is wrong with it.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (pem, _) = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| format!("is damaged: {error}"))?;
    if chain.is_empty() {
        return Err(if holds(&pem, "PRIVATE KEY-----") {
            "holds a key and no certificate; are the files of certificate and key swapped?"
                .to_owned()
        } else {
            "holds no certificate; it must be PEM, with -----BEGIN CERTIFICATE-----".to_owned()
        });
    }
    Ok(chain)
}

/// The key, and true if all users can read it.
fn read_key(path: &Path) -> Result<(Arc<dyn rustls::sign::SigningKey>, bool), String> {
    let (pem, mode) = read(path)?;
    if holds(&pem, "BEGIN ENCRYPTED PRIVATE KEY") || holds(&pem, "Proc-Type: 4,ENCRYPTED") {
        return Err(format!(
            "is encrypted, and nobody is there to be asked for its passphrase; write it without \
             one: openssl pkey -in {} -out FILE",
            path.display()
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound if holds(&pem, "BEGIN CERTIFICATE") => {
            "holds a certificate and no key; are the files of certificate and key swapped?"
                .to_owned()
        }
        PemError::NoItemsFound => {
            "holds no private key; it must be PEM, with -----BEGIN PRIVATE KEY-----".to_owned()
        }
        error => format!("is damaged: {error}"),
    })?;
    let signing = any_supported_type(&key).map_err(|_| {
        "holds a key that cannot be used; RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, and \
         Ed25519 can"
            .to_owned()
    })?;
    Ok((signing, mode & 0o004 != 0))
}

/// The file's bytes and its mode.
fn read(path: &Path) -> Result<(Vec<u8>, u32), String> {
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
        io::ErrorKind::PermissionDenied => {
            format!("{} may not be read by the user that the gate runs as", path.display())
        }
        _ => format!("cannot read {}: {error}", path.display()),
    };
    let file = File::open(path).map_err(wrong)?;
    let mode = file.metadata().map_err(wrong)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{} is longer than 1 MiB", path.display()));
    }
    Ok((bytes, mode))
}

fn holds(pem: &[u8], text: &str) -> bool {
    memchr::memmem::find(pem, text.as_bytes()).is_some()
}
