//! Polls that are cut off at the upstream and held on, while pingora waits for a server to try next.

use super::error_page::page;
use super::{Context, session};
use crate::protocol::http::Reply;
use crate::server::gate::counters::SiteFile;
use crate::server::gate::replay::{HeldReplay, ReplayOutcome};
use crate::server::gate::{Gate, RETRY_AFTER};
use crate::server::telemetry::refusal::Refusal;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

/// The end of a poll that does not go to the upstream again: its response, if its client is there.
pub(super) struct End(Option<Reply>);

/// Takes the poll back from the upstream if it was cut off there; true if so.
pub(super) fn begin(gate: &Gate, context: &mut Context, error: &Error) -> bool {
    let was_cut =
        context.was_cut.take().is_some_and(|cut| cut.load(std::sync::atomic::Ordering::SeqCst));
    if !was_cut || *error.esource() == ErrorSource::Downstream {
        return false;
    }
    let Some(released) = context.released.take() else { return false };
    context.forwarded.cut(gate.counters(), context.settings.site.as_deref());
    // Its connection is closed.
    context.file = None;
    context.held_on = Some(released.cut_off());
    true
}

/// Holds the poll until it goes to the upstream again; the error is that it does not.
pub(super) async fn wait(
    gate: &Gate,
    session: &mut Session,
    context: &mut Context,
    held: Box<HeldReplay>,
) -> Result<()> {
    let ended = session::replay(session.as_mut(), held).await;
    context.held = Some((ended.held, ended.cause));
    let reply = match ended.end {
        ReplayOutcome::Forward(mut released) => {
            context.file = SiteFile::new(gate);
            if context.file.is_some() {
                context.released = Some(released);
                return Ok(());
            }
            gate.refused(Refusal::FdLimit);
            released.failed();
            Some(page(503).with("Retry-After", RETRY_AFTER))
        }
        ReplayOutcome::Reply(reply) => Some(reply),
        ReplayOutcome::Gone => None,
    };
    context.held_on_end = Some(End(reply));
    let over = Error::explain(ErrorType::Custom("over"), "the poll is answered here");
    Err(over.into_down())
}

/// Answers a poll that does not go to the upstream again; returns the status, 0 = none.
pub(super) async fn answer(session: &mut Session, end: &mut End) -> u16 {
    // Pingora closes a connection whose request it could not pass on.
    session.set_keepalive(None);
    let Some(reply) = end.0.take() else { return 0 };
    let status = reply.status;
    if let Err(error) = session::write(session.as_mut(), &reply).await {
        tracing::debug!(%error, "cannot answer a poll that was held on");
    }
    status
}
