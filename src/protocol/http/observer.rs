//! Those who listen along while a request passes to the site and its answer comes back.
//!
//! They are handed what passes and can change none of it. What they keep has bounds of their own.

use http::HeaderMap;
use std::future::Future;
use std::pin::Pin;

/// The head of a request, before it passes.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, its escapes as they stand.
    pub path: &'a str,
    /// What stands behind the `?`.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// It is a poll that was held until now: what it says is no message, its answer may be one.
    pub poll: bool,
}

/// Says which requests are worth attention.
pub trait Observe: Send + Sync {
    /// Who listens to this one; `None` = nobody.
    fn attend(&self, request: RequestHead<'_>) -> Option<Box<dyn Observer>>;
}

/// What is to be done in the end.
pub type Completion = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Listens to one request. It may be dropped at any time, and then does nothing.
pub trait Observer: Send + Sync {
    /// The request is sent from its beginning (again).
    fn begin(&mut self);

    /// A piece of the request's body; the `last` one may come without bytes.
    fn request_body(&mut self, piece: &[u8], last: bool);

    /// The head of the answer; not that of an interim one.
    fn response_head(&mut self, status: u16, headers: &HeaderMap);

    /// A piece of the answer's body.
    fn response_body(&mut self, piece: &[u8]);

    /// The answer is complete.
    fn end(self: Box<Self>) -> Completion;
}
