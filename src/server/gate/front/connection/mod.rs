//! One client connection on the fast path, request by request.

mod exchange;
mod forward;
mod read;
mod request;
mod request_log;
#[cfg(test)]
mod tests;

use super::ending::Registered;
use super::handshake::{self, Greeted, Protocol};
use super::head::HeadScan;
use super::http2::Http2;
use super::http2_window::BoundedWindow;
use super::one_request::OneRequest;
use super::{Front, buffer_pool, response};
use crate::hub::presence::Known;
use crate::protocol::http::Reply;
use crate::protocol::http::framing::Framing;
use crate::server::gate::access_log;
use crate::server::gate::proxy::connection_state::ConnectionState;
use crate::server::gate::proxy::request_context::RequestContext;
use crate::server::gate::tls::Presented;
use crate::server::gate::{Connected, Settings, Timer};
use crate::server::limits::body_rate::BodyRate;
use crate::server::telemetry::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use exchange::{Unwritten, poll_write_all, write_rest};
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use request::Serving;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A connection between two requests.
struct Connection {
    stream: Stream,
    peer: Option<IpAddr>,
    /// Bytes read and not yet parsed; nothing is allocated while it is empty.
    pending: BytesMut,
    speech: Protocol,
    /// The certificate that its client was shown.
    shown: Option<Presented>,
    /// No request has come on it yet.
    fresh: bool,
    timer: Timer,
    /// What few connections have.
    aside: Option<Box<Aside>>,
}

/// What a connection keeps between its requests, in one word of it where there is nothing.
#[derive(Default)]
struct Aside {
    /// The group of its connections to the site; 0 = all clients share them.
    group: u64,
    /// The memberships of its last poll that was held.
    known: Option<Known>,
}

/// The state of a connection after a request.
enum Disposition {
    Keep,
    Close,
    /// The lane holds and answers the request, about which another server was asked.
    Serve(Box<Serving>),
    /// Pingora serves the request, whose head is that long.
    HandOff(usize, Framing, Box<RequestContext>),
}

/// Serves a connection until either side ends it.
///
/// The size of this future is the cost of a connection: all that is not there while a poll is held
/// is in a box of its own.
pub(super) fn run(
    front: Arc<Front>,
    stream: Stream,
    peer: Option<IpAddr>,
    connected: Connected,
    shutdown: ShutdownWatch,
) -> impl Future<Output = ()> + Send {
    let begun = Box::pin(begin(front.clone(), stream, peer, shutdown.clone()));
    async move {
        let _connected = connected;
        let Some((mut connection, registered)) = begun.await else { return };
        loop {
            let read = connection.read_head(&front, &registered).await;
            let Some((sighting, settings)) = read else { return };
            let mut after = match connection.agreed(sighting) {
                HeadScan::More => Disposition::Close,
                HeadScan::Refused(status, wrong) => {
                    Box::pin(connection.refuse(&front, &settings, status, wrong)).await
                }
                HeadScan::Http2 => {
                    return Box::pin(connection.hand_off_http2(&front, &shutdown)).await;
                }
                HeadScan::Head(length) => {
                    connection.request(&front, settings, length, &shutdown).await
                }
            };
            if let Disposition::Serve(serving) = after {
                after = connection.serve(&front, serving).await;
            }
            match after {
                Disposition::Keep => connection.fresh = false,
                Disposition::Close | Disposition::Serve(_) => {
                    return Box::pin(connection.close()).await;
                }
                Disposition::HandOff(length, framing, handed) => {
                    let engine = connection.hand_off(&front, length, framing, handed, &shutdown);
                    match Box::pin(engine).await {
                        Some(back) => connection = back,
                        None => return,
                    }
                }
            }
        }
    }
}

/// A connection after its handshake; `None` = it came to nothing.
async fn begin(
    front: Arc<Front>,
    stream: Stream,
    peer: Option<IpAddr>,
    shutdown: ShutdownWatch,
) -> Option<(Connection, Registered)> {
    let greeted = handshake::handshake(&front, stream, shutdown).await;
    let Greeted { stream, speech, shown } = greeted?;
    let registered = front.ending.register().await;
    let pending = BytesMut::new();
    let timer = Timer::default();
    let connection =
        Connection { stream, peer, pending, speech, shown, fresh: true, timer, aside: None };
    Some((connection, registered))
}

impl Connection {
    /// The scan's result, if it is in the protocol that was agreed on.
    fn agreed(&self, sighting: HeadScan) -> HeadScan {
        match (self.speech, &sighting) {
            (Protocol::Http1, HeadScan::Http2) => {
                HeadScan::Refused(400, "HTTP/2 was not agreed on")
            }
            // A client that has agreed on HTTP/2 would not understand a response.
            (Protocol::Http2, HeadScan::Head(_) | HeadScan::Refused(..)) => HeadScan::More,
            _ => sighting,
        }
    }

    /// The group of its connections to the site.
    fn group(&self) -> u64 {
        self.aside.as_ref().map_or(0, |aside| aside.group)
    }

    fn join_group(&mut self, group: u64) {
        if group != self.group() {
            self.aside.get_or_insert_default().group = group;
        }
    }

    /// The memberships of its last poll that was held.
    fn known(&self) -> Option<&Known> {
        self.aside.as_ref()?.known.as_ref()
    }

    /// Has pingora serve the request on this connection.
    async fn hand_off(
        self,
        front: &Front,
        length: usize,
        framing: Framing,
        handed: Box<RequestContext>,
        shutdown: &ShutdownWatch,
    ) -> Option<Self> {
        let state = Arc::new(ConnectionState::of_group(self.group()));
        let Self { stream, peer, pending, speech, shown, timer, aside, .. } = self;
        let rate = BodyRate::new(handed.settings.body_rate);
        let handed = handed.on(state.clone());
        let one = OneRequest::new(stream, pending, length, framing, rate).on(state.clone());
        let one = if handed.upgrade { one.awaiting_upgrade() } else { one };
        let session = ServerSession::new_http1(Box::new(one));
        let engine = front.proxy.process_new_http(session, shutdown);
        let (stream, _) = handed.scope(engine).await?.consume();
        // Pingora gives back the stream that was handed to it.
        let one: Box<OneRequest> = stream.into_any().downcast().ok()?;
        let (stream, pending) = one.finish()?;
        let fresh = false;
        let mut back = Self { stream, peer, pending, speech, shown, fresh, timer, aside };
        back.join_group(state.group());
        Some(back)
    }

    async fn hand_off_http2(self, front: &Front, shutdown: &ShutdownWatch) {
        let stream =
            OneRequest::new(self.stream, self.pending, 0, Framing::Endless, BodyRate::default())
                .shared_by_streams();
        let http2 = Http2::new(front, self.shown);
        Arc::new(http2).accept(Box::new(BoundedWindow::new(stream)), shutdown.clone()).await;
    }

    /// Writes a response. The stream beneath bounds its time.
    // The future of an `async fn` has its arguments twice.
    #[allow(clippy::manual_async_fn)]
    fn write(
        &mut self,
        reply: &Reply,
        keep: bool,
    ) -> impl Future<Output = Result<(), Unwritten>> + Send {
        async move {
            let at_once = poll_fn(|context| Poll::Ready(self.write_at_once(reply, keep, context)));
            match at_once.await.map_err(|_| Unwritten)? {
                left if left.is_empty() => Ok(()),
                // Boxed, as nearly every write is taken at once, and this would be part of each held
                // poll.
                left => Box::pin(write_rest(&mut self.stream, left)).await,
            }
        }
    }

    /// Writes as much of a response as is taken at once; the result is what is left.
    fn write_at_once(
        &mut self,
        reply: &Reply,
        keep: bool,
        context: &mut Context<'_>,
    ) -> io::Result<Vec<Bytes>> {
        let mut bytes = buffer_pool::take();
        response::write(&mut bytes, reply, keep);
        let mut left = Vec::new();
        let mut sent = 0;
        match poll_write_all(&mut self.stream, &bytes, &mut sent, context) {
            Poll::Ready(written) => {
                buffer_pool::put(bytes);
                written?;
            }
            Poll::Pending => left.push(bytes.split_off(sent).freeze()),
        }
        if response::rest(reply).is_empty() {
            return Ok(left);
        }
        sent = 0;
        let written = match left.is_empty() {
            true => poll_write_all(&mut self.stream, &reply.body, &mut sent, context),
            false => Poll::Pending,
        };
        match written {
            Poll::Ready(written) => written?,
            Poll::Pending => left.push(reply.body.slice(sent..)),
        }
        Ok(left)
    }

    /// Answers a request that cannot be parsed.
    async fn refuse(
        &mut self,
        front: &Front,
        settings: &Settings,
        status: u16,
        wrong: &str,
    ) -> Disposition {
        let reply = Reply::new(status, "text/plain; charset=UTF-8", format!("{wrong}\n"));
        front.gate.refused(Refusal::of_head(status));
        tracing::debug!(peer = ?self.peer, status, wrong, "refused a connection's request");
        let began = Instant::now();
        let written = self.write(&reply, false).await.is_ok();
        if access_log::is_logged() {
            let (status, bytes) = if written { (status, reply.body.len()) } else { (0, 0) };
            let client = self.peer;
            let took = began.elapsed();
            let line = access_log::Line {
                client,
                method: "-",
                target: "-",
                status,
                bytes,
                took,
                held: None,
                events: None,
            };
            access_log::log(&line, settings);
        }
        Disposition::Close
    }
}
