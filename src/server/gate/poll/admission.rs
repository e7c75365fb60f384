//! Admission: decides if a request goes to the upstream, is answered at once, or is held.

use super::browser_publish::PublishByBrowser;
use super::held::PendingAnswer;
use super::hold::Cause;
use super::replies::{allowed_origin, finished, preflight, refusal, wrong_method};
use crate::hub::channel::ChannelName;
use crate::hub::presence::Known;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::{self, Dialect, Parsed, Poll};
use crate::protocol::http::path::Captures;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::grant::{Allowed, AuthRequest, Authorization, Verdict};
use crate::server::gate::grip::Held as GripHold;
use crate::server::gate::grip::socket::Socket as GripSocket;
use crate::server::gate::presence::{self, PendingRoster};
use crate::server::gate::proxy::forwarded::Way;
use crate::server::gate::pusher::HeldPusher;
use crate::server::gate::replay::ReplayIdentity;
use crate::server::gate::route::{Match, Rule};
use crate::server::gate::stream::{HeldStream, Opening};
use crate::server::gate::{Gate, HeldPoll, HeldReplay, Settings, mercure};
use crate::server::limits::permit::{self, Permit};
use crate::server::telemetry::refusal::Refusal;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// A parsed request.
pub struct Incoming<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query as they came.
    pub target: &'a str,
    /// The requested host.
    pub host: &'a str,
    /// The path as it came, escaped.
    pub path: &'a str,
    /// The parameters behind the `?`.
    pub query: &'a Query<'a>,
    /// The parameters of a form in the body, if one was read.
    pub form: Option<&'a Query<'a>>,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The way it came.
    pub way: Way,
    /// The body, where it is for this side and no form.
    pub body: Option<&'a [u8]>,
    /// True if its connection can change to another protocol.
    pub can_upgrade: bool,
    /// The memberships that the last poll of its connection had.
    pub known: Option<&'a Known>,
}

/// The decision about a request.
pub enum Decision {
    /// It goes to the upstream.
    Site,
    /// It is answered at once.
    Reply(Reply, Option<Cause>),
    /// It is answered at once, with more than is rendered without room for it.
    Answer(Box<PendingAnswer>),
    /// It is held.
    Hold(Box<HeldPoll>),
    /// It is held, and then it goes to the upstream.
    Replay(Box<HeldReplay>),
    /// It is a WebSocket about which the upstream is asked.
    Grip(Box<GripSocket>),
    /// The upstream has said to hold it.
    GripHold(Box<GripHold>),
    /// It is answered event by event.
    Stream(Box<HeldStream>),
    /// It is answered at once, with the users on its channels.
    Roster(Box<PendingRoster>),
    /// It is answered with what has to be waited for.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
    /// It is a connection of the Pusher protocol, or a part of one.
    Pusher(HeldPusher),
    /// It publishes: [`Gate::publish`] has the response.
    Publish(Box<PublishByBrowser>),
    /// The upstream decides on its authorization; [`PendingAdmission::resume`] goes on then.
    Ask(Box<PendingAdmission>),
}

/// A poll on its way in: all that later steps need of its request, read once and owned, so that
/// the request itself need not be kept while the upstream is asked.
pub(in crate::server::gate) struct Admission {
    pub(in crate::server::gate) rule: Arc<Rule>,
    pub(in crate::server::gate) poll: Poll,
    pub(in crate::server::gate) purpose: Purpose,
    /// It is a HEAD request, which is never held.
    pub(in crate::server::gate) is_head: bool,
    pub(in crate::server::gate) client: Option<IpAddr>,
    /// The request's origin, as far as the rule lists it.
    pub(in crate::server::gate) origin: Option<Box<str>>,
    /// Tells its grant from others, where polls are counted by grant.
    pub(super) holder: Option<u64>,
    /// What it wants to know and to say about the users on its channels.
    pub(in crate::server::gate) presence: presence::Wish,
    /// The memberships that its client had before.
    pub(super) known: Option<Known>,
}

/// The use that an admitted poll is put to.
pub(in crate::server::gate) enum Purpose {
    /// It waits for messages.
    Hold,
    /// It waits, and is then forwarded.
    Replay(ReplayIdentity),
    /// It publishes on its channel.
    Publish,
    /// It gets one event after another.
    Stream(Box<Opening>),
}

/// An admission that waits for the upstream's decision.
pub struct PendingAdmission {
    gate: Gate,
    admission: Admission,
    asking: Box<AuthRequest>,
}

impl PendingAdmission {
    /// Asks the upstream and goes on with the admission. The request is not looked at again.
    pub async fn resume(self: Box<Self>, settings: &Settings) -> Decision {
        let Self { gate, admission, asking } = *self;
        let verdict = asking.verdict().await;
        gate.judged(settings, admission, verdict)
    }
}

impl Gate {
    /// Decides on a request. A poll that will be held is registered by now.
    pub fn decide(&self, settings: &Settings, request: &Incoming<'_>) -> Decision {
        if let Some(reply) = settings.client_script.as_ref().and_then(|one| one.reply(request)) {
            return Decision::Reply(reply, None);
        }
        let own = self.mercure(settings, request).or_else(|| self.pusher(settings, request));
        if let Some(decision) = own {
            return decision;
        }
        let matches =
            settings.routes.matches(request.method, request.path, request.query, request.form);
        for found in matches {
            match found {
                Match::WrongMethod { rule } => {
                    self.refused(Refusal::Method);
                    let origin = allowed_origin(rule, request.headers);
                    let reply = wrong_method(request.method, rule);
                    return Decision::Reply(finished(reply, rule, origin.as_deref()), None);
                }
                Match::Publish { rule, channel } => {
                    return self.publish_for_browser(settings, rule, request, &channel);
                }
                Match::Poll { rule, .. }
                    if request.method == "OPTIONS" && !rule.dialect.is_none() =>
                {
                    return Decision::Reply(preflight(rule, request.headers), None);
                }
                Match::Poll { rule, stars } => {
                    if let Some(decision) = self.parse(settings, rule, &stars, request) {
                        return decision;
                    }
                }
            }
        }
        Decision::Site
    }

    /// Reads a request that `rule` has matched; `None` = another rule is meant.
    fn parse(
        &self,
        settings: &Settings,
        rule: &Arc<Rule>,
        stars: &Captures<'_>,
        request: &Incoming<'_>,
    ) -> Option<Decision> {
        let query = request.query;
        let form = request.form;
        let headers = request.headers;
        let refuse = |cause, reply| {
            let origin = allowed_origin(rule, headers);
            Some(self.refuse(rule, origin.as_deref(), cause, reply))
        };
        let opening = match self.opening(rule, request) {
            Ok(opening) => opening,
            Err((cause, reply)) => return refuse(cause, reply),
        };
        let transport = opening.as_ref().map_or(Transport::Poll, |it| it.format.transport);
        let site = settings.site_name();
        let asked = dialect::Request { stars, query, form, headers, transport, site };
        if let Some(reply) = too_many(settings, rule, &asked) {
            return refuse(Refusal::ChannelsPerPoll, reply);
        }
        match rule.dialect.parse(&asked, &|name| self.shared.hub.tick(name)) {
            Parsed::OtherRule => None,
            Parsed::NoPoll => Some(Decision::Site),
            Parsed::Refused(reply) => refuse(Refusal::BadRequest, reply),
            Parsed::Poll(poll) => {
                if let Some(reply) = unknown_channel(rule, &poll) {
                    return refuse(Refusal::UnknownChannel, reply);
                }
                if let Some(reply) = guarded_channel(settings, rule, &poll) {
                    return refuse(Refusal::UnknownChannel, reply);
                }
                let purpose = match (&rule.dialect, opening) {
                    (Dialect::Replay(replay), _) => {
                        match self.replay_identity(rule, replay, request, &poll) {
                            Some(identity) => Purpose::Replay(identity),
                            None => return Some(Decision::Site),
                        }
                    }
                    (_, Some(opening)) => match opening.for_poll(&poll) {
                        Ok(opening) => Purpose::Stream(opening),
                        Err(reply) => return refuse(Refusal::BadRequest, reply),
                    },
                    (_, None) => Purpose::Hold,
                };
                let admission = self.admission(settings, rule, request, poll, purpose);
                Some(self.authorized(settings, admission, request))
            }
        }
    }

    /// True if the rule's polls are only for channels that were published to, and one was not.
    fn lacks_channel(&self, rule: &Rule, poll: &Poll) -> bool {
        let Dialect::Nchan(nchan) = &rule.dialect else { return false };
        let now = (self.shared.clock)();
        let exists =
            |name| self.shared.hub.info(name, now).is_some_and(|info| info.newest.is_some());
        nchan.existing_only && !poll.subscriptions.iter().all(|one| exists(&one.channel))
    }

    pub(super) fn admission(
        &self,
        settings: &Settings,
        rule: &Arc<Rule>,
        request: &Incoming<'_>,
        poll: Poll,
        purpose: Purpose,
    ) -> Admission {
        let auth = rule.auth.as_ref().filter(|_| settings.limits.per_grant > 0);
        Admission {
            rule: rule.clone(),
            poll,
            purpose,
            is_head: request.method == "HEAD",
            client: request.client,
            origin: allowed_origin(rule, request.headers),
            holder: auth.and_then(|auth| self.shared.grants.holder(auth, request)),
            presence: self.wish(rule, request),
            known: request.known.cloned(),
        }
    }

    /// Lets the client in if the rule's `auth` does.
    pub(super) fn authorized(
        &self,
        settings: &Settings,
        admission: Admission,
        request: &Incoming<'_>,
    ) -> Decision {
        if let Some(reply) = mercure::not_for_polls(settings, &admission) {
            let origin = admission.origin.as_deref();
            return self.refuse(&admission.rule, origin, Refusal::UnknownChannel, reply);
        }
        match self.authorize(settings, &admission.rule, request, &admission.poll) {
            None => match self.hidden(&admission) {
                None => self.admitted(settings, admission, None),
                Some(reply) => {
                    let origin = admission.origin.as_deref();
                    self.refuse(&admission.rule, origin, Refusal::Rejection, reply)
                }
            },
            Some(Authorization::Known(verdict)) => self.judged(settings, admission, verdict),
            Some(Authorization::Site(asking)) => {
                Decision::Ask(Box::new(PendingAdmission { gate: self.clone(), admission, asking }))
            }
        }
    }

    fn judged(&self, settings: &Settings, mut admission: Admission, verdict: Verdict) -> Decision {
        let is_granted = |name: &ChannelName, names: &_| self.is_granted(name, names);
        match verdict.apply(&mut admission.poll, is_granted) {
            Ok(allowed) => self.admitted(settings, admission, Some(allowed)),
            Err((cause, reply)) => {
                self.refuse(&admission.rule, admission.origin.as_deref(), cause, reply)
            }
        }
    }

    fn admitted(
        &self,
        settings: &Settings,
        admission: Admission,
        allowed: Option<Allowed>,
    ) -> Decision {
        // Only clients that may poll a channel learn whether it exists.
        if self.lacks_channel(&admission.rule, &admission.poll) {
            let rule = &admission.rule;
            let origin = admission.origin.as_deref();
            return self.refuse(rule, origin, Refusal::UnknownChannel, Reply::new(403, "", ""));
        }
        match &admission.purpose {
            Purpose::Hold => self.poll(settings, admission, allowed),
            Purpose::Stream(_) => self.stream(settings, admission, allowed),
            Purpose::Replay(_) => self.replay(settings, admission, allowed),
            Purpose::Publish => {
                let Admission { rule, poll, origin, .. } = admission;
                match poll.subscriptions.into_iter().next() {
                    Some(subscription) => {
                        let channel = subscription.channel;
                        Decision::Publish(Box::new(PublishByBrowser { channel, rule, origin }))
                    }
                    // A verdict that leaves no channel is a refusal.
                    None => Decision::Site,
                }
            }
        }
    }

    /// A permit to hold something of `client` by the grant of `holder`: the gate's, and the site's
    /// where there is one.
    pub(in crate::server::gate) fn permit(
        &self,
        settings: &Settings,
        client: Option<IpAddr>,
        holder: Option<u64>,
    ) -> Result<Permit, permit::Rejection> {
        let Some(site) = &settings.site else {
            return self.shared.limits.admit(client, holder, &settings.limits, None);
        };
        // A grant is the site's own, and so is the count of its polls.
        let outer = Some((&self.shared.limits, &site.gate_limits));
        site.figures.limits.admit(client, holder, &settings.limits, outer)
    }

    /// Counts a refusal and answers with it; `origin` is the request's, as far as the rule lists
    /// it.
    pub(in crate::server::gate) fn refuse(
        &self,
        rule: &Rule,
        origin: Option<&str>,
        cause: Refusal,
        reply: Reply,
    ) -> Decision {
        self.refused(cause);
        Decision::Reply(finished(reply, rule, origin), None)
    }
}

/// The answer to a poll that names too many channels, before anything else is done for it.
fn too_many(settings: &Settings, rule: &Rule, request: &dialect::Request<'_>) -> Option<Reply> {
    let most = settings.limits.channels_per_poll;
    let count = rule.dialect.count_channels(request);
    if most == 0 || count <= most {
        return None;
    }
    let error = format!("the poll names {count} channels");
    let hint = format!("name at most {most} (limits.channels_per_poll)");
    Some(refusal(rule, 400, &error, &hint))
}

/// The answer to a poll that names a channel which its rule does not list.
fn unknown_channel(rule: &Rule, poll: &Poll) -> Option<Reply> {
    let has = |name: &ChannelName| {
        let about = name.strip_prefix(crate::hub::presence::PREFIX);
        rule.has_channel(name) || about.is_some_and(|about| rule.has_channel(about))
    };
    let other = poll.subscriptions.iter().find(|one| !has(&one.channel))?;
    let error = format!("{:?} is none of the channels here", other.channel);
    let hint = "the rule lists its channels; add it there (poll.channels)";
    Some(refusal(rule, 404, &error, hint))
}

/// The answer to a poll without authorization that names a channel whose members a Pusher app
/// signs for.
fn guarded_channel(settings: &Settings, rule: &Rule, poll: &Poll) -> Option<Reply> {
    if rule.auth.is_some() {
        return None;
    }
    let mut channels = poll.subscriptions.iter().map(|one| &one.channel);
    let guarded = channels.find(|channel| settings.pusher.guards(channel))?;
    let error = format!("{guarded:?} is for the members of a Pusher app's channel");
    Some(refusal(rule, 403, &error, "give the rule an auth, which says who may poll it"))
}
