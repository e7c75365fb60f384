//! Observers of a request on its way to the upstream and of its response.
//!
//! They see the bytes that pass and cannot change them. Their own memory is bounded.

use super::Headers;
use crate::hub::channel::SiteName;
use std::future::Future;
use std::pin::Pin;

/// The head of a request, before it is forwarded.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, still escaped.
    pub path: &'a str,
    /// The query, behind the `?`.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The site that it is for.
    pub site: &'a SiteName,
    /// It is a poll that was held until now: the request is no message, its response may be one.
    pub poll: bool,
}

/// Selects the requests to observe.
pub trait Observe: Send + Sync {
    /// The observer of this request; `None` = it is not observed.
    fn attend(&self, request: RequestHead<'_>) -> Option<Box<dyn Observer>>;
}

/// Work that remains at the end.
pub type Completion = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Observes one request. It may be dropped at any time, and then does nothing.
pub trait Observer: Send + Sync {
    /// The request is sent from its beginning (perhaps again).
    fn begin(&mut self);

    /// A piece of the request's body; the `last` one may come without bytes.
    fn request_body(&mut self, piece: &[u8], last: bool);

    /// The head of the response; not that of an interim one.
    fn response_head(&mut self, status: u16, headers: &dyn Headers);

    /// A piece of the response's body.
    fn response_body(&mut self, piece: &[u8]);

    /// The response is complete.
    fn end(self: Box<Self>) -> Completion;
}
