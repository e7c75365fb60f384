//! `[mercure]`: the hub for the sites that were written for Mercure.

use super::auth::{check_algorithms, secret_key};
use crate::config::read::section::Section;
use crate::config::read::values;
use crate::hub::channel::SiteName;
use crate::protocol::auth::jwt::{Expected, Key, Verifier};
use crate::protocol::http::path::normalize;
use crate::protocol::mercure::Settings;
use std::sync::Arc;

/// The key in the examples of Mercure's own documentation and of its container images.
const SAMPLE_KEY: &str = "!ChangeThisMercureHubJWTSecretKey!";

/// The default of `mercure.path`.
const PATH: &str = "/.well-known/mercure";

/// Reads the hub; `None` is a mistake. `with_token` = the internal listener has one, which may
/// publish too.
pub(in crate::config) fn hub(
    section: &mut Section,
    site: &SiteName,
    with_token: bool,
) -> Option<Arc<Settings>> {
    let path = section.parsed("path", PATH.to_owned(), path);
    let [publisher, subscriber] =
        ["publisher_key", "subscriber_key"].map(|name| key(section, name));
    let keys: Vec<Key> = publisher.iter().chain(&subscriber).cloned().collect();
    check_algorithms(section, &keys);
    let anonymous = section.flag("anonymous", false);
    let settings = Settings {
        site: site.clone(),
        path,
        publisher: publisher.map(verifier),
        subscriber: subscriber.map(verifier),
        anonymous,
        publish_origins: section.list("publish_origins", Vec::new(), origin_pattern),
        cors_origins: section.list("cors_origins", Vec::new(), values::origin),
        subscriptions: section.flag("subscriptions", false),
        mirror: section.flag("mirror", false),
    };
    if settings.subscriber.is_none() && !anonymous && section.is_sound("subscriber_key") {
        let hint = "missing; write the key that subscribers' tokens are signed with, or set \
                    anonymous = true for public updates alone";
        section.mistake("subscriber_key", hint);
    }
    if settings.publisher.is_none() && !with_token && section.is_sound("publisher_key") {
        let hint = "missing; write the key that publishers' tokens are signed with, or set \
                    publish.token, with which the internal listener takes updates";
        section.mistake("publisher_key", hint);
    }
    Some(Arc::new(settings))
}

fn verifier(key: Key) -> Verifier {
    Verifier::new(vec![key], Expected::default())
}

fn key(section: &mut Section, name: &'static str) -> Option<Key> {
    if !section.has(name) {
        section.secret(name, secret_key);
        return None;
    }
    let secret = section.secret(name, secret_key);
    if !section.is_sound(name) {
        return None;
    }
    if secret.is(SAMPLE_KEY) {
        let message = "this is the key of Mercure's documentation, which everybody knows; anybody \
                       can sign tokens with it";
        section.warn(name, message);
    }
    Key::new(secret.reveal()).map_err(|error| section.mistake(name, error.to_string())).ok()
}

/// The hub's path.
fn path(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let is_path = text.len() > 1 && text.starts_with('/') && !text.ends_with('/');
    if !is_path || !text.bytes().all(plain) || normalize(text) != text {
        let hint = "write one such as /.well-known/mercure, of letters, digits and /-._~";
        return Err(format!("\"{text}\" is no path of a hub; {hint}"));
    }
    Ok(text.to_owned())
}

/// An origin, `*`, or an origin with one `*` in its name.
fn origin_pattern(text: &str) -> Result<String, String> {
    // The star stands for a part of a name.
    let one = if text == "*" { text.to_owned() } else { text.replacen('*', "x", 1) };
    match values::origin(&one) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "\"{text}\" is no origin; write https://a.example, https://*.a.example, or * for any"
        )),
    }
}
