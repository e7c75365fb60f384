//! Forwarding: a request goes from the client's connection straight to the upstream.
//!
//! A response that is an instruction of GRIP goes to the caller, who holds the request.
//!
//! Streams of HTTP/2 are forwarded likewise ([`Http2Stream`]). The engine (`proxy`) does the same for
//! what is odd: HTTP/1.0, targets with a host, connections on which a user signs in, polls that were
//! held. What the upstream gets and what the
//! client gets is the same either way, and the same observers see it; this way costs a fraction.
//!
//! Both heads are read strictly and written anew, both bodies are framed anew: what two readers could
//! understand differently goes nowhere. A request is sent again once where the upstream cannot have
//! acted on it: it took nothing of it, or a kept connection broke without a response and the method
//! is idempotent (RFC 9112, section 9.3.1).

mod answer;
mod connect;
mod exchange;
mod failure;
mod fill;
mod http2_stream;
mod pool;
mod request;
mod tunnel;

pub(super) use exchange::Room;
pub(super) use failure::Failure;
pub(super) use http2_stream::{Http2Stream, framing};
pub(super) use request::RequestParts;

use super::counters::{Forwarded, SiteFile};
use super::grip::withheld::Withheld;
use super::proxy::connection_state::signs_in;
use super::proxy::forwarded::{Client, Way};
use super::proxy::tap::Tap;
use super::{Gate, Settings, Timer};
use crate::hub::channel::SiteName;
use crate::protocol::http::framing::Framing;
use crate::protocol::http::observer::{Observe, RequestHead};
use crate::server::gate::front::buffer_pool;
use crate::server::limits::body_rate::BodyRate;
use answer::Delivery;
use bytes::BytesMut;
use connect::{Link, connect};
use exchange::{Bounds, ClientStream, Exchange, Near, Onward};
use pingora::server::ShutdownWatch;
use pool::Pool;
use std::sync::Arc;

/// Forwards requests; one for all listeners.
pub struct Forwarder {
    pool: Pool,
    observe: Arc<dyn Observe>,
    is_off: bool,
}

impl Forwarder {
    /// Keeps up to `max_idle` connections to the upstream; `observe` observes the exchanges.
    pub fn new(max_idle: usize, observe: Arc<dyn Observe>) -> Self {
        // The tests of forwarding run over the engine, too.
        let by_engine = std::env::var_os("POLLGATE_TESTS_FORWARD").is_some_and(|by| by == "engine");
        let is_off = cfg!(debug_assertions) && by_engine;
        Self { pool: Pool::new(max_idle), observe, is_off }
    }

    /// The request, ready to be forwarded; `None` = it is the engine's. `keep` = the client lets its
    /// connection live on.
    pub(super) fn prepare(
        &self,
        request: &RequestParts<'_>,
        site: &SiteName,
        way: &Way,
        keep: bool,
    ) -> Option<Box<Forward>> {
        let endless = *request.framing == Framing::Endless && !request.socket;
        if self.is_off
            || endless
            || !request.target.starts_with('/')
            || signs_in(request.headers)
            || !request::is_plain(request.headers)
        {
            return None;
        }
        Some(Box::new(Forward::new(request, site, way, keep, &*self.observe)))
    }
}

/// A request on its way to the upstream.
pub(super) struct Forward {
    /// Its head, as the upstream gets it.
    head: BytesMut,
    /// The same, where the site may be asked again.
    again: Option<Box<[u8]>>,
    /// Its sender.
    pub(super) client: Client,
    body: Framing,
    to_head: bool,
    idempotent: bool,
    socket: bool,
    /// The client lets its connection live on.
    keep: bool,
    tap: Tap,
}

impl Forward {
    /// Prepares a request that came on this `way`; `keep` = the client lets its connection live
    /// on.
    fn new(
        request: &RequestParts<'_>,
        site: &SiteName,
        way: &Way,
        keep: bool,
        observe: &dyn Observe,
    ) -> Self {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let mut tap = Tap::default();
        let observed = RequestHead {
            method: request.method,
            path,
            query,
            headers: request.headers,
            site,
            poll: false,
        };
        tap.begin(observe, observed);
        // Bytes that follow belong to the other protocol, once the upstream has agreed to it.
        let body = if request.socket { Framing::Length(0) } else { request.framing.clone() };
        if body.is_over() {
            tap.request_body(None, true);
        }
        let mut buffer = buffer_pool::take();
        request::write(&mut buffer, request, way);
        // It stays until the upstream answers, so it takes no more room than it needs.
        let head = BytesMut::from(&buffer[..]);
        buffer_pool::put(buffer);
        Self {
            again: request.grip.map(|_| Box::from(&head[..])),
            client: way.client,
            head,
            body,
            to_head: request.method == "HEAD",
            idempotent: is_idempotent(request.method),
            socket: request.socket,
            keep,
            tap,
        }
    }
}

/// True if sending such a request twice does no more than sending it once (RFC 9110, section
/// 9.2.2).
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// The client's connection, and what a request on it is served with.
pub(super) struct Lane<'a, C> {
    pub(super) stream: &'a mut C,
    /// Bytes behind the request's head.
    pub(super) pending: &'a mut BytesMut,
    pub(super) timer: &'a mut Timer,
    pub(super) gate: &'a Gate,
    pub(super) settings: &'a Settings,
    pub(super) forwarder: &'a Forwarder,
    pub(super) shutdown: &'a ShutdownWatch,
    pub(super) file: SiteFile,
    pub(super) room: Room,
}

/// The end of a request.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The status of the response that the client got, or the beginning of it; 0 = none.
    pub(super) status: u16,
    /// Bytes of its body.
    pub(super) bytes: u64,
    pub(super) failure: Option<Failure>,
    /// Some of a response has reached the client, so that no other may begin.
    pub(super) begun: bool,
    /// The client's connection is good for another request.
    pub(super) keep: bool,
    /// The upstream asks the client to sign in on its connection.
    pub(super) signs_in: bool,
    /// The upstream's response and the head of the request, if the client has got nothing since it
    /// is to be held.
    pub(super) withheld: Option<(Box<Withheld>, Box<[u8]>)>,
}

/// Has the upstream answer a request.
pub(super) async fn run<C>(lane: Lane<'_, C>, forward: Box<Forward>) -> Outcome
where
    C: ClientStream,
{
    let mut counted = Forwarded::default();
    let mut outcome = Outcome::default();
    let gate = lane.gate;
    let site = lane.settings.site.as_deref();
    counted.begin();
    let failure = pass(lane, forward, &mut counted, &mut outcome).await.err();
    let left = failure.is_some_and(Failure::is_of_client);
    counted.end(gate.counters(), site, left);
    outcome.keep &= failure.is_none();
    outcome.failure = failure;
    outcome
}

async fn pass<C>(
    lane: Lane<'_, C>,
    forward: Box<Forward>,
    counted: &mut Forwarded,
    outcome: &mut Outcome,
) -> Result<(), Failure>
where
    C: ClientStream,
{
    let Lane { stream, pending, timer, gate, settings, forwarder, shutdown, room, file: _file } =
        lane;
    let Forward { head, again, body, to_head, idempotent, socket, keep, mut tap, .. } = *forward;
    let grip = settings.grip.is_some();
    let pool = &forwarder.pool;
    let bounds = Bounds {
        silence: settings.read_timeout,
        stall: settings.write_timeout,
        aside: settings.head.bytes,
        room,
    };
    let Link { server, socket: upstream, kept } = connect(pool, settings, false).await?;
    let mut server = server;
    let near = Near { stream, pending, timer, tap: &mut tap, grip };
    let rate = BodyRate::new(settings.body_rate);
    let mut exchange = Exchange::new(near, upstream, head, body, rate, bounds);
    let found = match exchange.read_head().await {
        Err(Failure::Broken(_)) if kept && exchange.can_repeat(idempotent) => {
            let link = connect(pool, settings, true).await?;
            server = link.server;
            exchange.repeat(link.socket);
            exchange.read_head().await
        }
        found => found,
    };
    outcome.begun = exchange.is_begun();
    let length = found?;
    let ending = *shutdown.borrow() || gate.is_draining();
    let mut status = 0;
    let mut lasting = false;
    exchange.accept(length, to_head, |head, body_over| {
        if head.status == 101 && !socket {
            return Err(Failure::Malformed("the upstream changes the protocol unasked"));
        }
        counted.answered(gate.counters(), settings.site.as_deref(), head.status);
        status = head.status;
        lasting = head.keep;
        outcome.signs_in = signs_in(head);
        // The rest of a request that is answered before its end is not waited for; what follows one
        // for another protocol is nothing that can be read.
        outcome.keep = keep && !ending && !socket && body_over;
        if head.status == 101 {
            return Ok(Onward::Switch);
        }
        if !to_head && let Some(withheld) = Withheld::new(settings, head.status, head) {
            return Ok(Onward::Withhold(withheld));
        }
        let framing = head.framing(to_head);
        Ok(Onward::Deliver(Delivery { framing, to_head, keep: outcome.keep, grip }))
    })?;
    if status == 101 {
        outcome.status = status;
        let (stream, timer, mut upstream, first) = exchange.switch();
        outcome.bytes =
            tunnel::run(stream, &mut upstream, first, timer, settings.read_timeout).await;
        return Ok(());
    }
    let delivered = exchange.deliver().await;
    outcome.begun = exchange.is_begun();
    if outcome.begun {
        outcome.status = status;
        outcome.bytes = exchange.length();
    }
    delivered?;
    if let Some(withheld) = exchange.withheld().await? {
        // Its request is read to the end by now, unless the upstream takes no more of it.
        outcome.keep = keep && !ending && !socket && exchange.is_read();
        outcome.withheld = again.map(|again| (withheld, again));
    }
    if let Some(upstream) = exchange.finish()
        && lasting
        && !outcome.signs_in
    {
        pool.put(server, upstream);
    }
    Ok(())
}
