//! Buffers that the connections of a thread take in turn, so that a request allocates none.
//!
//! Nearly every request is read and answered without a pause in between, so a few buffers a thread
//! are always there. A connection that waits while it has one keeps it; the next one gets a new
//! one.

use bytes::BytesMut;
use std::cell::RefCell;

/// A buffer that has grown beyond this many bytes is not kept. One that is read into with 16 KiB of
/// room may have twice that.
const MAX_KEPT: usize = 32 * 1024;
/// Buffers that a thread keeps: a forwarded request uses four.
const MAX_BUFFERS: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, mostly one with capacity.
pub(in crate::server::gate) fn take() -> BytesMut {
    SPARE.with_borrow_mut(|spare| spare.pop().unwrap_or_default())
}

/// Puts a buffer back and clears it.
pub(in crate::server::gate) fn put(mut buffer: BytesMut) {
    buffer.clear();
    if (1..=MAX_KEPT).contains(&buffer.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_with_its_room() {
        let mut buffer = take();
        buffer.extend_from_slice(b"GET / HTTP/1.1");
        let room = buffer.capacity();
        put(buffer);
        let again = take();
        assert_eq!((again.len(), again.capacity()), (0, room));
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        put(BytesMut::with_capacity(MAX_KEPT + 1));
        assert_eq!(take().capacity(), 0);
    }
}
