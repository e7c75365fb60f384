//! Headers of a single connection, which end at the gate.

use http::{HeaderName, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};

/// Headers that are the connection's, whether it names them or not (RFC 9110, section 7.6.1).
/// `Transfer-Encoding` is the engine's matter, which frames each side anew; no trailers come
/// through, so none are announced.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers that a connection cannot claim for itself: the answer would be another without them.
const END_TO_END: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::SET_COOKIE];

/// Takes out of the site's answer what its connection to the gate alone has to do with. An answer
/// that agrees to another protocol keeps it: it is passed through whole.
pub(super) fn end_here(answer: &mut ResponseHeader) {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let lists = answer.headers.get_all(header::CONNECTION).into_iter();
    let named = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    let named = named.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let ending =
        |name: &HeaderName| *name != header::TRANSFER_ENCODING && ends_here(name.as_str(), true);
    for name in named.filter(ending).chain(HOP_BY_HOP).collect::<Vec<_>>() {
        answer.remove_header(&name);
    }
}

/// True if the header of the site's answer with that (lower case) name ends at the gate; `claimed` =
/// its connection names it. `Transfer-Encoding` is left to the one who frames the answer.
pub(in crate::server::gate) fn ends_here(name: &str, claimed: bool) -> bool {
    HOP_BY_HOP.iter().any(|known| known == name)
        || (claimed && !END_TO_END.iter().any(|known| known == name))
}

/// True if `request` is one of HTTP/1.0, which knows neither chunks nor interim answers.
pub(super) fn is_old(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_10
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        end_here(&mut head);
        let mut left: Vec<_> = head.headers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn what_the_connection_names_ends_and_all_else_goes_on() {
        let headers = [
            ("Connection", "X-Private , close"),
            ("Connection", "Content-Length, Set-Cookie, , =,"),
            ("Keep-Alive", "timeout=5"),
            ("X-Private", "a"),
            ("Upgrade", "h2"),
            ("Trailer", "X-Sum"),
            ("Content-Length", "2"),
            ("Set-Cookie", "a=b"),
            ("X-Public", "c"),
        ];
        assert_eq!(answer(200, &headers), ["content-length", "set-cookie", "x-public"]);
    }

    #[test]
    fn an_agreement_on_another_protocol_goes_on_whole() {
        let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
        assert_eq!(answer(101, &headers), ["connection", "upgrade"]);
    }
}
