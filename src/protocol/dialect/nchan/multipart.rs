//! Messages as the parts of `multipart/mixed` (RFC 2046, section 5.1).
//!
//! A part ends with the boundary that follows it, so that its reader need not wait for the next
//! one; the line end behind that boundary comes with what follows.

use super::id::Id;
use super::{date, media_type};
use crate::hub::channel::Message;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What follows the last boundary.
pub(super) const END: &str = "--\r\n";

/// The content type of an answer with this boundary.
pub(super) fn content_type(boundary: &str) -> String {
    format!("multipart/mixed; boundary={boundary}")
}

/// A boundary that stands in none of the messages.
pub(super) fn boundary<'a>(messages: impl Iterator<Item = &'a Message> + Clone) -> String {
    let mut number = 0u32;
    loop {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        for message in messages.clone() {
            (message.position, message.len()).hash(&mut hasher);
        }
        let boundary = format!("pollgate{:016x}{number:08x}", hasher.finish());
        let finder = memchr::memmem::Finder::new(boundary.as_bytes());
        if messages.clone().all(|message| finder.find(&message.payload.body).is_none()) {
            return boundary;
        }
        number = number.wrapping_add(1);
    }
}

/// Appends the first boundary.
pub(super) fn begin(out: &mut Vec<u8>, boundary: &str) {
    out.extend_from_slice(b"--");
    out.extend_from_slice(boundary.as_bytes());
}

/// Appends a part; `headers` are its own beside its content type, each with its line end.
pub(super) fn part(out: &mut Vec<u8>, boundary: &str, headers: &str, message: &Message) {
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers.as_bytes());
    let media_type = media_type(&message.payload);
    if !media_type.is_empty() {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(media_type.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&message.payload.body);
    out.extend_from_slice(b"\r\n");
    begin(out, boundary);
}

/// The headers of a part that say where it leaves its client.
pub(super) fn headers(id: &Id, reset: bool) -> String {
    let mut headers = String::from("Last-Modified: ");
    date::write(&mut headers, id.second);
    headers.push_str("\r\nEtag: ");
    headers.push_str(&id.tag);
    headers.push_str("\r\n");
    if reset {
        headers.push_str(super::RESET_HEADER);
        headers.push_str(": 1\r\n");
    }
    headers
}
