//! A request on a connection, from its head to its response.

use super::exchange::{LaneExchange, Unwritten};
use super::forward::Passed;
use super::request_log::{RequestLog, reject};
use super::{Connection, Disposition};
use crate::protocol::http::framing::Framing;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::access_log;
use crate::server::gate::forward::Forward;
use crate::server::gate::front::handshake::{self, Transport};
use crate::server::gate::front::head::{self, Head};
use crate::server::gate::front::{Front, buffer_pool};
use crate::server::gate::grip;
use crate::server::gate::proxy::forwarded::{Client, Way};
use crate::server::gate::proxy::request_context::RequestContext;
use crate::server::gate::serve::{Answering, Served, serve};
use crate::server::gate::sites::{Chosen, ambiguous, misdirected};
use crate::server::gate::{Decision, Incoming, Settings};
use bytes::BytesMut;
use pingora::server::ShutdownWatch;
use std::borrow::Cow;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// The outcome of reading a head.
enum Admission {
    /// The lane serves it.
    Own(Decision, RequestLog, Client),
    /// It is forwarded.
    Forward(Box<Forward>, RequestLog),
    /// Pingora serves the request, which is framed like this.
    HandOff(Framing, Box<RequestContext>),
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

/// What another server has made of a request: the lane holds and answers it, with nothing left of the
/// asking.
pub(super) struct Serving {
    settings: Arc<Settings>,
    answering: Answering,
    account: RequestLog,
}

impl<'a> Own<'a> {
    fn new(connection: &'a mut Connection, front: &'a Front, serving: Serving) -> Self {
        let Serving { settings, answering, account } = serving;
        if connection.fresh {
            // Its time for the first head is shorter than those of its other waits.
            connection.timer.disarm();
        }
        let exchange = LaneExchange::new(connection, front, settings, account.keep);
        Self { exchange, answering, account }
    }

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

impl Connection {
    /// Serves the request whose head is the first `length` pending bytes.
    pub(super) fn request<'a>(
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
                self.remember(&decision);
                match Answering::of(&settings, decision) {
                    Ok(answering) => {
                        drop(self.take_head(length, false));
                        Request::Own(Own::new(
                            self,
                            front,
                            Serving { settings, answering, account },
                        ))
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

    /// Holds and answers a request. Its way so far takes no room any more.
    // The future of an `async fn` has its arguments twice.
    #[allow(clippy::manual_async_fn)]
    pub(super) fn serve<'a>(
        &'a mut self,
        front: &'a Front,
        serving: Box<Serving>,
    ) -> impl Future<Output = Disposition> + Send + 'a {
        let mut own = Own::new(self, front, *serving);
        async move {
            let served = own.answering.run(&mut own.exchange).await;
            own.end(served)
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
            .choose(head.request_host(), self.shown.as_ref())
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

    /// Keeps the memberships of a poll for the next one.
    fn remember(&mut self, decision: &Decision) {
        let Decision::Hold(held) = decision else { return };
        if let Some(known) = held.known()
            && self.known().is_none_or(|before| !before.is(known))
        {
            self.aside.get_or_insert_default().known = Some(known.clone());
        }
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
            Passed::Own(decision, account, client) => match Answering::of(&settings, decision) {
                Ok(answering) => {
                    Disposition::Serve(Box::new(Serving { settings, answering, account }))
                }
                Err(decision) => {
                    // Its head is used up.
                    let about = (decision, account, client);
                    Box::pin(self.serve_other(front, settings, 0, about)).await
                }
            },
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
        let decision = match decision {
            Decision::Ask(pending) => {
                let decision = Box::pin(pending.resume(&settings)).await;
                match Answering::of(&settings, decision) {
                    Ok(answering) => {
                        let serving = Serving { settings, answering, account };
                        return Disposition::Serve(Box::new(serving));
                    }
                    Err(decision) => decision,
                }
            }
            decision => decision,
        };
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
            host: head.host,
            path: head.path,
            query: &Query::parse(head.query),
            form: None,
            body: None,
            headers: &head.headers,
            client: client.address,
            way,
            can_upgrade: head.socket,
            known: self.known(),
        };
        match front.gate.decide(settings, &incoming) {
            Decision::Site => to_upstream(),
            decision => Admission::Own(decision, account, client),
        }
    }
}
