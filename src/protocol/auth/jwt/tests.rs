use super::*;
use crate::hub::channel::ChannelName;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

const SECRET: &str = "a secret of some length";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
}

fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = unsigned(header, claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let tag = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(tag))
}

fn token(claims: Value) -> String {
    hs256(&json!({"alg": "HS256", "typ": "JWT"}), &claims, SECRET.as_bytes())
}

fn verifier(expected: Expected) -> Verifier {
    Verifier::new(vec![Key::new(SECRET).unwrap()], expected)
}

fn grant(claims: Value, now: Seconds) -> Result<Grant, Rejection> {
    verifier(Expected::default()).grant(&token(claims), now)
}

#[test]
fn a_token_is_good_from_nbf_to_exp() {
    let claims = json!({"channels": ["news", "user-7/*"], "nbf": 100, "exp": 200.9});
    let good = grant(claims.clone(), 100).unwrap();
    assert_eq!(good.expires, Some(200));
    assert!(good.channels.has(&ChannelName::new("user-7/x").unwrap()));
    assert!(!good.channels.has(&ChannelName::new("x").unwrap()));
    assert_eq!(grant(claims.clone(), 99), Err(Rejection::Early));
    assert_eq!(grant(claims.clone(), 200), Err(Rejection::Expired));
    let patient = verifier(Expected { leeway: 10, ..Expected::default() });
    assert!(patient.grant(&token(claims.clone()), 209).is_ok());
    assert_eq!(patient.grant(&token(claims), 210), Err(Rejection::Expired));
    assert_eq!(grant(json!({"channels": "a"}), 1 << 40).unwrap().expires, None);
}

#[test]
fn claims_of_another_form_are_bad_and_none_are_no_channels() {
    assert_eq!(grant(json!({}), 0).unwrap().channels, Channels::default());
    for claims in [
        json!({"channels": [1]}),
        json!({"channels": {"a": 1}}),
        json!({"channels": ["a*b"]}),
        json!({"exp": "soon"}),
        json!({"exp": -1}),
        json!({"nbf": null}),
    ] {
        assert!(matches!(grant(claims.clone(), 0), Err(Rejection::Bad(_))), "{claims}");
    }
}

#[test]
fn audience_and_issuer_are_looked_at_where_they_are_expected() {
    let expected = Expected {
        audience: vec!["gate".to_owned()],
        issuer: vec!["site".to_owned(), "other".to_owned()],
        claim: "may".to_owned(),
        leeway: 0,
    };
    let of = |claims: Value| verifier(expected.clone()).grant(&token(claims), 0);
    assert!(of(json!({"aud": "gate", "iss": "other", "may": ["a"]})).is_ok());
    assert!(of(json!({"aud": ["x", "gate"], "iss": "site"})).is_ok());
    for claims in [
        json!({"aud": "gate"}),
        json!({"iss": "site"}),
        json!({"aud": "x", "iss": "site"}),
        json!({"aud": "gate", "iss": "x"}),
    ] {
        assert!(matches!(of(claims.clone()), Err(Rejection::Bad(_))), "{claims}");
    }
    // A token with an audience is for that audience only (RFC 7519, section 4.1.3).
    assert!(grant(json!({"aud": "somebody else"}), 0).is_err());
}

fn es256_key() -> (EcdsaKeyPair, SystemRandom) {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    (EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap(), random)
}

fn es256_set(pair: &EcdsaKeyPair, id: &str) -> Value {
    let point = pair.public_key().as_ref();
    let x = encode(&point[1..33]);
    let y = encode(&point[33..]);
    json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256", "x": x, "y": y})
}

/// The public key as a PEM: the algorithm's name in DER, then the key.
fn pem(prefix: &[u8], key: &[u8]) -> String {
    let der = [prefix, key].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

#[test]
fn public_keys_come_from_a_set_or_a_pem() {
    let (pair, random) = es256_key();
    let random_pair = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let edwards = Ed25519KeyPair::from_pkcs8(random_pair.as_ref()).unwrap();
    let x = encode(edwards.public_key());
    let unused = json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"});
    let set = json!({"keys": [
        unused, es256_set(&pair, "one"), {"kty": "OKP", "crv": "Ed25519", "kid": "two", "x": x},
    ]});
    let keys = Key::set(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 2);
    let from_set = Verifier::new(keys, Expected::default());
    let claims = json!({"channels": ["a"]});

    let message = unsigned(&json!({"alg": "ES256", "kid": "one"}), &claims);
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    let token = format!("{message}.{}", encode(signature));
    assert!(from_set.grant(&token, 0).is_ok());
    let es256_prefix = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let key = Key::new(&pem(&es256_prefix, pair.public_key().as_ref())).unwrap();
    assert_eq!(key.algorithm(), Algorithm::ES256);
    assert!(Verifier::new(vec![key], Expected::default()).grant(&token, 0).is_ok());
    let other =
        Key::set(json!({"keys": [es256_set(&es256_key().0, "one")]}).to_string().as_bytes());
    assert!(Verifier::new(other.unwrap(), Expected::default()).grant(&token, 0).is_err());

    let message = unsigned(&json!({"alg": "EdDSA"}), &claims);
    let token = format!("{message}.{}", encode(edwards.sign(message.as_bytes())));
    assert!(from_set.grant(&token, 0).is_ok());
    let ed_prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let key = Key::new(&pem(&ed_prefix, edwards.public_key().as_ref())).unwrap();
    assert!(Verifier::new(vec![key], Expected::default()).grant(&token, 0).is_ok());
}

#[test]
fn no_key_is_used_for_what_another_algorithm_claims() {
    let claims = json!({"channels": ["*"]});
    let (pair, _) = es256_key();
    let set = json!({"keys": [es256_set(&pair, "one")]}).to_string();
    let public = Verifier::new(Key::set(set.as_bytes()).unwrap(), Expected::default());
    let secret = verifier(Expected::default());
    let none = |alg: &str| format!("{}.", unsigned(&json!({"alg": alg}), &claims));
    for name in ["none", "None", "NONE", "", "HS256"] {
        assert!(public.grant(&none(name), 0).is_err(), "{name}");
        assert!(secret.grant(&none(name), 0).is_err(), "{name}");
    }
    // The public key, taken for a secret by a careless reader.
    for stolen in [pair.public_key().as_ref(), set.as_bytes()] {
        let forged = hs256(&json!({"alg": "HS256", "kid": "one"}), &claims, stolen);
        assert!(public.grant(&forged, 0).is_err());
    }
    let honest = token(claims.clone());
    let (head, rest) = honest.split_once('.').unwrap();
    assert!(secret.grant(&honest, 0).is_ok());
    assert!(secret.grant(&format!("{head}.{}", rest.replacen('e', "f", 1)), 0).is_err());
    assert!(secret.grant(&hs256(&json!({"alg": "HS512"}), &claims, SECRET.as_bytes()), 0).is_err());
}

#[test]
fn what_is_no_key_is_told() {
    assert_eq!(Key::new("").unwrap_err(), KeyError::Empty);
    assert_eq!(Key::new(&pem(&[0x30, 0x00], &[])).unwrap_err(), KeyError::Pem);
    assert!(matches!(Key::set(b"{}"), Err(KeyError::Set(_))));
    assert_eq!(Key::set(br#"{"keys":[]}"#).unwrap_err(), KeyError::NoneUsable);
    assert_eq!(format!("{:?}", Key::new(SECRET).unwrap()), "Key(None, HS256)");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(token: String, parts in "[A-Za-z0-9_.-]{0,90}") {
        let verifier = verifier(Expected::default());
        let _ = verifier.grant(&token, 0);
        let _ = verifier.grant(&parts, 0);
    }
}

#[test]
fn a_token_that_wants_more_to_be_understood_is_bad() {
    let claims = json!({"channels": ["news"]});
    for crit in [json!(["b64"]), json!(["exp"]), json!([])] {
        let header = json!({"alg": "HS256", "crit": crit, "b64": false});
        let token = hs256(&header, &claims, SECRET.as_bytes());
        let verifier = verifier(Expected::default());
        assert!(matches!(verifier.grant(&token, 0), Err(Rejection::Bad(_))), "{header}");
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let jwk = r#" {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    assert_eq!(Key::new(jwk).unwrap_err(), KeyError::Jwk);
}
