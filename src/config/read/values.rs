//! Texts of the config with a fixed form: each function returns the value, or an error that
//! describes the form.

use crate::hub::channel::{ChannelName, Pattern, SiteName};
use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use crate::protocol::http::condition::{Condition, Test};
use crate::protocol::http::path::PathPattern;
use crate::protocol::template::Template;
use crate::server::backplane::{Url, UrlError};
use crate::server::persist::snapshot;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// Replaces a secret where the config is displayed.
pub(in crate::config) const MASK: &str = "***";

pub(in crate::config) fn address(text: &str) -> Result<Address, String> {
    text.parse::<Address>().map_err(|error| error.to_string())
}

/// A network, or one address as a network of its own.
pub(in crate::config) fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    let hint = "is no network; write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32";
    text.parse().or_else(|_| one()).map_err(|_| format!("\"{text}\" {hint}"))
}

/// A host name without scheme and port, in lower case.
pub(in crate::config) fn host(text: &str) -> Result<String, String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if text.is_empty() || !text.bytes().all(valid) {
        return Err(format!("\"{text}\" is no host name; write it without scheme and port"));
    }
    Ok(text.to_ascii_lowercase())
}

/// A token that can travel in an `Authorization` header. Errors do not show it.
pub(in crate::config) fn token(text: &str) -> Result<Secret, String> {
    if text == MASK {
        return Err(format!(
            "\"{MASK}\" is what `pollgate check` shows in place of a token; write the token, or \
             set it in the environment as POLLGATE__PUBLISH__TOKEN"
        ));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("must be of visible ASCII characters without spaces".to_owned());
    }
    Ok(Secret::new(text))
}

/// The path of a snapshot file for the history, or empty.
pub(in crate::config) fn snapshot(text: &str) -> Result<String, String> {
    let file = Path::new(text);
    if text.is_empty() {
        return Ok(String::new());
    }
    if !file.is_absolute() {
        return Err(format!("\"{text}\" is no absolute path; write it from / on"));
    }
    snapshot::objection(file).map_or(Ok(text.to_owned()), Err)
}

/// The path of a unix socket, or empty.
pub(in crate::config) fn socket(text: &str) -> Result<String, String> {
    if !text.is_empty() && !Path::new(text).is_absolute() {
        return Err(format!("\"{text}\" is no absolute path; write it from / on"));
    }
    Ok(text.to_owned())
}

/// The address of Redis. Errors do not show it, as it may hold a password.
pub(in crate::config) fn redis(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error: UrlError| error.to_string())?;
    if url.password().is(MASK) {
        return Err(format!(
            "holds \"{MASK}\", which `pollgate check` shows in place of a password; write the \
             password, or set the URL in the environment as POLLGATE__BACKPLANE__REDIS"
        ));
    }
    Ok(url)
}

/// The password of the sentinels. Errors do not show it.
pub(in crate::config) fn sentinel_password(text: &str) -> Result<Secret, String> {
    if text == MASK {
        return Err(format!(
            "\"{MASK}\" is what `pollgate check` shows in place of a password; write the \
             password, or set it in the environment as POLLGATE__BACKPLANE__SENTINEL_PASSWORD"
        ));
    }
    Ok(Secret::new(text))
}

/// Prefix of the keys in Redis.
pub(in crate::config) fn prefix(text: &str) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(known) {
        return Err(format!("\"{text}\" must be 1 to 64 of A-Z a-z 0-9 - _ . :"));
    }
    Ok(text.to_owned())
}

pub(in crate::config) fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// The name of a query or form parameter, as in PHP's `$_GET`.
pub(in crate::config) fn parameter(text: &str) -> Result<String, String> {
    let foreign = |c: char| matches!(c, '[' | ']' | '.' | ' ' | '&' | '=' | '+' | '%');
    if text.contains(foreign) {
        return Err(format!(
            "\"{text}\" is no parameter; write its name as PHP's $_GET has it, without brackets, \
             with _ for dots and spaces"
        ));
    }
    filled(text)
}

/// The name of a cookie, as PHP's `$_COOKIE` has it.
pub(in crate::config) fn cookie(text: &str) -> Result<String, String> {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if text.is_empty() || !text.bytes().all(name) {
        return Err(format!("\"{text}\" is no cookie; write its name of A-Z a-z 0-9 _ -"));
    }
    Ok(text.to_owned())
}

/// A condition on a parameter: `do=get`, `last!=`, or a name alone, which stands for `bare`.
pub(in crate::config) fn condition(text: &str, bare: Test) -> Result<Condition, String> {
    let condition = Condition::new(text, bare);
    parameter(&condition.name)?;
    Ok(condition)
}

/// The name of a request header, in lower case.
pub(in crate::config) fn header(text: &str) -> Result<String, String> {
    let name = http::HeaderName::try_from(text);
    let name = name.map_err(|_| format!("\"{}\" is no header name", text.escape_debug()))?;
    Ok(name.as_str().to_owned())
}

/// The name of a channel.
pub(in crate::config) fn name(text: &str) -> Result<ChannelName, String> {
    ChannelName::new(text).map_err(|error| error.to_string())
}

/// A channel that has series of its own, shown as it is labelled there.
pub(in crate::config) struct Listed(pub(in crate::config) ChannelName);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.path())
    }
}

/// A channel of a gate without sites.
pub(in crate::config) fn listed(text: &str) -> Result<Listed, String> {
    name(text).map(Listed)
}

/// A channel of a site, as `shop/news`.
pub(in crate::config) fn listed_in_site(text: &str) -> Result<Listed, String> {
    let wrong = || format!("\"{text}\" names no site; write site/channel, such as shop/news");
    let (site, channel) = text.split_once('/').ok_or_else(wrong)?;
    let site = SiteName::new(site).ok_or_else(wrong)?;
    Ok(Listed(name(channel)?.in_site(&site)))
}

/// Text for a query: `a=b&c`.
pub(in crate::config) fn query(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>');
    if text.is_empty() || text.starts_with(['?', '&']) || !text.bytes().all(fits) {
        return Err(format!(
            "\"{text}\" is no part of a query; write it as it stands behind the ?: \"wait=0\""
        ));
    }
    Ok(text.to_owned())
}

pub(in crate::config) fn pattern(text: &str) -> Result<Pattern, String> {
    let hint = "a * may stand only at the end, and something must be there";
    Pattern::new(text).ok_or_else(|| format!("\"{text}\" is no pattern; {hint}"))
}

/// The path of a rule, in plain text or escaped.
pub(in crate::config) fn path(text: &str) -> Result<PathPattern, String> {
    if !text.starts_with('/') {
        return Err(format!("\"{text}\" must begin with /"));
    }
    if text.contains(['?', '#']) {
        let hint = "parameters belong in `when`";
        return Err(format!("\"{text}\" must be a path alone; {hint}"));
    }
    text.parse().map_err(|error| format!("\"{text}\" is no pattern; {error}"))
}

/// The path of a script as it stands in a request's target, or empty.
pub(in crate::config) fn script(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let named = text.starts_with('/') && text.ends_with(".js") && text.bytes().all(plain);
    if !text.is_empty() && !named {
        let hint = "write a path such as /pollgate.js, of letters, digits and /-._~, or nothing";
        return Err(format!("\"{text}\" is no path of a script; {hint}"));
    }
    Ok(text.to_owned())
}

/// A template of a channel's name; one without fields must itself be a name.
pub(in crate::config) fn channel(text: &str) -> Result<Template, String> {
    let template: Template = text.parse().map_err(|error| format!("\"{text}\": {error}"))?;
    if template.fields().next().is_none() {
        ChannelName::new(text).map_err(|error| error.to_string())?;
    }
    Ok(template)
}

/// An origin as browsers send it, or `*`.
pub(in crate::config) fn origin(text: &str) -> Result<String, String> {
    let error = || {
        let hint = "write https://a.example or http://a.example:8080 in lower case and without a \
                    path, or * for any";
        format!("\"{text}\" is no origin; {hint}")
    };
    let valid = |(scheme, authority): (&str, &str)| {
        let in_scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        let scheme =
            scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.bytes().all(in_scheme);
        // With a port in place of a missing one, it is an address like any other.
        let with_port = address(authority).or_else(|_| address(&format!("{authority}:1")));
        let tcp = with_port.is_ok_and(|address| matches!(address, Address::Tcp { .. }));
        scheme && tcp && !authority.bytes().any(|b| b.is_ascii_uppercase())
    };
    let valid = text == "*" || text.split_once("://").is_some_and(valid);
    if valid { Ok(text.to_owned()) } else { Err(error()) }
}

/// The value of a `Content-Type` header.
pub(in crate::config) fn content_type(text: &str) -> Result<String, String> {
    let hint = "is no content type; write one such as application/json";
    let kind = text.split(';').next().unwrap_or_default().trim();
    let two_words = kind.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    let valid = two_words && http::HeaderValue::from_str(text).is_ok();
    if valid { Ok(text.to_owned()) } else { Err(format!("\"{}\" {hint}", text.escape_debug())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_address_is_the_network_of_itself() {
        let shown = |text| network(text).map(|net| net.to_string());
        assert_eq!(shown("192.0.2.7"), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(shown("::1"), Ok("::1/128".to_owned()));
        assert_eq!(shown("10.0.0.0/8"), Ok("10.0.0.0/8".to_owned()));
        assert!(network("10.0.0.0/33").is_err() && network("proxy").is_err());
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for good in
            ["*", "https://a.example", "http://a:8080", "http://[::1]:80", "app://localhost"]
        {
            assert_eq!(origin(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "a.example", "https://", "https://a/", "https://A.example", "https://a b", "null"]
        {
            assert!(origin(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_content_type_fits_into_a_header() {
        assert!(content_type("text/plain; charset=UTF-8").is_ok());
        for bad in ["", "json", "a/b\r\nX: y", "/", "text/"] {
            assert!(content_type(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_begins_with_a_slash_and_has_one_star_in_a_segment() {
        assert!(path("/comet/*").is_ok() && path("/*").is_ok() && path("/a.php").is_ok());
        assert!(path("/a*b").is_ok() && path("/*/*").is_ok());
        for bad in ["", "*", "comet", "/a*b*", "/a?b=c", "/**"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_channel_without_fields_must_be_a_name() {
        assert!(channel("data.txt").is_ok() && channel("room-{query.room}").is_ok());
        assert!(channel("").is_err() && channel("a\nb").is_err() && channel("{quary.x}").is_err());
    }

    #[test]
    fn the_mask_is_no_token_and_a_wrong_token_is_not_shown() {
        assert!(token(MASK).is_err());
        let error = token("hunter2 with spaces").err().unwrap_or_default();
        assert!(!error.is_empty() && !error.contains("hunter2"));
        assert!(token("").is_ok_and(|token| token.is_empty()));
    }
}
