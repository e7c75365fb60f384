//! One client connection on the fast path, request by request.

mod exchange;
mod forward;
mod read;
mod request_log;

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
use crate::server::gate::serve::{Served, serve};
use crate::server::gate::sites::{Chosen, ambiguous, misdirected};
use crate::server::gate::tls::Presented;
use crate::server::gate::{Connected, Decision, Incoming, Settings, Timer};
use crate::server::limits::body_rate::BodyRate;
use crate::server::telemetry::refusal::Refusal;
use bytes::BytesMut;
use exchange::LaneExchange;
use forward::Passed;
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use request_log::{RequestLog, reject};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::AsyncWriteExt;

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

/// Serves a connection until either side ends it.
pub(super) async fn run(
    front: Arc<Front>,
    stream: Stream,
    peer: Option<IpAddr>,
    _connected: Connected,
    shutdown: ShutdownWatch,
) {
    // Boxed: a handshake is over soon, and its room would stay with the connection.
    let greeted = Box::pin(handshake::handshake(&front, stream, shutdown.clone())).await;
    let Some(Greeted { stream, speech, shown }) = greeted else { return };
    let registered = front.ending.register().await;
    let pending = BytesMut::new();
    let timer = Timer::default();
    let mut connection =
        Connection { stream, peer, pending, speech, shown, fresh: true, timer, group: 0 };
    loop {
        let read = connection.read_head(&front, &registered).await;
        let Some((sighting, settings)) = read else { return };
        let after = match connection.agreed(sighting) {
            HeadScan::More => Disposition::Close,
            HeadScan::Refused(status, wrong) => {
                connection.refuse(&front, &settings, status, wrong).await
            }
            HeadScan::Http2 => return connection.hand_off_http2(&front, &shutdown).await,
            HeadScan::Head(length) => connection.request(&front, settings, length, &shutdown).await,
        };
        match after {
            Disposition::Keep => connection.fresh = false,
            Disposition::Close => return Box::pin(connection.close()).await,
            Disposition::HandOff(length, framing, handed) => {
                // Boxed to keep the connection's own future small.
                let engine = connection.hand_off(&front, length, framing, handed, &shutdown);
                match Box::pin(engine).await {
                    Some(back) => connection = back,
                    None => return,
                }
            }
        }
    }
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
    async fn request(
        &mut self,
        front: &Front,
        settings: Arc<Settings>,
        mut length: usize,
        shutdown: &ShutdownWatch,
    ) -> Disposition {
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
        let (decision, account, client) = match considered {
            Ok(Admission::Own(decision, account, client)) => (decision, account, client),
            Ok(Admission::Forward(forward, account)) => {
                // Boxed to keep the connection's own future small.
                let passing = self.forward(front, &settings, length, (forward, account), shutdown);
                match Box::pin(passing).await {
                    Passed::Over(disposition) => return disposition,
                    Passed::Own(decision, account, client) => {
                        // Its head is used up.
                        length = 0;
                        (decision, account, client)
                    }
                }
            }
            Ok(Admission::HandOff(framing, handed)) => {
                return Disposition::HandOff(length, framing, handed);
            }
            Err((status, wrong)) => return self.refuse(front, &settings, status, wrong).await,
        };
        // A poll that goes to the upstream later has to keep its head for it.
        let may_replay = matches!(decision, Decision::Replay(_) | Decision::Ask(_));
        let head: Box<[u8]> = self.pending[..if may_replay { length } else { 0 }].into();
        // The buffer goes back to the pool, so that a held poll holds none.
        let early = BytesMut::from(&self.pending[length..]);
        buffer_pool::put(std::mem::replace(&mut self.pending, early));
        let keep = account.keep;
        let mut exchange =
            LaneExchange { connection: self, front, settings: &settings, keep, chunked: false };
        let served = serve(&front.gate, &settings, decision, &mut exchange).await;
        let keep = exchange.keep;
        match served {
            Served::Done { held, events, answer } => {
                let written = answer.ok().flatten();
                account.log(&settings, written, held, events);
                if written.is_some() && keep { Disposition::Keep } else { Disposition::Close }
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
        let http2 = Http2::new(front, self.shown);
        // Boxed, as it would be part of every connection.
        let accept = Arc::new(http2).accept(Box::new(BoundedWindow::new(stream)), shutdown.clone());
        Box::pin(accept).await;
    }

    /// Writes a response. Returns true if that succeeded. The stream beneath bounds its time.
    async fn write(&mut self, reply: &Reply, keep: bool) -> bool {
        let mut bytes = buffer_pool::take();
        response::write(&mut bytes, reply, keep);
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.write_all(response::rest(reply)).await?;
            self.stream.flush().await
        };
        let written = written.await.is_ok();
        buffer_pool::put(bytes);
        written
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
        let written = self.write(&reply, false).await;
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
