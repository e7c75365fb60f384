//! The events that a stream has in common with all others of its channel and transport.
//!
//! Such an event is looked up, framed and written as it is, within the wait for it: nothing is made,
//! copied or kept for one stream. All else is for the loop ([`run`](super::run)).

use super::HeldStream;
use crate::hub::channel::Time;
use crate::server::gate::front::response::{chunk, chunk_length};
use crate::server::gate::serve::Exchange;
use bytes::Bytes;
use std::task::{Context, Poll};
use std::time::Instant;

/// Events that are written without a look at the client and the timer in between.
const MAX_IN_A_ROW: u32 = 8;

/// Why the wait ends.
pub(in crate::server::gate) enum Woken {
    /// There is something that is not the same for all, or the end.
    Look,
    /// The client has not taken all at once of an event, which was published then.
    Rest(Box<(Bytes, Time)>),
}

impl HeldStream {
    /// Writes the shared events that come. Ready once there is something else to do.
    pub(super) fn poll_shared<E: Exchange>(
        &mut self,
        exchange: &mut E,
        context: &mut Context<'_>,
    ) -> Poll<Result<Woken, E::Error>> {
        for _ in 0..MAX_IN_A_ROW {
            if self.waiter.poll_notified(context).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if !self.placed || self.has_ended(now) {
                break;
            }
            let time = (self.gate.shared.clock)();
            let Some((bytes, published)) = self.take_shared(exchange.is_chunked(), time) else {
                break;
            };
            self.written = now;
            let left = match exchange.write_coded(context, &bytes) {
                Ok(left) => left,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if let Some(left) = left {
                return Poll::Ready(Ok(Woken::Rest(Box::new((left, published)))));
            }
            // It was taken at once, so at the time of the look.
            self.gate.shared.counters.written(published, time);
        }
        Poll::Ready(Ok(Woken::Look))
    }

    /// The next event and its time, if it is the only one, is the same for all, and was made for
    /// another stream. The stream's place moves past it. `None` = nothing has changed.
    fn take_shared(&mut self, chunked: bool, now: Time) -> Option<(Bytes, Time)> {
        let key = self.said.key()?;
        let rendered = self.waiter.look_for_rendered(now, |renders| match chunked {
            true => renders.get_coded(key, chunk),
            false => renders.get(key),
        })?;
        let length = rendered.bytes.len();
        self.bytes += if chunked { chunk_length(&rendered.bytes) } else { length };
        self.events += 1;
        let gate = &self.gate.shared;
        gate.counters.delivered_one(self.waiter.channel(), &gate.metrics.watched);
        Some((rendered.bytes, rendered.published))
    }
}
