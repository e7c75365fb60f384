//! WebSockets whose site is asked over HTTP: what the client does is events in requests, what the
//! site says is events in their responses, and items go to the client without either.
//!
//! One request at a time is at the site; what comes meanwhile goes along with the next. A client
//! that sends faster than the site takes it is not read. Its pings are answered here, and its end
//! is one request, not two.

mod client;
mod session;
mod site;

use super::hold::reply;
use super::origin::{Answer, Origin};
use super::withheld::refuse;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::grip::events::{CONTENT_TYPE, Event, Kind, read};
use crate::protocol::grip::instruct::Response;
use crate::protocol::grip::{is_left_out, is_own};
use crate::protocol::http::path::normalize;
use crate::protocol::http::{Headers, Reply, websocket};
use crate::server::gate::counters::StreamCount;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::proxy::forwarded::{Way, is_dropped};
use crate::server::gate::serve::{Exchange, Served};
use crate::server::gate::{Decision, Gate, RETRY_AFTER, Settings};
use crate::server::limits::permit::Permit;
use crate::server::telemetry::refusal::Refusal;
use bytes::Bytes;
use session::Session;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// A WebSocket that a client wants to open.
pub struct Socket {
    gate: Gate,
    origin: Origin,
    /// The answer to its key.
    accept: String,
    _permit: Permit,
}

/// The request that opens a socket.
pub(in crate::server::gate) struct Opening<'a, I> {
    /// The path, escaped.
    pub(in crate::server::gate) path: &'a str,
    /// Path and query.
    pub(in crate::server::gate) target: &'a str,
    pub(in crate::server::gate) headers: &'a dyn Headers,
    /// The same headers one by one.
    pub(in crate::server::gate) each: I,
    pub(in crate::server::gate) client: Option<IpAddr>,
    pub(in crate::server::gate) way: Way,
}

/// The longest body of a refusal that goes to the client.
const MAX_REFUSAL: usize = 100_000;

impl Gate {
    /// What becomes of a request for a WebSocket; `None` = it is none of GRIP's.
    pub(in crate::server::gate) fn grip_socket<'a>(
        &self,
        settings: &Arc<Settings>,
        opening: Opening<'a, impl Iterator<Item = (&'a str, &'a [u8])>>,
    ) -> Option<Decision> {
        let grip = settings.grip.as_ref()?;
        let path = normalize(opening.path);
        grip.websocket.iter().find(|pattern| pattern.matches(&path))?;
        let headers = opening.headers;
        let refused = |reply: Reply| {
            self.refused(Refusal::BadRequest);
            Some(Decision::Reply(reply, None))
        };
        if headers.get("sec-websocket-version").map(str::trim) != Some("13") {
            let reply =
                Reply::error(426, "this version of WebSocket is not known", "use version 13");
            return refused(reply.with("Sec-WebSocket-Version", "13"));
        }
        let key = headers.get("sec-websocket-key").map(str::trim);
        let Some(accept) = key.and_then(websocket::accept) else {
            let error = "there is no proper Sec-WebSocket-Key";
            return refused(Reply::error(400, error, "send 16 random bytes in base64"));
        };
        let permit = match self.permit(settings, opening.client, None) {
            Ok(permit) => permit,
            Err(rejection) => {
                self.refused(Refusal::HoldMax);
                let reply = Reply::error(503, rejection, "try again later");
                return Some(Decision::Reply(reply.with("Retry-After", RETRY_AFTER), None));
            }
        };
        let host = headers.get("host").unwrap_or_default();
        let set = opening.way.headers(headers, host);
        let trusted = opening.way.client.trusted;
        let passed = opening.each.filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !is_dropped(&name, trusted)
                && !is_of_events(&name)
                && !set.iter().any(|(own, _)| name.eq_ignore_ascii_case(own))
        });
        let passed = passed.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
        let set = set.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone().into()));
        let origin = Origin::of_socket(settings, opening.target, passed.chain(set));
        Some(Decision::Grip(Box::new(Self::socket(self, origin, accept, permit))))
    }

    fn socket(&self, origin: Origin, accept: String, _permit: Permit) -> Socket {
        Socket { gate: self.clone(), origin, accept, _permit }
    }
}

/// True if a header of that (lower case) name is the gate's own in a request with events.
fn is_of_events(name: &str) -> bool {
    is_own(name)
        || name.starts_with("meta-")
        || matches!(
            name,
            "accept"
                | "connection-id"
                | "content-bytes-replayed"
                | "content-type"
                | "sec-websocket-extensions"
        )
}

impl Socket {
    /// Opens the socket if the site agrees, and serves it until either side ends it.
    pub(in crate::server::gate) async fn run<E: Exchange>(
        self: Box<Self>,
        exchange: &mut E,
    ) -> Served<E::Error> {
        let began = Instant::now();
        let mut session = Session::new(&self.gate, &self.origin);
        session.push(Event::bare(Kind::Open));
        // Boxed, as it is not there while the socket is open.
        let asked = Box::pin(session.request()).await;
        let opened = asked.and_then(|(_, answer)| Opened::of(answer, &self.accept));
        let (head, answer) = match opened {
            Ok(Opened::Agreed(head, answer)) => (head, answer),
            Ok(Opened::Refused(refusal)) => return refused(exchange, refusal).await,
            Err(error) => return refused(exchange, refuse(&error)).await,
        };
        let _count = StreamCount::new(&self.gate, Transport::WebSocket);
        let served = async {
            exchange.start(&head, &[]).await?;
            session.serve(exchange, answer).await
        };
        let ended = Box::pin(served).await;
        exchange.close_after();
        let shared = &self.gate.shared;
        let (cause, answer) = match ended {
            Ok(cause) => (cause, Ok(Some((101, session.bytes)))),
            Err(error) => {
                session.gone(None);
                (Cause::Gone, Err(error))
            }
        };
        shared.counters.release(cause, None, &shared.metrics.watched);
        Served::Done { held: Some((began.elapsed(), cause)), events: Some(session.events), answer }
    }
}

async fn refused<E: Exchange>(exchange: &mut E, reply: Reply) -> Served<E::Error> {
    let written = exchange.write(&reply).await;
    let answer = written.map(|()| Some((reply.status, reply.body.len())));
    Served::Done { held: None, events: None, answer }
}

/// The site's word on a new socket.
enum Opened {
    /// The head for the client, and all that the site says.
    Agreed(Reply, Answer),
    Refused(Reply),
}

impl Opened {
    fn of(answer: Answer, accept: &str) -> Result<Self, String> {
        let events = match answer.events() {
            Some(events) => events.map_err(str::to_owned)?,
            None => {
                let Answer { status, headers, body } = answer;
                if body.len() > MAX_REFUSAL {
                    return Err("the refusal of a WebSocket is too long".to_owned());
                }
                let headers = shown(&headers, |_| false).collect();
                return Ok(Self::Refused(reply(&Response { code: status, headers, body })));
            }
        };
        let opens = events.first().is_some_and(|event| event.kind == Kind::Open);
        let waits = events.is_empty() && answer.headers.contains_key("keep-alive-interval");
        if !opens && !waits {
            return Err("the site does not begin with OPEN".to_owned());
        }
        let mut head = Reply::new(101, "", "").with("Upgrade", "websocket");
        let own = |name: &str| {
            name.starts_with("set-meta-")
                || matches!(
                    name,
                    "content-type"
                        | "content-bytes-accepted"
                        | "keep-alive-interval"
                        | "sec-websocket-accept"
                        | "sec-websocket-extensions"
                )
        };
        let shown = shown(&answer.headers, own).collect::<Vec<_>>();
        head.headers.extend(shown.into_iter().map(|(name, value)| (name.into(), value.into())));
        Ok(Self::Agreed(head.with("Sec-WebSocket-Accept", accept.to_owned()), answer))
    }
}

/// The headers of the site's that the client gets.
fn shown(
    headers: &http::HeaderMap,
    own: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (String, String)> {
    headers.iter().filter_map(move |(name, value)| {
        let name = name.as_str();
        let value = String::from_utf8(value.as_bytes().to_vec()).ok()?;
        (!own(name) && !is_left_out(name)).then(|| (name.to_owned(), value))
    })
}

impl Answer {
    /// The events in it; `None` = it is another kind of response.
    fn events(&self) -> Option<Result<Vec<Event>, &'static str>> {
        let content_type = Headers::get(&self.headers, "content-type").unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is_one = self.status == 200 && essence.eq_ignore_ascii_case(CONTENT_TYPE);
        is_one.then(|| read(&self.body))
    }
}

/// A close frame's payload.
fn close_payload(code: u16, reason: &str) -> Bytes {
    [&code.to_be_bytes(), reason.as_bytes()].concat().into()
}
