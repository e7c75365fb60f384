//! Presence of the clients of polls and streams, and who may see it.

use super::grant::Names;
use super::poll::admission::{Admission, Incoming};
use super::poll::hold::Cause;
use super::poll::replies::{finished, refusal};
use super::route::Rule;
use super::{Gate, RETRY_AFTER};
use crate::hub::Answer;
use crate::hub::channel::{ChannelName, Time};
use crate::hub::presence::{Entrant, Known, Member, Memberships, Roster};
use crate::protocol::auth::Rejection;
use crate::protocol::dialect::{Dialect, Poll, presence};
use crate::protocol::http::Reply;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Lists the users on a channel; the error is a reason for the client.
pub type RosterSource = Arc<
    dyn Fn(ChannelName) -> Pin<Box<dyn Future<Output = Result<Roster, String>> + Send>>
        + Send
        + Sync,
>;

/// What a client wants to know and to say about the users on its channels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    /// The answer has the users in it.
    list: bool,
    /// Its user leaves.
    leave: bool,
}

impl Wish {
    /// The request is answered at once.
    pub(super) fn is_any(self) -> bool {
        self.list || self.leave
    }
}

/// The way in which a client is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Poll,
    Stream,
}

impl Gate {
    pub(super) fn wish(&self, rule: &Rule, request: &Incoming<'_>) -> Wish {
        // Parameters of these names are the site's own in other dialects.
        if !self.shared.hub.presence().is_on() || !matches!(rule.dialect, Dialect::Native(_)) {
            return Wish::default();
        }
        let says = |name| request.query.text(name).is_some_and(|value| value == "1");
        Wish { list: says("presence"), leave: says("leave") }
    }

    /// The channels whose grants a poll needs: joins and leaves are read by the grant for the
    /// channel they are about.
    pub(super) fn authorized_by(&self, poll: &Poll) -> Names {
        let mut names = Names::new();
        for subscription in &poll.subscriptions {
            let name = self.subject(&subscription.channel);
            // Only a subject may be there twice.
            if !self.shared.hub.presence().is_on() || !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// True if the grants for `names` are enough for a channel.
    pub(super) fn is_granted(&self, channel: &ChannelName, names: &Names) -> bool {
        names.contains(channel) || names.contains(&self.subject(channel))
    }

    fn subject(&self, channel: &ChannelName) -> ChannelName {
        let subject = self.shared.hub.presence().subject(channel);
        subject.map_or_else(|| channel.clone(), |(subject, _)| subject)
    }

    /// The refusal of a client without a grant that wants to see users who are not public.
    pub(super) fn hidden(&self, admission: &Admission) -> Option<Reply> {
        let presence = self.shared.hub.presence();
        if !presence.is_on() {
            return None;
        }
        let mut channels = admission.poll.subscriptions.iter().map(|one| &one.channel);
        let hidden = channels.find_map(|channel| {
            let of = match presence.subject(channel) {
                None if admission.presence.list => {
                    Some((channel.clone(), presence.settings(channel)?))
                }
                of => of,
            };
            of.filter(|(_, settings)| !settings.public).map(|(name, _)| name)
        });
        hidden.map(|name| Rejection::Members(name).reply())
    }

    /// A client is held from now on, or comes just for its answer; or its user leaves.
    pub(super) fn enter(
        &self,
        admission: &Admission,
        member: Option<&Member>,
        kind: Kind,
        now: Time,
    ) -> Memberships {
        let presence = self.shared.hub.presence();
        if !presence.is_on() || admission.is_head {
            return Memberships::default();
        }
        let channels = admission.poll.subscriptions.iter().map(|one| &one.channel);
        if admission.presence.leave {
            for (channel, member) in channels.filter_map(|channel| Some((channel, member?))) {
                if presence.settings(channel).is_some() {
                    presence.leave(channel, member.user(), now);
                }
            }
            return Memberships::default();
        }
        let entrants = channels.filter_map(|channel| {
            let own = presence.entry(channel)?;
            let member = member.filter(|_| own.is_some());
            let settings = own.unwrap_or_default();
            let grace: Duration = match kind {
                Kind::Poll => settings.grace,
                Kind::Stream => settings.stream_grace,
            };
            Some(Entrant { channel, member, settings, grace })
        });
        presence.enter_all(entrants, now)
    }

    /// The same for a poll whose client was there before it: by what is `known` of that, if that is
    /// enough.
    pub(super) fn enter_again(
        &self,
        known: Option<Known>,
        admission: &Admission,
        member: Option<&Member>,
        now: Time,
    ) -> Memberships {
        let known = known.filter(|_| !admission.presence.leave && !admission.is_head);
        let channels = admission.poll.subscriptions.iter().map(|one| &one.channel);
        let user = member.map(|member| &**member.user());
        let again = known.and_then(|known| known.enter(channels, user));
        again.unwrap_or_else(|| self.enter(admission, member, Kind::Poll, now))
    }

    /// The channels whose users a client wants to see.
    pub(super) fn rosters(&self, admission: &Admission) -> Option<Box<[ChannelName]>> {
        if !admission.presence.list {
            return None;
        }
        let presence = self.shared.hub.presence();
        let mut channels: Vec<ChannelName> = Vec::new();
        for subscription in &admission.poll.subscriptions {
            let name = &subscription.channel;
            let own = || presence.settings(name).map(|_| name.clone());
            // Joins and leaves go together with the list of the channel that they are about.
            let of = presence.subject(name).map(|(subject, _)| subject).or_else(own);
            channels.extend(of.filter(|name| !channels.contains(name)));
        }
        Some(channels.into())
    }

    /// The users on `channels` as JSON, or the response in their place.
    pub(super) async fn lists(
        &self,
        rule: &Rule,
        channels: &[ChannelName],
    ) -> Result<String, Reply> {
        if channels.is_empty() {
            let hint = "set presence on its [[channel]]";
            return Err(refusal(rule, 400, "there is no presence on this channel", hint));
        }
        let mut rosters = Vec::with_capacity(channels.len());
        for channel in channels {
            let roster = self.roster(channel.clone()).await;
            rosters.push(roster.map_err(|reason| {
                refusal(rule, 503, &reason, "try again later").with("Retry-After", RETRY_AFTER)
            })?);
        }
        Ok(presence::lists(&rosters))
    }

    /// Renders an answer with the users on `channels`.
    pub(super) async fn render_with_presence(
        &self,
        rule: &Rule,
        (answer, callback): (&Answer, Option<&str>),
        channels: &[ChannelName],
    ) -> Reply {
        match self.lists(rule, channels).await {
            Ok(lists) => rule.dialect.render_with_presence(answer, callback, &lists),
            Err(reply) => reply,
        }
    }

    /// Lists users from `source`; without one, the hub has them.
    pub fn list_users_from(&self, source: RosterSource) {
        // Set once, at the start.
        let _ = self.shared.rosters.set(source);
    }

    /// The users on a channel; the error is why they are not known.
    pub fn roster(
        &self,
        channel: ChannelName,
    ) -> impl Future<Output = Result<Roster, String>> + Send + use<> {
        (self.roster_source())(channel)
    }

    fn roster_source(&self) -> RosterSource {
        self.shared.rosters.get().cloned().unwrap_or_else(|| {
            let hub = self.shared.hub.clone();
            let clock = self.shared.clock;
            Arc::new(move |channel| {
                let roster = hub.presence().members(&channel, clock());
                let full = "there is no room for another channel".to_owned();
                Box::pin(std::future::ready(roster.ok_or(full)))
            })
        })
    }
}

/// A poll that is answered with the users on its channels.
pub struct PendingRoster {
    pub(super) gate: Gate,
    pub(super) rule: Arc<Rule>,
    pub(super) answer: Answer,
    pub(super) callback: Option<Box<str>>,
    pub(super) origin: Option<Box<str>>,
    pub(super) cause: Cause,
    pub(super) channels: Box<[ChannelName]>,
    /// The client itself is among them.
    pub(super) present: Memberships,
}

impl PendingRoster {
    /// The answer.
    pub async fn reply(self: Box<Self>) -> (Reply, Cause) {
        let answer = (&self.answer, self.callback.as_deref());
        let reply = self.gate.render_with_presence(&self.rule, answer, &self.channels).await;
        drop(self.present);
        (finished(reply, &self.rule, self.origin.as_deref()), self.cause)
    }
}
