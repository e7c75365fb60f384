//! `Pollgate-Publish: live; data=hello%20there`, with which a response of the upstream publishes.
//!
//! The channel and the data are percent-encoded (`rawurlencode` in PHP), so that neither has a
//! comma or a semicolon. There may be several such headers, or several in one with commas between.
//! Without `data` the message is the response's body with its content type.

use crate::hub::channel::ChannelName;
use crate::protocol::http::Headers;
use bytes::Bytes;

/// One message that a response announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server::publish) struct Announced {
    pub(in crate::server::publish) channel: ChannelName,
    /// `None` = the response's body.
    pub(in crate::server::publish) data: Option<Bytes>,
}

/// Messages that one response can announce.
const MAX: usize = 100;

/// The messages that the headers announce; the error explains what is wrong with them.
pub(in crate::server::publish) fn read(headers: &dyn Headers) -> Result<Vec<Announced>, String> {
    let mut all = Vec::new();
    for value in headers.raw("pollgate-publish") {
        let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
        let value = Some(value).filter(|value| value.iter().all(visible));
        let value = value.and_then(|value| std::str::from_utf8(value).ok());
        let value = value.ok_or_else(|| "it is not visible ASCII".to_owned())?;
        for one in value.split(',') {
            if all.len() == MAX {
                return Err(format!("it names more than {MAX} messages"));
            }
            all.push(announced(one)?);
        }
    }
    Ok(all)
}

fn announced(text: &str) -> Result<Announced, String> {
    let mut parts = text.split(';').map(str::trim);
    let channel = decoded(parts.next().unwrap_or_default())?;
    let channel = ChannelName::from_bytes(&channel).map_err(|error| error.to_string())?;
    let mut data = None;
    for part in parts {
        let value = part.strip_prefix("data=").filter(|_| data.is_none());
        let value = value.ok_or("there is more than one data=... behind a channel")?;
        data = Some(Bytes::from(decoded(value)?));
    }
    Ok(Announced { channel, data })
}

/// Percent-decoded; an invalid escape is an error.
fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("it has a % that is no escape; use rawurlencode".to_owned());
        };
        // Two hexadecimal digits are a byte.
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn of(values: &[&str]) -> Result<Vec<(String, Option<String>)>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("pollgate-publish", value.parse().unwrap());
        }
        let shown = |one: Announced| {
            let data = one.data.map(|data| String::from_utf8(data.to_vec()).unwrap());
            (one.channel.to_string(), data)
        };
        Ok(read(&headers)?.into_iter().map(shown).collect())
    }

    #[test]
    fn one_header_announces_one_message_or_several() {
        let one = |channel: &str, data: Option<&str>| (channel.into(), data.map(str::to_owned));
        assert_eq!(of(&["live"]), Ok(vec![one("live", None)]));
        assert_eq!(
            of(&["a%2Fb%20c; data=x%2Cy%3B+%C3%A9", "d;data=, e"]),
            Ok(vec![one("a/b c", Some("x,y;+é")), one("d", Some("")), one("e", None)])
        );
        assert_eq!(of(&[]), Ok(vec![]));
    }

    #[test]
    fn what_is_malformed_announces_nothing_at_all() {
        let many = vec!["a"; 101].join(",");
        for bad in ["", "a,", "a%2", "a%zz", "a; date=x", "a; data=x; data=y", "%00", &many] {
            assert!(of(&["good", bad]).is_err(), "{bad:?}");
        }
    }
}
