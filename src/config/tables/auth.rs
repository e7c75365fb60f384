//! `auth` of a rule: the authorization of its polls.

use crate::config::read::raw::Raw;
use crate::config::read::section::Section;
use crate::config::read::suggest;
use crate::config::read::values::{self, MASK};
use crate::protocol::address::Address;
use crate::protocol::auth::jwt::{self, Expected, Key};
use crate::protocol::auth::secret::Secret;
use crate::protocol::auth::{Auth, Upstream, Url, signed};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const KINDS: [(&str, &str); 3] = [("upstream", "upstream"), ("signed", "signed"), ("jwt", "jwt")];

/// The keys of each kind.
const OWN_KEYS: [(&str, &str); 13] = [
    ("anonymous", "upstream"),
    ("url", "upstream"),
    ("cache", "upstream"),
    ("timeout", "upstream"),
    ("session", "upstream"),
    ("keys", "signed"),
    ("key", "jwt"),
    ("jwks", "jwt"),
    ("algorithms", "jwt"),
    ("claim", "jwt"),
    ("audience", "jwt"),
    ("issuer", "jwt"),
    ("leeway", "jwt"),
];

/// Reads the authorization; `None` = every client may poll. A mistake returns `None` too; the
/// report has it.
pub(in crate::config) fn read(section: &mut Section) -> Option<Arc<Auth>> {
    if !section.has("auth") {
        section.take("auth");
        return None;
    }
    section.inline("auth", auth).map(Arc::new)
}

fn auth(section: &mut Section) -> Option<Auth> {
    let hint = "write upstream, signed or jwt";
    let kind = section.required("kind", hint, |text| suggest::one_of(&KINDS, text));
    let Some(kind) = kind else {
        // The kind is unknown, and so are its keys, so none of them is reported.
        for (key, _) in OWN_KEYS {
            section.take(key);
        }
        return None;
    };
    for (key, of) in OWN_KEYS {
        if of != kind {
            let message = format!("auth of the kind {kind} has no such key; remove it");
            section.refuse(key, &message);
        }
    }
    match kind {
        "upstream" => upstream(section).map(Auth::Upstream),
        "signed" => signed(section).map(Auth::Signed),
        _ => jwt(section).map(Auth::Jwt),
    }
}

fn upstream(section: &mut Section) -> Option<Upstream> {
    let hint = "write the path of a script that says yes or no, such as \"/auth.php\"";
    let url = section.required("url", hint, values::filled);
    let cache = section.duration("cache", Duration::from_secs(10));
    let timeout = section.some_duration("timeout", Duration::from_secs(3));
    let session = section.parsed("session", "PHPSESSID".to_owned(), values::cookie);
    let anonymous = section.flag("anonymous", false);
    match parse_url(&url?) {
        Ok(url) => Some(Upstream { url, cache, timeout, session, anonymous }),
        Err(message) => {
            section.mistake("url", message);
            None
        }
    }
}

pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let hint = "write a path of the site such as \"/auth.php\", or http://host[:port]/path";
    let wrong = || format!("\"{text}\" cannot be asked; {hint}");
    if !is_printable(text) {
        return Err(wrong());
    }
    if text.starts_with('/') {
        return Ok(Url::Path(text.to_owned()));
    }
    http_url(text, "http://", 80).ok_or_else(wrong)
}

/// True if a URL can stand in a request as it is.
pub(super) fn is_printable(url: &str) -> bool {
    url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#')
}

/// A URL of that scheme; `None` = it is none.
pub(super) fn http_url(text: &str, scheme: &str, port: u16) -> Option<Url> {
    let rest = text.strip_prefix(scheme)?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let server = values::address(host).or_else(|_| values::address(&format!("{host}:{port}")));
    let server = server.ok().filter(|server| matches!(server, Address::Tcp { .. }))?;
    let target = if path.is_empty() { "/" } else { path }.to_owned();
    Some(Url::Absolute { server, host: host.to_owned(), target })
}

fn signed(section: &mut Section) -> Option<signed::Keys> {
    if !section.has("keys") {
        section.mistake("keys", "missing; write them as { id = \"secret\" }");
    }
    let keys: Vec<(String, Secret)> = section.inline("keys", |keys| {
        let all = keys.all().into_iter();
        all.filter_map(|(id, value)| {
            keys.show(&id, MASK);
            let text = keys.secret_of(&id, Raw { kind: value.kind, typed: true })?;
            match key(&id, &text) {
                Ok(secret) => Some((id, secret)),
                Err(message) => {
                    keys.mistake(&id, message);
                    None
                }
            }
        })
        .collect()
    });
    if keys.is_empty() && section.is_sound("keys") {
        section.mistake("keys", "must name at least one key");
    }
    Some(signed::Keys::new(keys))
}

fn key(id: &str, secret: &str) -> Result<Secret, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if id.is_empty() || !id.bytes().all(plain) {
        return Err("a key's id is made of A-Z a-z 0-9 _ -".to_owned());
    }
    secret_key(secret)
}

/// A secret key. Errors do not show it.
pub(super) fn secret_key(text: &str) -> Result<Secret, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        MASK => Err(format!(
            "\"{MASK}\" is what `pollgate check` shows in place of a key; write the key"
        )),
        secret => Ok(Secret::new(secret)),
    }
}

fn jwt(section: &mut Section) -> Option<jwt::Verifier> {
    let keys = jwt_keys(section);
    check_algorithms(section, keys.as_deref().unwrap_or_default());
    let default = Expected::default();
    let expected = Expected {
        claim: section.parsed("claim", default.claim, values::filled),
        audience: section.list("audience", default.audience, values::filled),
        issuer: section.list("issuer", default.issuer, values::filled),
        leeway: section.duration("leeway", Duration::from_secs(default.leeway)).as_secs(),
    };
    Some(jwt::Verifier::new(keys?, expected))
}

fn jwt_keys(section: &mut Section) -> Option<Vec<Key>> {
    if section.has("key") == section.has("jwks") {
        let hint = "a secret, a public key in PEM, or the path of a JSON Web Key Set";
        let message = match section.has("key") {
            true => "there is jwks, too; write one of them",
            false => &format!("missing; write key or jwks: {hint}"),
        };
        section.mistake("key", message);
        section.take("key");
        section.take("jwks");
        return None;
    }
    if section.has("key") {
        let secret = section.secret("key", secret_key);
        if !section.is_sound("key") {
            return None;
        }
        let key = Key::new(secret.reveal());
        return key.map(|key| vec![key]).map_err(|e| section.mistake("key", e.to_string())).ok();
    }
    let path = section.optional("jwks", values::filled)?;
    let read = fs::read(&path).map_err(|error| format!("{path} cannot be read: {error}"));
    let keys = read.and_then(|json| Key::set(&json).map_err(|error| format!("{path}: {error}")));
    keys.map_err(|message| section.mistake("jwks", message)).ok()
}

/// A key itself determines its algorithm; an entry of `algorithms` that differs is a mistake.
pub(super) fn check_algorithms(section: &mut Section, keys: &[Key]) {
    let name = |key: &Key| {
        let known = jwt::ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == key.algorithm());
        known.map_or("", |(name, _)| *name).to_owned()
    };
    let mut default: Vec<String> = keys.iter().map(name).collect();
    default.sort();
    default.dedup();
    let known = jwt::ALGORITHMS.map(|(name, _)| (name, name));
    let named = section.list("algorithms", default.clone(), |text| match text {
        "none" => Err("\"none\" is no signature, so anybody could make such a token".to_owned()),
        text => suggest::one_of(&known, text).map(str::to_owned),
    });
    let foreign = named.iter().find(|name| !default.contains(name));
    if let Some(name) = foreign.filter(|_| !keys.is_empty() && section.is_sound("algorithms")) {
        let message = format!("{name} needs another key; this one is for {}", default.join(", "));
        section.mistake("algorithms", message);
    }
}
