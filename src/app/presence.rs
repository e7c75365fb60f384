//! Connects presence in the hub with the parts that wake, list and report.

use super::live::LiveSettings;
use crate::hub::presence::Sinks;
use crate::protocol::dialect::presence;
use crate::protocol::http::Reply;
use crate::server::gate::Gate;
use crate::server::publish::{Publisher, Roster};
use std::sync::Arc;

/// Lets joins and leaves wake the polls that wait for them.
pub(super) fn connect(live: &LiveSettings, publisher: &Publisher) {
    let publisher = publisher.clone();
    let wake = Box::new(move |wake| publisher.notify(wake));
    live.hub.presence().report_to(Sinks { wake, ..Sinks::default() });
}

/// The hook's lists of users.
pub(super) fn hook_roster(gate: &Gate) -> Roster {
    let gate = gate.clone();
    Arc::new(move |channel| {
        let roster = gate.roster(channel);
        Box::pin(async move {
            match roster.await {
                Ok(roster) => Reply::new(200, "application/json", presence::list(&roster)),
                Err(reason) => {
                    Reply::error(503, reason, "try again later").with("Retry-After", "1")
                }
            }
        })
    })
}
