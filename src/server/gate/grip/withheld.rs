//! Responses of the site that are instructions, kept from the client.
//!
//! The forwarder reads such a response whole before the client gets anything. Pingora, which serves
//! HTTP/2, has no way to keep a response from the client but one: it drops interim responses for a
//! client that wants none. So the head of an instruction becomes such a response, and its body is
//! taken out piece by piece. Either way the request is answered then as far as the site goes, whose
//! connection is good for the next one; to the client nothing was sent yet.

use super::hold::Held;
use super::origin::Origin;
use crate::protocol::grip::{Instruct, is_own};
use crate::protocol::http::{Headers, Reply, to_map};
use crate::server::gate::proxy::error_page::page;
use crate::server::gate::proxy::forwarded::Client;
use crate::server::gate::proxy::session::SessionExchange;
use crate::server::gate::serve::{Exchange, Held as HeldFor, Served};
use crate::server::gate::{Gate, Settings};
use crate::server::limits::body_memory::BodyShare;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use std::net::IpAddr;
use std::sync::Arc;

/// The longest body of an instruction or of what a stream begins with, in bytes.
pub(super) const MAX_BODY: usize = 1 << 20;

/// A response that does not go to the client as it is.
#[derive(Debug)]
pub(in crate::server::gate) struct Withheld {
    status: u16,
    headers: HeaderMap,
    body: BytesMut,
    share: BodyShare,
    /// Why the body is not all here.
    lost: Option<&'static str>,
}

/// Makes the request that the site gets: no header of GRIP comes from a client.
pub(in crate::server::gate) fn prepare(
    settings: &Settings,
    upstream: &mut RequestHeader,
) -> Result<()> {
    let Some(grip) = &settings.grip else { return Ok(()) };
    let foreign = upstream.headers.keys().filter(|name| is_own(name.as_str()));
    for name in foreign.cloned().collect::<Vec<_>>() {
        upstream.remove_header(&name);
    }
    for (name, value) in grip.headers() {
        upstream.insert_header(name, &*value)?;
    }
    Ok(())
}

impl Withheld {
    /// The response to a request that was no HEAD, if it is an instruction.
    pub(in crate::server::gate) fn new(
        settings: &Settings,
        status: u16,
        headers: &dyn Headers,
    ) -> Option<Box<Self>> {
        if settings.grip.is_none() || status < 200 || !Instruct::is_in(headers) {
            return None;
        }
        let headers = to_map(headers);
        let share = BodyShare::new(&settings.bodies);
        Some(Box::new(Self { status, headers, body: BytesMut::new(), share, lost: None }))
    }

    /// Takes the headers of GRIP out of pingora's response; withholds it if it is an instruction.
    pub(in crate::server::gate) fn of(
        settings: &Settings,
        request: &RequestHeader,
        response: &mut ResponseHeader,
    ) -> Option<Box<Self>> {
        settings.grip.as_ref()?;
        let withheld = match request.method {
            Method::HEAD => None,
            _ => Self::new(settings, response.status.as_u16(), &response.headers),
        };
        let own = response.headers.keys().filter(|name| is_own(name.as_str()));
        for name in own.cloned().collect::<Vec<_>>() {
            response.remove_header(&name);
        }
        withheld
    }

    /// Keeps the head from pingora's client.
    pub(in crate::server::gate) fn swallow(session: &mut Session, head: &mut ResponseHeader) {
        session.as_mut().set_ignore_info_resp(true);
        // Only its being an interim one counts.
        let _ = head.set_status(103);
    }

    /// Takes a piece of the body.
    pub(in crate::server::gate) fn take(&mut self, piece: &[u8]) {
        if self.lost.is_some() {
            return;
        }
        if self.body.len() + piece.len() > MAX_BODY {
            self.lost = Some("the body is longer than 1 MiB");
        } else if !self.share.grow(piece.len()) {
            self.lost = Some("there is no room for the body (limits.body_memory)");
        } else {
            self.body.extend_from_slice(piece);
        }
    }

    /// The hold that the site wants for its `origin`'s request; the error says why there is none.
    pub(in crate::server::gate) fn hold(
        self,
        gate: &Gate,
        settings: &Settings,
        origin: Origin,
        client: Option<IpAddr>,
    ) -> std::result::Result<Box<Held>, String> {
        let Self { status, headers, body, mut share, lost } = self;
        if let Some(lost) = lost {
            return Err(lost.to_owned());
        }
        // Copied, so that it takes no more room than it needs.
        let instruct = Instruct::read(status, &headers, Bytes::copy_from_slice(&body))?;
        share.shrink_to(instruct.response.body.len());
        Held::new(gate, settings, origin, instruct, client, share)
    }

    /// Does on pingora's session what the site says; returns the hold, and the number of events of
    /// a stream.
    pub(in crate::server::gate) async fn serve(
        self: Box<Self>,
        gate: &Gate,
        settings: &Arc<Settings>,
        session: &mut Session,
        client: Client,
    ) -> (HeldFor, Option<u64>) {
        let held = Origin::of(settings, session, &client)
            .and_then(|origin| self.hold(gate, settings, origin, client.address));
        let session = session.as_mut();
        let keep_alive = session.get_keepalive();
        let share = BodyShare::new(&settings.bodies);
        let mut exchange = SessionExchange::new(session, gate, settings, share);
        let served = match held {
            Ok(held) => match exchange.settle(false).await {
                Ok(_) => held.run(&mut exchange).await,
                Err(error) => Served::Done { held: None, events: None, answer: Err(error) },
            },
            Err(error) => {
                let answer = write(&mut exchange, refuse(&error)).await;
                Served::Done { held: None, events: None, answer }
            }
        };
        drop(exchange);
        let Served::Done { held, events, answer } = served else { return (None, None) };
        if !matches!(answer, Ok(Some(_))) || keep_alive.is_none() {
            session.set_keepalive(None);
        }
        (held, events)
    }
}

/// The response in place of an instruction that cannot be followed.
pub(in crate::server::gate) fn refuse(error: &str) -> Reply {
    tracing::warn!(error, "the site's GRIP instruction cannot be followed");
    page(502)
}

async fn write<E: Exchange>(
    exchange: &mut E,
    reply: Reply,
) -> std::result::Result<Option<(u16, usize)>, E::Error> {
    exchange.write(&reply).await?;
    Ok(Some((reply.status, reply.body.len())))
}
