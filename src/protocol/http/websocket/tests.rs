#![allow(clippy::unwrap_used)]

use super::*;
use bytes::{Bytes, BytesMut};
use std::slice;

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = frame(Opcode::Text, payload);
    (out[0], out[1]) = (first, out[1] | 0x80);
    let at = out.len() - payload.len();
    let mask = [1, 2, 3, 4];
    let body: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
    out.splice(at.., mask.into_iter().chain(body));
    out
}

fn read(bytes: &[u8]) -> Result<Option<Frame>, CloseCode> {
    take(&mut BytesMut::from(bytes), 70_000)
}

#[test]
fn the_rfc_s_key_has_the_rfc_s_answer() {
    let accepted = accept("dGhlIHNhbXBsZSBub25jZQ==").unwrap();
    assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for bad in ["", "dGhl", "no base64 at all", "dGhlIHNhbXBsZSBub25jZQ"] {
        assert_eq!(accept(bad), None, "{bad}");
    }
}

#[test]
fn frames_of_all_lengths_are_read_however_they_are_torn() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![b'x'; length];
        let bytes = masked(0x82, &payload);
        for cut in [1, 2, 3, 7, bytes.len() - 1] {
            if cut < bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{length} at {cut}");
            }
        }
        let mut two = BytesMut::from(&[&*bytes, &bytes[..1]].concat()[..]);
        let frame = take(&mut two, 70_000).unwrap().unwrap();
        assert_eq!((frame.fin, frame.opcode, frame.payload.len()), (true, Opcode::Binary, length));
        assert!(frame.payload.iter().all(|byte| *byte == b'x'));
        assert_eq!(two.len(), 1);
    }
}

#[test]
fn what_breaks_a_rule_is_refused_by_its_header_alone() {
    let protocol = Err(CloseCode::Protocol);
    assert_eq!(read(&frame(Opcode::Ping, b"")), protocol, "unmasked");
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x8b, 0x8f, 0x09, 0x08] {
        assert_eq!(read(&masked(first, b"a")[..2]), protocol, "{first:x}");
    }
    assert_eq!(read(&masked(0x89, &[0; 126])[..2]), protocol, "a long ping");
    assert_eq!(read(&[0x81, 0xfe, 0, 5]), protocol, "a length in too long a form");
    assert_eq!(read(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), protocol);
    assert_eq!(read(&[0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]), protocol, "a sign bit");
    let long = read(&[0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0]);
    assert_eq!(long, Err(CloseCode::TooBig));
}

#[test]
fn a_close_is_answered_with_its_code_or_with_what_is_wrong() {
    let with = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    assert_eq!(close_answer(b""), Ok(1000));
    assert_eq!(close_answer(&with(1001, b"bye")), Ok(1001));
    assert_eq!(close_answer(&with(3000, "ü".as_bytes())), Ok(3000));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000] {
        assert_eq!(close_answer(&with(code, b"")), Err(CloseCode::Protocol), "{code}");
    }
    assert_eq!(close_answer(b"\x03"), Err(CloseCode::Protocol));
    assert_eq!(close_answer(&with(1000, b"\xff")), Err(CloseCode::Invalid));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let frame = close(CloseCode::Policy, &"é".repeat(100));
    assert_eq!(frame[..4], [0x88, 124, 0x03, 0xf0]);
    assert!(std::str::from_utf8(&frame[4..]).is_ok());
}

fn part(opcode: Opcode, fin: bool, payload: &[u8]) -> Frame {
    Frame { fin, opcode, payload: Bytes::copy_from_slice(payload) }
}

#[test]
fn messages_are_joined_from_their_frames() {
    let text = Opcode::Text;
    let binary = Opcode::Binary;
    let more = Opcode::Continuation;
    let mut messages = Messages::default();
    let whole = messages.take(part(text, true, b"whole"));
    assert_eq!(whole, Ok(Some(Incoming::Text("whole".into()))));
    assert_eq!(messages.take(part(text, false, b"in ")), Ok(None));
    assert_eq!((messages.room(10), messages.room(2)), (7, 0));
    // A control frame between them changes nothing.
    let ping = messages.take(part(Opcode::Ping, true, b"?"));
    assert_eq!(ping, Ok(Some(Incoming::Ping("?".into()))));
    assert_eq!(messages.take(part(more, false, b"pi")), Ok(None));
    let joined = messages.take(part(more, true, b"eces"));
    assert_eq!(joined, Ok(Some(Incoming::Text("in pieces".into()))));
    assert_eq!(messages.room(10), 10);
    assert_eq!(messages.take(part(more, true, b"")), Err(CloseCode::Protocol));
    assert_eq!(messages.take(part(binary, false, b"\xff")), Ok(None));
    let joined = messages.take(part(more, true, b"\xfe"));
    assert_eq!(joined, Ok(Some(Incoming::Binary(b"\xff\xfe"[..].into()))));
    assert_eq!(messages.take(part(text, false, b"")), Ok(None));
    assert_eq!(messages.take(part(binary, true, b"")), Err(CloseCode::Protocol));
}

#[test]
fn text_ends_at_the_frame_that_makes_it_invalid() {
    let text = Opcode::Text;
    let more = Opcode::Continuation;
    assert_eq!(Messages::default().take(part(text, true, b"\xff")), Err(CloseCode::Invalid));
    // A character of four bytes may be cut anywhere, but not at the end of its message.
    let mut messages = Messages::default();
    for (at, byte) in "\u{10348}".bytes().enumerate() {
        let opcode = if at == 0 { text } else { more };
        assert_eq!(messages.take(part(opcode, false, slice::from_ref(&byte))), Ok(None));
    }
    assert_eq!(messages.take(part(more, false, b"\xf0\x90")), Ok(None));
    assert_eq!(messages.take(part(more, true, b"")), Err(CloseCode::Invalid));
    // Beyond the last code point, and half of a pair of surrogates.
    for bad in [&b"\xf4\x90"[..], b"\xed\xa0"] {
        let mut messages = Messages::default();
        assert_eq!(messages.take(part(text, false, b"good")), Ok(None));
        assert_eq!(messages.take(part(more, false, bad)), Err(CloseCode::Invalid), "{bad:?}");
    }
}

#[test]
fn a_message_has_no_more_bytes_than_it_may_whatever_its_frames() {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&masked(0x01, b"abc"));
    bytes.extend_from_slice(&masked(0x80, b"de"));
    let mut messages = Messages::default();
    assert_eq!(messages.next(&mut bytes.clone(), 5), Ok(Some(Incoming::Text("abcde".into()))));
    assert_eq!(messages.next(&mut bytes, 4), Err(CloseCode::TooBig));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let mut bytes = BytesMut::from(&bytes[..]);
        let mut messages = Messages::default();
        while let Ok(Some(_)) = messages.next(&mut bytes, 100) {}
    }
}
