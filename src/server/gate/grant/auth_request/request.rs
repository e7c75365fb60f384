//! The request to the upstream, and the key that tells it from all others.

use super::CHANNELS;
use crate::hub::channel::ChannelName;
use crate::protocol::auth::{self, Upstream};
use crate::server::gate::digest::Digest;
use crate::server::gate::grant::Requester;
use crate::server::gate::grant::cache::Key;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::hash::Hash;

/// Headers of the client that are forwarded, beside its cookies and the gate's own headers.
const PASSED_ON: [&str; 4] = ["authorization", "user-agent", "accept-language", "origin"];
/// Bytes that need no escape in a list of channels.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The headers of the request.
pub(super) fn headers(visitor: &Requester<'_>, host: &str, channels: &[ChannelName]) -> HeaderMap {
    let names: Vec<String> =
        channels.iter().map(|name| utf8_percent_encode(name, PLAIN).to_string()).collect();
    let names = names.join(",");
    let cookies = visitor.headers.raw("cookie").join(&b"; "[..]);
    let passed = PASSED_ON.into_iter();
    let passed = passed.filter_map(|name| Some((name, visitor.headers.get(name)?.as_bytes())));
    let own = [
        ("host", host.as_bytes()),
        ("connection", b"close"),
        ("cookie", &cookies),
        ("x-original-uri", visitor.target.as_bytes()),
        (CHANNELS, names.as_bytes()),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in own.into_iter().chain(passed) {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    // As with every other request: a site that asks for HTTPS would refuse this one.
    for (name, value) in visitor.way.headers(visitor.headers, visitor.host) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Distinguishes one request from all others: target, client and channels. The upstream may decide
/// by any part of what it gets, so all of it counts: of the query and the path everything but what
/// is new with each poll, or names the channels, which count by themselves.
pub(super) fn key(common: &Digest, channels: &[ChannelName]) -> Key {
    let mut digest = common.clone();
    channels.hash(&mut digest);
    digest.end()
}

/// The part that is the same for all channels.
pub(super) fn common_key(settings: &Upstream, visitor: &Requester<'_>) -> Digest {
    let dialect = &visitor.rule.dialect;
    let path = match dialect.has_channels_in_path() {
        true => visitor.rule.path.before_rest(visitor.path),
        false => visitor.path,
    };
    let mut digest = Digest::new();
    settings.url.hash(&mut digest);
    visitor.headers.raw("cookie").hash(&mut digest);
    // The hops before the client are its own words, and may be new with each request.
    let way = visitor.way.headers(visitor.headers, visitor.host).into_iter();
    let way = way.filter(|(name, _)| !matches!(*name, "X-Forwarded-For" | "Forwarded"));
    way.collect::<Vec<_>>().hash(&mut digest);
    PASSED_ON.map(|name| visitor.headers.get(name)).hash(&mut digest);
    (visitor.client, visitor.host, path).hash(&mut digest);
    visitor.query.hash_without(|name| dialect.moves(name), &mut digest);
    auth::token(visitor.query, visitor.headers).hash(&mut digest);
    digest
}
