//! Tracks the requests of a connection as their bytes pass, for a later reader that is more lenient
//! about chunked bodies.

use super::framing::{Framing, Misframed};

/// Maximum length of a tracked head.
const MAX: usize = 64 * 1024;

/// State of a connection.
#[derive(Debug)]
pub struct BodyTracker(State);

#[derive(Debug)]
enum State {
    /// In a head, or before one: the bytes received so far.
    Head(Vec<u8>),
    Body(Framing),
    /// After a head that its reader refuses: the bytes that follow are no request.
    Over,
    Misframed,
}

/// Phase of a connection, for a reader that waits for more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before a request.
    Between,
    /// In a head.
    Head,
    /// In a body, or behind a head that is refused.
    Body,
}

impl Default for BodyTracker {
    fn default() -> Self {
        Self(State::Head(Vec::new()))
    }
}

impl BodyTracker {
    /// An error if a body was framed wrongly.
    pub fn check(&self) -> Result<(), Misframed> {
        if matches!(self.0, State::Misframed) { Err(Misframed) } else { Ok(()) }
    }

    /// The phase of the connection.
    pub fn place(&self) -> Phase {
        match &self.0 {
            State::Head(head) if head.is_empty() => Phase::Between,
            State::Head(_) => Phase::Head,
            State::Body(_) | State::Over | State::Misframed => Phase::Body,
        }
    }

    /// Number of the next `bytes` that may be read; an error if none. If it is not all of them, no
    /// more may be read.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Misframed> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            match &mut self.0 {
                State::Over => return Ok(bytes.len()),
                State::Misframed if taken == 0 => return Err(Misframed),
                State::Misframed => break,
                State::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(rest);
                    let Some(end) = end(head) else {
                        if head.len() > MAX {
                            self.0 = State::Over;
                        }
                        return Ok(bytes.len());
                    };
                    taken += end - before;
                    self.0 =
                        super::validate::framing(&head[..end]).map_or(State::Over, State::Body);
                }
                State::Body(framing) => match framing.take(rest) {
                    Ok(length) => taken += length,
                    Err(Misframed) => self.0 = State::Misframed,
                },
            }
            if matches!(&self.0, State::Body(framing) if framing.is_over()) {
                *self = Self::default();
            }
        }
        Ok(taken)
    }
}

/// End of the first head in `bytes`. An empty line before it is skipped.
fn end(bytes: &[u8]) -> Option<usize> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let at = memchr::memmem::find(&bytes[start..], b"\r\n\r\n")?;
    Some(start + at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of bytes that pass before the first that does not, when they come in pieces.
    fn passed(bytes: &[u8], piece: usize) -> usize {
        let mut follower = BodyTracker::default();
        let mut passed = 0;
        for part in bytes.chunks(piece) {
            match follower.take(part) {
                Ok(length) => passed += length,
                Err(Misframed) => break,
            }
        }
        passed
    }

    const HEAD: &str = "POST /publish HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn requests_pass_however_they_are_torn() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let all = format!("{get}\r\n{length}{HEAD}2\r\nab\r\n0\r\n\r\n{get}");
        for piece in 1..all.len() {
            assert_eq!(passed(all.as_bytes(), piece), all.len(), "{piece}");
        }
    }

    #[test]
    fn a_body_that_is_framed_wrongly_passes_no_further() {
        for chunks in ["2;a=b\r\nab\r\n0\r\n\r\n", "2 \r\nab\r\n0\r\n\r\n", "\r\nab\r\n", "2\nab"] {
            let all = format!("{HEAD}{chunks}");
            assert_eq!(passed(all.as_bytes(), all.len()), HEAD.len(), "{chunks:?}");
            assert!(passed(all.as_bytes(), 1) < all.len(), "{chunks:?}");
        }
    }

    #[test]
    fn a_head_that_is_refused_is_not_followed() {
        let all = "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n0;\r\n";
        assert_eq!(passed(all.as_bytes(), 5), all.len());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(parts: Vec<Vec<u8>>) {
            let mut follower = BodyTracker::default();
            for part in parts {
                if let Ok(length) = follower.take(&part) {
                    assert!(length <= part.len());
                }
            }
        }
    }
}
