//! A buffer that the connections of a thread take in turn, so that a request allocates none.
//!
//! Nearly every request is read and answered without a pause in between, so one buffer a thread is
//! always there. A connection that waits while it has the buffer keeps it; the next one gets a new
//! one.

use bytes::BytesMut;
use std::cell::Cell;

/// A buffer that has grown beyond this many bytes is not kept.
const MAX_KEPT: usize = 16 * 1024;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// An empty buffer, mostly one with capacity.
pub(super) fn take() -> BytesMut {
    SPARE.take()
}

/// Puts a buffer back and clears it.
pub(super) fn put(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.capacity() <= MAX_KEPT {
        SPARE.set(buffer);
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
