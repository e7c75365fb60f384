//! Reading into a buffer that is only there while it holds something.

use crate::server::gate::front::buffer_pool;
use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads up to `room` bytes into `buffer`, which holds no memory while nothing has come.
pub(super) fn fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    room: usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() == 0 {
        *buffer = buffer_pool::take();
    }
    if buffer.capacity() - buffer.len() < room {
        buffer.reserve(room);
    }
    let mut bounded = stream.take(room as u64);
    let read = pin!(bounded.read_buf(buffer)).poll(context);
    if read.is_pending() && buffer.is_empty() {
        buffer_pool::put(std::mem::take(buffer));
    }
    read
}
