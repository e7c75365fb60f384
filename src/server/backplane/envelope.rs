//! The envelope of a message between gates and in the shared history:
//! `epoch seq stamp published kind content-type`, a line feed, and the body.

use crate::hub::channel::{Epoch, Kind, Message, Payload, Position, Stamp, Time};
use bytes::Bytes;
use std::sync::Arc;

/// The letter for a kind.
pub(super) fn letter(kind: Kind) -> &'static str {
    match kind {
        Kind::Json => "j",
        Kind::Text => "t",
        Kind::Binary => "b",
    }
}

/// Reads a message; `None` if it is none. Text that is no UTF-8 is taken for bytes: PHP may have
/// put it there.
pub(super) fn read(envelope: Vec<u8>) -> Option<Message> {
    let envelope = Bytes::from(envelope);
    let end = memchr::memchr(b'\n', &envelope)?;
    let mut words = std::str::from_utf8(&envelope[..end]).ok()?.splitn(6, ' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let epoch = Epoch::from_number(number()?);
    let seq = number()?;
    let stamp = Stamp(number()?);
    let published = Time(number()?);
    let kind = words.next()?;
    let content_type: Arc<str> = words.next()?.into();
    let body = envelope.slice(end + 1..);
    let kind = match kind {
        "j" if serde_json::from_slice::<&serde_json::value::RawValue>(&body).is_ok() => Kind::Json,
        "j" | "t" if std::str::from_utf8(&body).is_ok() => Kind::Text,
        "j" | "t" | "b" => Kind::Binary,
        _ => return None,
    };
    let payload = Payload { kind, content_type, body };
    Some(Message { position: Position { epoch, seq }, stamp, tag: 0, published, payload })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_with_its_body_verbatim() {
        let message =
            read(b"1000000000 7 12 11 t text/plain; charset=UTF-8\na\nb \xc3\xbc".to_vec())
                .unwrap();
        assert_eq!((message.epoch().number(), message.position.seq), (1_000_000_000, 7));
        assert_eq!((message.stamp, message.published), (Stamp(12), Time(11)));
        assert_eq!(&*message.payload.content_type, "text/plain; charset=UTF-8");
        assert_eq!(
            (message.payload.kind, &message.payload.body[..]),
            (Kind::Text, "a\nb ü".as_bytes())
        );
    }

    #[test]
    fn what_is_not_what_it_claims_to_be_is_taken_for_less() {
        let kind = |envelope: &[u8]| read(envelope.to_vec()).map(|message| message.payload.kind);
        assert_eq!(kind(b"1 1 1 1 j application/json\n{\"a\":1}"), Some(Kind::Json));
        assert_eq!(kind(b"1 1 1 1 j application/json\n{"), Some(Kind::Text));
        assert_eq!(kind(b"1 1 1 1 t text/plain\n\xff"), Some(Kind::Binary));
        for bad in
            [&b""[..], b"1 1 1 1 t text/plain", b"1 1 1 t x\n", b"x 1 1 1 t x\n", b"1 1 1 1 q x\n"]
        {
            assert_eq!(kind(bad), None, "{bad:?}");
        }
    }
}
