//! The head of a response as the client gets it.

use super::request::put;
use crate::protocol::grip::is_own;
use crate::protocol::http::framing::Framing;
use crate::protocol::http::response_head::ResponseHead;
use crate::server::gate::front::response::put_date;
use crate::server::gate::proxy::hop::ends_here;
use crate::server::gate::proxy::tap::PUBLISH;
use bytes::BytesMut;
use smallvec::SmallVec;

/// The form in which a response goes to the client.
pub(super) struct Delivery {
    /// The framing of the upstream's body.
    pub(super) framing: Framing,
    /// The request was a HEAD.
    pub(super) to_head: bool,
    /// The client's connection stays.
    pub(super) keep: bool,
    /// Headers of GRIP end here.
    pub(super) grip: bool,
}

impl Delivery {
    /// True if the client gets the body in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        matches!(self.framing, Framing::Chunked(_) | Framing::Endless)
    }
}

/// Appends the head of the final response.
pub(super) fn write(out: &mut BytesMut, head: &ResponseHead<'_>, delivery: &Delivery) {
    begin(out, head);
    let mut dated = false;
    let without_length = matches!(head.status, 100..200 | 204);
    fields(out, head, delivery.grip, |out, lower, name, value| {
        dated |= lower == "date";
        match lower {
            "content-length" => {
                let length = head.length.filter(|_| !without_length);
                if let Some(length) = length {
                    let mut digits = itoa::Buffer::new();
                    let length = digits.format(length).as_bytes();
                    put(out, &[name.as_bytes(), b": ", length, b"\r\n"]);
                }
            }
            _ => put(out, &[name.as_bytes(), b": ", value, b"\r\n"]),
        }
    });
    if !dated {
        // RFC 9110, section 6.6.1.
        put_date(out);
    }
    if delivery.is_chunked() || (delivery.to_head && head.chunked) {
        put(out, &[b"Transfer-Encoding: chunked\r\n"]);
    }
    let connection = if delivery.keep { "keep-alive" } else { "close" };
    put(out, &[b"Connection: ", connection.as_bytes(), b"\r\n\r\n"]);
}

/// Appends the head of a response that is followed by another; `grip` = headers of GRIP end here.
pub(super) fn write_interim(out: &mut BytesMut, head: &ResponseHead<'_>, grip: bool) {
    begin(out, head);
    fields(out, head, grip, |out, lower, name, value| {
        if lower != "content-length" {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
    });
    put(out, &[b"\r\n"]);
}

/// Appends the head of a response that agrees to another protocol. It goes on as it came; `grip` =
/// but for headers of GRIP.
pub(super) fn write_agreement(out: &mut BytesMut, head: &ResponseHead<'_>, grip: bool) {
    begin(out, head);
    for (name, value) in &head.fields {
        let ends = name.eq_ignore_ascii_case(PUBLISH) || grip && is_own(name);
        if !ends {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
    }
    put(out, &[b"\r\n"]);
}

fn begin(out: &mut BytesMut, head: &ResponseHead<'_>) {
    let mut digits = itoa::Buffer::new();
    let status = digits.format(head.status).as_bytes();
    put(out, &[b"HTTP/1.1 ", status, b" ", head.reason, b"\r\n"]);
}

/// The fields that go on, each with its name in lower case and as it came; `grip` = without those
/// of GRIP.
fn fields(
    out: &mut BytesMut,
    head: &ResponseHead<'_>,
    grip: bool,
    mut each: impl FnMut(&mut BytesMut, &str, &str, &[u8]),
) {
    let lists = head.named("connection").flat_map(|list| list.split(|byte| *byte == b','));
    let named: SmallVec<[&[u8]; 4]> = lists.map(<[u8]>::trim_ascii).collect();
    for (name, value) in &head.fields {
        let mut lower = SmallVec::<[u8; 64]>::from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        // A header's name is ASCII.
        let lower = std::str::from_utf8(&lower).unwrap_or_default();
        let claimed = named.iter().any(|word| word.eq_ignore_ascii_case(lower.as_bytes()));
        let ends = lower == "transfer-encoding"
            || lower == PUBLISH
            || ends_here(lower, claimed)
            || grip && is_own(lower);
        if !ends {
            each(out, lower, name, value);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The head that the client gets of `head`, to a GET.
    fn of(head: &str, keep: bool) -> String {
        let head = format!("HTTP/1.1 {head}Date: x\r\n\r\n");
        let head = ResponseHead::parse(head.as_bytes()).unwrap();
        let delivery = Delivery { framing: head.framing(false), to_head: false, keep, grip: false };
        let mut out = BytesMut::new();
        write(&mut out, &head, &delivery);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_head_goes_on_with_the_framing_and_the_connection_of_the_client() {
        let date = "Date: x\r\n";
        let chunked = "Transfer-Encoding: chunked\r\n";
        let close = "Connection: close\r\n\r\n";
        for (head, expected) in [
            ("200 So be it\r\nContent-Length: 05\r\n", "200 So be it\r\nContent-Length: 5\r\n"),
            ("204\r\nContent-Length: 5\r\n", "204 \r\n"),
            ("304 \r\nContent-Length: 5\r\n", "304 \r\nContent-Length: 5\r\n"),
            (
                "200 OK\r\nConnection: close, X-A, Set-Cookie\r\nX-A: 1\r\nSet-Cookie: a\r\n\
                 Upgrade: h2\r\npollgate-publish: x\r\nContent-Length: 0\r\n",
                "200 OK\r\nSet-Cookie: a\r\nContent-Length: 0\r\n",
            ),
        ] {
            let expected = format!("HTTP/1.1 {expected}{date}{close}");
            assert_eq!(of(head, false), expected);
        }
        for head in ["200 OK\r\nTransfer-Encoding: CHUNKED\r\n", "200 OK\r\n"] {
            let kept = format!("HTTP/1.1 200 OK\r\n{date}{chunked}Connection: keep-alive\r\n\r\n");
            assert_eq!(of(head, true), kept);
        }
    }

    #[test]
    fn a_response_without_a_date_gets_one_and_an_interim_one_gets_nothing() {
        let head = ResponseHead::parse(b"HTTP/1.1 103 Hints\r\nLink: a\r\nTE: b\r\n\r\n").unwrap();
        let mut out = BytesMut::new();
        write_interim(&mut out, &head, false);
        assert_eq!(&out[..], b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n");
        let head = ResponseHead::parse(b"HTTP/1.1 200 OK\r\nX: a\r\n\r\n").unwrap();
        let mut out = BytesMut::new();
        let delivery =
            Delivery { framing: Framing::Length(0), to_head: true, keep: true, grip: false };
        write(&mut out, &head, &delivery);
        assert!(String::from_utf8(out.to_vec()).unwrap().contains("\r\nDate: "));
    }
}
