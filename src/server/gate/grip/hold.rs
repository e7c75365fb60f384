//! A hold, from the site's instruction to its end.

use super::origin::Origin;
use super::response::Outcome;
use super::subscription::Places;
use super::withheld::refuse;
use crate::hub::TableFull;
use crate::protocol::grip::instruct::Response;
use crate::protocol::grip::{self, Instruct, Mode};
use crate::protocol::http::Reply;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Served};
use crate::server::gate::stream::busy;
use crate::server::gate::{Gate, RETRY_AFTER, Settings};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::permit::{self, Permit};
use crate::server::telemetry::refusal::Refusal;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Instant;

/// See the [module](self).
pub struct Held {
    pub(super) gate: Gate,
    pub(super) origin: Origin,
    pub(super) instruct: Instruct,
    /// The site was asked again about a gap.
    pub(super) asked: bool,
    /// Where the hold was before that.
    pub(super) before: Places,
    pub(super) began: Instant,
    client: Option<IpAddr>,
    /// The memory of the response that the site has sent.
    _share: BodyShare,
}

impl Held {
    /// A hold as the site wants it. The error says why there is none.
    pub(super) fn new(
        gate: &Gate,
        settings: &Settings,
        origin: Origin,
        instruct: Instruct,
        client: Option<IpAddr>,
        _share: BodyShare,
    ) -> Result<Box<Self>, String> {
        let most = settings.limits.channels_per_poll;
        if most > 0 && instruct.channels.len() > most {
            return Err(format!("more than {most} channels (limits.channels_per_poll)"));
        }
        Ok(Box::new(Self {
            gate: gate.clone(),
            origin,
            instruct,
            asked: false,
            before: Places::new(),
            began: Instant::now(),
            client,
            _share,
        }))
    }

    /// Holds the request until its end.
    pub(in crate::server::gate) async fn run<E: Exchange>(
        mut self: Box<Self>,
        exchange: &mut E,
    ) -> Served<E::Error> {
        let mut permit = None;
        loop {
            let follows = self.instruct.next.is_some();
            if self.instruct.mode == Mode::None && !follows {
                return self.answer(exchange, reply(&self.instruct.response), None).await;
            }
            if permit.is_none() {
                match self.admit() {
                    Ok(admitted) => permit = Some(admitted),
                    Err(full) => return self.answer(exchange, full, None).await,
                }
            }
            if self.instruct.mode != Mode::Response {
                return self.stream(exchange).await;
            }
            let outcome = {
                let (timer, gone) = exchange.waiting();
                self.wait(timer, pin!(gone)).await
            };
            match outcome {
                Outcome::Again(instruct) => self.instruct = *instruct,
                Outcome::Reply(reply, cause) => {
                    return self.answer(exchange, reply, Some(cause)).await;
                }
                Outcome::Gone => {
                    exchange.close_after();
                    self.over(Cause::Gone);
                    let held = Some((self.began.elapsed(), Cause::Gone));
                    return Served::Done { held, events: None, answer: Ok(None) };
                }
            }
        }
    }

    async fn answer<E: Exchange>(
        &self,
        exchange: &mut E,
        reply: Reply,
        cause: Option<Cause>,
    ) -> Served<E::Error> {
        if let Some(cause) = cause {
            self.over(cause);
        }
        if cause == Some(Cause::Drain) {
            exchange.close_after();
        }
        let held = cause.map(|cause| (self.began.elapsed(), cause));
        let (reply, _share) = match self.origin.settings().room_for(&reply) {
            Ok(share) => (reply, share),
            Err(full) => (full, None),
        };
        let written = exchange.write(&reply).await;
        let answer = written.map(|()| Some((reply.status, reply.body.len())));
        Served::Done { held, events: None, answer }
    }

    /// Counts the end, and lets the site know of it if it wants to.
    pub(super) fn over(&self, cause: Cause) {
        let shared = &self.gate.shared;
        shared.counters.release(cause, None, &shared.metrics.watched);
        shared.counters.hold.observe(self.began.elapsed());
        let gone = self.instruct.gone.as_deref();
        if let Some(link) = gone.and_then(|uri| self.origin.resolve(None, uri)) {
            self.origin.gone(link);
        }
    }

    fn admit(&self) -> Result<Permit, Reply> {
        let settings = self.origin.settings();
        let limits = &settings.limits;
        let shared = &self.gate.shared;
        let full = |cause, status, error: &str| {
            self.gate.refused(cause);
            self.full(status, error)
        };
        let names = self.instruct.channels.iter().filter_map(|one| grip::channel(&one.name).ok());
        let names = names.map(|name| settings.scoped(name));
        if limits.per_channel > 0 && { names }
            .any(|name| shared.hub.held_on(&name) >= limits.per_channel)
        {
            return Err(full(Refusal::PerChannel, 503, "too many polls are held on this channel"));
        }
        self.gate.permit(settings, self.client, None).map_err(|rejection| {
            let (cause, status) = match rejection {
                permit::Rejection::Held => (Refusal::HoldMax, 503),
                permit::Rejection::Address => (Refusal::PerAddress, 429),
                permit::Rejection::Grant => (Refusal::PerGrant, 429),
            };
            full(cause, status, &rejection.to_string())
        })
    }

    /// The response where there is no room.
    fn full(&self, status: u16, error: &str) -> Reply {
        let content_type = self.instruct.response.header("content-type").unwrap_or_default();
        match content_type.starts_with("text/event-stream") {
            // Browsers take an error for the end.
            true => busy(error),
            false => {
                Reply::error(status, error, "try again later").with("Retry-After", RETRY_AFTER)
            }
        }
    }

    pub(super) fn table_full(&self, full: TableFull) -> Reply {
        self.gate.refused(Refusal::TableFull);
        self.full(503, &full.to_string())
    }
}

/// A response of the site's, or of an item.
pub(super) fn reply(response: &Response) -> Reply {
    if !(200..=999).contains(&response.code) {
        return refuse("the status of a response is none");
    }
    let mut reply = Reply::new(response.code, "", response.body.clone());
    if matches!(response.code, 204 | 205 | 304) {
        reply.body.clear();
    }
    let headers = response.headers.iter().cloned();
    reply.headers = headers.map(|(name, value)| (name.into(), value.into())).collect();
    reply
}
