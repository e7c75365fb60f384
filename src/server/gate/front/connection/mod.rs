//! One client connection on the fast path, request by request.

mod exchange;
mod forward;
mod read;
mod request_log;
#[cfg(test)]
mod tests;

use super::ending::Registered;
use super::handshake::{self, Greeted, Protocol, Transport};
use super::head::{self, Head, HeadScan};
use super::http2::Http2;
use super::http2_window::BoundedWindow;
use super::one_request::OneRequest;
use super::{Front, buffer_pool, response};
use crate::protocol::http::framing::Framing;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::access_log;
use crate::server::gate::forward::Forward;
use crate::server::gate::grip;
use crate::server::gate::proxy::connection_state::ConnectionState;
use crate::server::gate::proxy::forwarded::{Client, Way};
use crate::server::gate::proxy::request_context::RequestContext;
use crate::server::gate::serve::{Answering, Served, serve};
use crate::server::gate::sites::{Chosen, ambiguous, misdirected};
use crate::server::gate::tls::Presented;
use crate::server::gate::{Connected, Decision, Incoming, Settings, Timer};
use crate::server::limits::body_rate::BodyRate;
use crate::server::telemetry::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use exchange::{LaneExchange, Unwritten, poll_write_all, write_rest};
use forward::Passed;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use request_log::{RequestLog, reject};
use std::borrow::Cow;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
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
    /// The group of its connections to the site.
    group: u64,
}

/// The outcome of reading a head.
enum Admission {
    /// The lane serves it.
    Own(Decision, RequestLog, Client),
    /// It is forwarded.
    Forward(Box<Forward>, RequestLog),
    /// Pingora serves the request, which is framed like this.
    HandOff(Framing, Box<RequestContext>),
}

/// The state of a connection after a request.
enum Disposition {
    Keep,
    Close,
    /// Pingora serves the request, whose head is that long.
    HandOff(usize, Framing, Box<RequestContext>),
}

/// A request on its way.
// There are many of the large one, which is to be no box of its own.
#[allow(clippy::large_enum_variant)]
enum Request<'a> {
    /// The lane holds and answers it.
    Own(Own<'a>),
    /// It takes more than that.
    Other(Pin<Box<dyn Future<Output = Disposition> + Send + 'a>>),
}

/// A request that the lane holds and answers.
struct Own<'a> {
    exchange: LaneExchange<'a>,
    answering: Answering,
    account: RequestLog,
}

impl Own<'_> {
    /// The end of the request.
    fn end(&self, served: Served<Unwritten>) -> Disposition {
        let LaneExchange { settings, keep, .. } = &self.exchange;
        match served {
            Served::Done { held, events, answer } => {
                self.account.end(settings, answer, (held, events), *keep)
            }
            // It is answered in any case.
            Served::Forward(_) => Disposition::Close,
        }
    }
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
            let after = match connection.agreed(sighting) {
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
            match after {
                Disposition::Keep => connection.fresh = false,
                Disposition::Close => return Box::pin(connection.close()).await,
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
        Connection { stream, peer, pending, speech, shown, fresh: true, timer, group: 0 };
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

    /// Serves the request whose head is the first `length` pending bytes.
    fn request<'a>(
        &'a mut self,
        front: &'a Front,
        settings: Arc<Settings>,
        length: usize,
        shutdown: &'a ShutdownWatch,
    ) -> impl Future<Output = Disposition> + Send + 'a {
        // A held poll is what there are many of: its future has no room for anything else, and
        // every other request has a future of its own.
        let (admission, settings) = self.admission(front, settings, length);
        let mut request = match admission {
            Ok(Admission::Own(decision, account, client)) => {
                match Answering::of(&settings, decision) {
                    Ok(answering) => {
                        drop(self.take_head(length, false));
                        if self.fresh {
                            // Its time for the first head is shorter than those of its other waits.
                            self.timer.disarm();
                        }
                        let exchange = LaneExchange::new(self, front, settings, account.keep);
                        Request::Own(Own { exchange, answering, account })
                    }
                    Err(decision) => {
                        let about = (decision, account, client);
                        Request::Other(Box::pin(self.serve_other(front, settings, length, about)))
                    }
                }
            }
            Ok(Admission::Forward(forward, account)) => {
                let about = (forward, account);
                let passing = self.pass_on(front, settings, length, about, shutdown);
                Request::Other(Box::pin(passing))
            }
            Ok(Admission::HandOff(framing, handed)) => {
                Request::Other(Box::pin(ready(Disposition::HandOff(length, framing, handed))))
            }
            Err((status, wrong)) => Request::Other(Box::pin(async move {
                self.refuse(front, &settings, status, wrong).await
            })),
        };
        async move {
            match &mut request {
                Request::Own(own) => {
                    let served = own.answering.run(&mut own.exchange).await;
                    own.end(served)
                }
                Request::Other(other) => other.await,
            }
        }
    }

    /// Finds out what is to be done with the request whose head is the first `length` pending bytes,
    /// and with which settings.
    fn admission(
        &self,
        front: &Front,
        settings: Arc<Settings>,
        length: usize,
    ) -> (Result<Admission, (u16, &'static str)>, Arc<Settings>) {
        let mut site = None;
        let considered = head::parse(&self.pending[..length], settings.head, |head| match settings
            .choose(head.host(), self.shown.as_ref())
        {
            Chosen::Own => self.consider(front, &settings, head),
            Chosen::Site(chosen) => {
                let admission = self.consider(front, &chosen, head);
                site = Some(chosen);
                admission
            }
            Chosen::Misdirected => self.misdirect(front, &settings, head, misdirected()),
            Chosen::Ambiguous => self.misdirect(front, &settings, head, ambiguous()),
        });
        let settings = site.unwrap_or(settings);
        (considered, settings)
    }

    /// Takes the head of `length` bytes out of the pending ones; it is returned if it is kept. The
    /// buffer goes back to the pool, so that a held poll holds none.
    fn take_head(&mut self, length: usize, keep: bool) -> Box<[u8]> {
        let head = self.pending[..if keep { length } else { 0 }].into();
        let early = BytesMut::from(&self.pending[length..]);
        buffer_pool::put(std::mem::replace(&mut self.pending, early));
        head
    }

    /// Forwards a request, and holds it if the upstream says so.
    async fn pass_on(
        &mut self,
        front: &Front,
        settings: Arc<Settings>,
        length: usize,
        (forward, account): (Box<Forward>, RequestLog),
        shutdown: &ShutdownWatch,
    ) -> Disposition {
        match self.forward(front, &settings, length, (forward, account), shutdown).await {
            Passed::Over(disposition) => disposition,
            Passed::Own(decision, account, client) => {
                // Its head is used up.
                let about = (decision, account, client);
                Box::pin(self.serve_other(front, settings, 0, about)).await
            }
        }
    }

    /// Serves a request that is not just answered. `length` is that of its head.
    async fn serve_other(
        &mut self,
        front: &Front,
        settings: Arc<Settings>,
        length: usize,
        (decision, account, client): (Decision, RequestLog, Client),
    ) -> Disposition {
        // A poll that goes to the upstream later has to keep its head for it.
        let may_replay = matches!(decision, Decision::Replay(_) | Decision::Ask(_));
        let head = self.take_head(length, may_replay);
        let mut exchange = LaneExchange::new(self, front, settings.clone(), account.keep);
        match serve(&front.gate, &settings, decision, &mut exchange).await {
            Served::Done { held, events, answer } => {
                let keep = exchange.keep;
                account.end(&settings, answer, (held, events), keep)
            }
            Served::Forward(released) => {
                self.pending = [&*head, &*self.pending].concat().as_slice().into();
                let handed = RequestContext::new(&front.gate, settings, client);
                let handed = match released {
                    Some(released) => handed.released(released),
                    None => handed.for_site(),
                };
                Disposition::HandOff(length, Framing::Length(0), handed)
            }
        }
    }

    /// Refuses a request that no site takes.
    fn misdirect(
        &self,
        front: &Front,
        settings: &Settings,
        head: &Head<'_>,
        reply: Reply,
    ) -> Admission {
        let client = Client::of(self.peer, &head.headers, &settings.trusted_proxies);
        let about = (head.path, head.query, &head.headers as &dyn Headers);
        let reply = front.gate.misdirected(settings, client.address, about, reply);
        let (reply, account) = reject(front, settings, head, client.address, reply);
        Admission::Own(Decision::Reply(reply, None), account, client)
    }

    /// Finds out what a request wants.
    fn consider(&self, front: &Front, settings: &Arc<Settings>, head: &Head<'_>) -> Admission {
        let client = Client::of(self.peer, &head.headers, &settings.trusted_proxies);
        let limited = front.gate.rate_limited(
            settings,
            client.address,
            (head.path, head.query, &head.headers),
        );
        let refused = limited.or_else(|| match front.entrance {
            Transport::Redirect(port) => {
                handshake::redirect(port, head.headers.get("host"), head.target)
            }
            Transport::Plain | Transport::Tls(_) => None,
        });
        if let Some(reply) = refused {
            let (reply, account) = reject(front, settings, head, client.address, reply);
            return Admission::Own(Decision::Reply(reply, None), account, client);
        }
        let logged = access_log::is_logged();
        let way = Way { client, tls: self.stream.get_ssl_digest().is_some() };
        let hand_off = || {
            let mut handed = RequestContext::new(&front.gate, settings.clone(), client);
            handed.upgrade = head.upgrade;
            handed
        };
        let to_upstream = || match self.prepare(front, settings, head, &way) {
            Some(forward) => Admission::Forward(forward, self.record(front, head, &client, logged)),
            None => Admission::HandOff(head.framing.clone(), hand_off().for_site()),
        };
        let socket = head.socket.then(|| {
            let opening = grip::socket::Opening {
                path: head.path,
                target: head.target,
                headers: &head.headers,
                each: head.headers.each(),
                client: client.address,
                way,
            };
            front.gate.grip_socket(settings, opening)
        });
        let socket = socket.flatten();
        // Rules match paths only; a target in another form goes to the upstream.
        if socket.is_none() && head.target.starts_with('/') && !settings.may_serve(head.path) {
            return to_upstream();
        }
        let receives = head.empty_post && settings.pusher.receives(head.path);
        if !head.plain && !head.socket && !receives {
            return Admission::HandOff(head.framing.clone(), hand_off());
        }
        let account = RequestLog {
            _open: front.gate.open(),
            began: logged.then(Instant::now),
            client: client.address,
            method: Cow::Borrowed(if head.empty_post { "POST" } else { "GET" }),
            target: logged.then(|| head.target.into()),
            keep: head.keep,
        };
        if let Some(decision) = socket {
            return Admission::Own(decision, account, client);
        }
        let incoming = Incoming {
            method: head.method,
            target: head.target,
            host: head.headers.get("host").unwrap_or_default(),
            path: head.path,
            query: &Query::parse(head.query),
            form: None,
            body: None,
            headers: &head.headers,
            client: client.address,
            way,
            can_upgrade: head.socket,
        };
        match front.gate.decide(settings, &incoming) {
            Decision::Site => to_upstream(),
            decision => Admission::Own(decision, account, client),
        }
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
        let Self { stream, peer, pending, speech, shown, timer, group, .. } = self;
        let state = Arc::new(ConnectionState::of_group(group));
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
        let group = state.group();
        Some(Self { stream, peer, pending, speech, shown, fresh, timer, group })
    }

    async fn hand_off_http2(self, front: &Front, shutdown: &ShutdownWatch) {
        let stream =
            OneRequest::new(self.stream, self.pending, 0, Framing::Endless, BodyRate::default())
                .shared_by_streams();
        let http2 = Http2::new(front.gate.clone(), front.proxy.clone(), self.shown);
        let http2 = Arc::new(http2);
        http2.process_new(Box::new(BoundedWindow::new(stream)), shutdown).await;
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
