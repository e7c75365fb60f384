//! A tap on the exchanges between a client and the upstream: the proxy reports what passes, and the
//! tap passes it on to the [`Observer`].
//!
//! The observer's completion runs before the last piece of the response goes to the client, if it
//! does not wait; else it goes on beside it. So a client that has its response finds its message
//! published.

use crate::hub::channel::SiteName;
use crate::protocol::http::observer::{Observe, Observer, RequestHead};
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use std::pin::Pin;
use std::task::{Context, Waker};

/// The header with which an upstream publishes.
pub(in crate::server::gate) const PUBLISH: &str = "pollgate-publish";

/// Observes one request, or none.
#[derive(Default)]
pub(in crate::server::gate) struct Tap(Option<Box<dyn Observer>>);

impl Tap {
    /// The request is about to be forwarded to the upstream of `site`; `poll` = it was held until
    /// now.
    pub(in crate::server::gate) fn begin(
        &mut self,
        attention: &dyn Observe,
        head: &RequestHeader,
        (site, poll): (&SiteName, bool),
    ) {
        // Another server is tried: bytes sent to the one before do not count.
        if let Some(attendant) = &mut self.0 {
            return attendant.begin();
        }
        self.0 = attention.attend(RequestHead {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            site,
            poll,
        });
    }

    pub(in crate::server::gate) fn request_body(&mut self, piece: Option<&[u8]>, last: bool) {
        if let Some(attendant) = &mut self.0 {
            attendant.request_body(piece.unwrap_or_default(), last);
        }
    }

    /// Also removes the headers that are for the gate alone.
    pub(in crate::server::gate) fn response_head(
        &mut self,
        head: &mut ResponseHeader,
        to_head: bool,
    ) {
        let status = head.status.as_u16();
        if let Some(attendant) = self.0.as_mut().filter(|_| status >= 200) {
            attendant.response_head(status, &head.headers);
            if to_head || matches!(status, 204 | 304) || is_empty(&head.headers) {
                self.end();
            }
        }
        head.remove_header(PUBLISH);
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

fn is_empty(headers: &HeaderMap) -> bool {
    headers.get("content-length").is_some_and(|length| length.as_bytes() == b"0")
}
