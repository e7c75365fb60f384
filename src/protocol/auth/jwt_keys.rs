//! Signatures of JSON Web Tokens, checked by `ring`, which TLS uses as well.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{error::Unspecified, hmac};
use signature::Verifier;

/// Makes the token library verify with `ring`. Done once; later calls change nothing.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error means that it is installed already.
    let _ = PROVIDER.install_default();
}

/// The gate signs nothing.
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // A key of one family never verifies a token that claims another.
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(WithRing { algorithm: *algorithm, key: key.clone() }))
}

struct WithRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl WithRing {
    fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), Unspecified> {
        let public: &'static dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.bytes()?);
                return hmac::verify(&key, message, signature);
            }
            Algorithm::RS256 => match self.key.kind() {
                DecodingKeyKind::RsaModulusExponent { n, e } => {
                    let key = RsaPublicKeyComponents { n, e };
                    return key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature);
                }
                DecodingKeyKind::SecretOrDer(_) => &RSA_PKCS1_2048_8192_SHA256,
            },
            Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::EdDSA => &ED25519,
            _ => return Err(Unspecified),
        };
        UnparsedPublicKey::new(public, self.bytes()?).verify(message, signature)
    }

    fn bytes(&self) -> Result<&[u8], Unspecified> {
        self.key.try_get_as_bytes().map_err(|_| Unspecified)
    }
}

impl Verifier<Vec<u8>> for WithRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.check(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for WithRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
