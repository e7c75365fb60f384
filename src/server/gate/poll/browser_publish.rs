//! Empty messages that browsers publish, as the script of the `novcomet` dialect does.

use super::admission::{Decision, Incoming, Purpose};
use super::replies::{allowed_origin, finished};
use crate::hub::channel::ChannelName;
use crate::protocol::dialect::{self, Poll};
use crate::protocol::http::Reply;
use crate::server::gate::route::Rule;
use crate::server::gate::{Gate, Settings};
use crate::server::telemetry::refusal::Refusal;
use std::sync::Arc;

/// An empty message that a browser publishes.
pub struct PublishByBrowser {
    pub(super) channel: ChannelName,
    pub(super) rule: Arc<Rule>,
    /// The origin that may read the response.
    pub(super) origin: Option<Box<str>>,
}

impl Gate {
    /// Publishes an empty message for a browser; the response is that of PHP's `touch()`: true or
    /// false.
    pub async fn publish(&self, publish: Box<PublishByBrowser>) -> Reply {
        let PublishByBrowser { channel, rule, origin } = *publish;
        let published = (self.shared.browser_publish)(channel).await;
        if !published {
            self.refused(Refusal::TableFull);
        }
        let (status, word) = if published { (200, "true") } else { (503, "false") };
        let reply = Reply::new(status, dialect::PHP_CONTENT_TYPE, word);
        finished(reply.with("X-Content-Type-Options", "nosniff"), &rule, origin.as_deref())
    }

    /// Lets a browser publish that may poll the channel. The error is as that of [`Gate::decide`].
    pub(super) fn publish_for_browser(
        &self,
        settings: &Settings,
        rule: &Arc<Rule>,
        request: &Incoming<'_>,
        channel: &str,
    ) -> Decision {
        match ChannelName::new(channel) {
            Ok(name) if settings.pusher.has(&name) => {
                let error = "events on the channels of a Pusher app are the site's\n";
                let reply = Reply::new(403, "text/plain; charset=UTF-8", error);
                let origin = allowed_origin(rule, request.headers);
                self.refuse(rule, origin.as_deref(), Refusal::UnknownChannel, reply)
            }
            Ok(name) => {
                let poll = Poll::on(settings.scoped(name));
                let admission = self.admission(settings, rule, request, poll, Purpose::Publish);
                self.authorized(settings, admission, request)
            }
            Err(error) => {
                let reply = Reply::new(400, "text/plain; charset=UTF-8", format!("{error}\n"));
                let origin = allowed_origin(rule, request.headers);
                self.refuse(rule, origin.as_deref(), Refusal::BadRequest, reply)
            }
        }
    }
}
