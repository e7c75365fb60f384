//! The bench's messages: a number that counts up in each channel, padded to an ordinary size.

use std::io::Write;

/// The length of a message in bytes.
pub(crate) const LENGTH: usize = 200;

const DIGITS: usize = 10;

/// Message number `seq` of a channel: `#0000000007#xxx...`.
pub(crate) fn body(seq: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(LENGTH);
    // A Vec takes every write.
    let _ = write!(body, "#{seq:0DIGITS$}#");
    body.resize(LENGTH, b'x');
    body
}

/// The numbers of all messages in an answer, however the contestant wraps them.
pub(crate) fn numbers(answer: &[u8]) -> impl Iterator<Item = u64> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        loop {
            let start = rest.iter().position(|byte| *byte == b'#')?;
            let found = rest.get(start + 1..start + 2 + DIGITS).and_then(number);
            rest = &rest[start + 1..];
            if let Some(number) = found {
                rest = &rest[DIGITS + 1..];
                return Some(number);
            }
        }
    })
}

fn number(marked: &[u8]) -> Option<u64> {
    let (mark, digits) = marked.split_last()?;
    (*mark == b'#').then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}
