//! A tap on the exchanges between a client and the upstream: the proxy reports what passes, and the
//! tap passes it on to the [`Observer`].
//!
//! The observer's completion runs before the last piece of the response goes to the client, if it
//! does not wait; else it goes on beside it. So a client that has its response finds its message
//! published.

use crate::protocol::http::Headers;
use crate::protocol::http::observer::{Observe, Observer, RequestHead};
use std::pin::Pin;
use std::task::{Context, Waker};

/// The header with which an upstream publishes.
pub(in crate::server::gate) const PUBLISH: &str = "pollgate-publish";

/// Observes one request, or none.
#[derive(Default)]
pub(in crate::server::gate) struct Tap(Option<Box<dyn Observer>>);

impl Tap {
    /// The request is about to be forwarded; `poll` = it was held until now.
    pub(in crate::server::gate) fn begin(
        &mut self,
        attention: &dyn Observe,
        head: RequestHead<'_>,
    ) {
        // Another server is tried: bytes sent to the one before do not count.
        if let Some(attendant) = &mut self.0 {
            return attendant.begin();
        }
        self.0 = attention.attend(head);
    }

    pub(in crate::server::gate) fn request_body(&mut self, piece: Option<&[u8]>, last: bool) {
        if let Some(attendant) = &mut self.0 {
            attendant.request_body(piece.unwrap_or_default(), last);
        }
    }

    /// The head of a response; `empty` = no body follows.
    pub(in crate::server::gate) fn response_head(
        &mut self,
        status: u16,
        headers: &dyn Headers,
        empty: bool,
    ) {
        if let Some(attendant) = self.0.as_mut().filter(|_| status >= 200) {
            attendant.response_head(status, headers);
            if empty || matches!(status, 204 | 304) || headers.get("content-length") == Some("0") {
                self.end();
            }
        }
    }

    pub(in crate::server::gate) fn response_body(&mut self, piece: Option<&[u8]>, last: bool) {
        if let (Some(attendant), Some(piece)) = (&mut self.0, piece) {
            attendant.response_body(piece);
        }
        if last {
            self.end();
        }
    }

    /// The response is complete.
    pub(in crate::server::gate) fn end(&mut self) {
        let Some(attendant) = self.0.take() else { return };
        let mut deed = attendant.end();
        let mut context = Context::from_waker(Waker::noop());
        if Pin::new(&mut deed).poll(&mut context).is_pending() {
            // It is polled again there, and leaves a waker that wakes.
            tokio::spawn(deed);
        }
    }
}
