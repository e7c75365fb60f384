//! Publishing on the public listener: the one way in for clients from outside, with a publisher's
//! token only.
//!
//! The token is checked before any of the body is read. The body is bounded in length, in its rate,
//! and by the memory for all bodies.

use super::Settings;
use crate::protocol::http::{Headers, Reply};
use crate::protocol::mercure::{self, MAX_TOPIC_BYTES, Parameters, Target};
use crate::server::gate::proxy::session::{self, read_piece};
use crate::server::gate::{Gate, RETRY_AFTER};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::body_rate::BodyRate;
use crate::server::telemetry::refusal::Refusal;
use bytes::BytesMut;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

/// What a refused publisher may still send on a connection that is kept.
const MAX_DISCARDED: u64 = 64 << 10;

impl Settings {
    /// The longest form: each byte of a message may be escaped, and beside it stand its topics.
    fn longest_body(&self) -> u64 {
        self.max_message.saturating_add(2 * MAX_TOPIC_BYTES as u64).saturating_mul(3)
    }
}

/// The hub that a request publishes at.
pub(in crate::server::gate) fn hub_of<'a>(
    settings: &'a crate::server::gate::Settings,
    head: &RequestHeader,
) -> Option<&'a Settings> {
    let hub = settings.mercure.as_ref().filter(|_| head.method == http::Method::POST)?;
    (hub.hub.target(head.uri.path()) == Some(Target::Hub)).then_some(hub)
}

/// Publishes the update in a request for `hub` and returns the response.
pub(in crate::server::gate) async fn publish(
    gate: &Gate,
    settings: &crate::server::gate::Settings,
    hub: &Settings,
    session: &mut ServerSession,
) -> Result<Reply> {
    let reply = answer(gate, settings, hub, session).await?;
    Ok(hub.finished(reply, &session.req_header().headers))
}

async fn answer(
    gate: &Gate,
    settings: &crate::server::gate::Settings,
    hub: &Settings,
    session: &mut ServerSession,
) -> Result<Reply> {
    let head = session.req_header();
    let query = Parameters::new(head.uri.query().unwrap_or_default());
    let publisher = hub.hub.publisher(query, &head.headers, gate.seconds());
    let length = Headers::get(&head.headers, "content-length").map(|text| text.parse().ok());
    let length: Option<u64> = length.map(|length| length.unwrap_or(u64::MAX));
    let kind = Headers::get(&head.headers, "content-type").map(str::to_owned);
    let publisher = match publisher {
        Ok(publisher) => publisher,
        Err(refused) => {
            discard(settings, session, length).await?;
            return Ok(gate.refuse_mercure(&refused));
        }
    };
    let mut share = BodyShare::new(&settings.bodies);
    let body = match read(settings, session, hub.longest_body(), length, &mut share).await? {
        Ok(body) => body,
        Err((cause, reply)) => {
            session.set_keepalive(None);
            gate.refused(cause);
            return Ok(reply);
        }
    };
    let millis = (gate.shared.clock)().0 / 1_000;
    let made = mercure::made_id(millis, fastrand::u128(..));
    let update = hub.hub.update(&publisher, kind.as_deref(), &body, made);
    drop(body);
    match (update, gate.shared.mercure.publish.get()) {
        (Ok(update), Some(publish)) => Ok(publish(hub.hub.site.clone(), update).await),
        (Ok(_), None) => Ok(mercure::plain(503, "the gate takes no updates yet")),
        (Err(refused), _) => Ok(gate.refuse_mercure(&refused)),
    }
}

/// Reads a refused publisher's body if it is short, and ends the connection otherwise.
async fn discard(
    settings: &crate::server::gate::Settings,
    session: &mut ServerSession,
    length: Option<u64>,
) -> Result<()> {
    match length {
        Some(0..=MAX_DISCARDED) => {
            session::discard_body(session, settings.write_timeout, settings.body_rate).await
        }
        _ => {
            session.set_keepalive(None);
            Ok(())
        }
    }
}

/// Reads the whole body; the refusal is the response where it is too long, or finds no room.
async fn read(
    settings: &crate::server::gate::Settings,
    session: &mut ServerSession,
    most: u64,
    length: Option<u64>,
    share: &mut BodyShare,
) -> Result<Result<BytesMut, (Refusal, Reply)>> {
    let too_long = || {
        let reply = mercure::plain(413, "the update is longer than history.max_message allows");
        Ok(Err((Refusal::MessageSize, reply)))
    };
    let no_room = || {
        let reply = mercure::plain(503, "too many bodies are read at once; try again later");
        Ok(Err((Refusal::BodyMemory, reply.with("Retry-After", RETRY_AFTER))))
    };
    if length.is_some_and(|length| length > most) {
        return too_long();
    }
    let mut body = BytesMut::new();
    session::answer_expect(session).await?;
    let stall = settings.write_timeout;
    let mut rate = BodyRate::new(settings.body_rate);
    while let Some(piece) = read_piece(session, stall, &mut rate).await? {
        if (body.len() + piece.len()) as u64 > most {
            return too_long();
        }
        // The form is decoded beside the body, and stored beside that.
        if !share.grow(3 * piece.len()) {
            return no_room();
        }
        body.extend_from_slice(&piece);
    }
    Ok(Ok(body))
}
