//! Admission: decides if a request goes to the upstream, is answered at once, or is held.

use super::hold::Cause;
use super::replies::{allowed_origin, finished, preflight, refusal, wrong_method};
use crate::hub::channel::ChannelName;
use crate::hub::{Answer, PollOutcome, Waiter};
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::{self, Dialect, Parsed, Poll};
use crate::protocol::http::path::Captures;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::grant::{Allowed, AuthRequest, Authorization, GrantGuard, Verdict};
use crate::server::gate::grip::Held as GripHold;
use crate::server::gate::grip::socket::Socket as GripSocket;
use crate::server::gate::presence::{self, Memberships, PendingRoster};
use crate::server::gate::proxy::forwarded::Way;
use crate::server::gate::pusher::HeldPusher;
use crate::server::gate::replay::ReplayIdentity;
use crate::server::gate::route::{Match, Rule};
use crate::server::gate::stream::{HeldStream, Opening};
use crate::server::gate::{Gate, HeldPoll, HeldReplay, RETRY_AFTER, Settings, mercure};
use crate::server::limits::permit::{self, Permit};
use crate::server::telemetry::refusal::Refusal;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
}

/// The decision about a request.
pub enum Decision {
    /// It goes to the upstream.
    Site,
    /// It is answered at once.
    Reply(Reply, Option<Cause>),
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
    /// It is a connection of the Pusher protocol, or a part of one.
    Pusher(HeldPusher),
    /// It publishes: [`Gate::publish`] has the response.
    Publish(Box<PublishByBrowser>),
    /// The upstream decides on its authorization; [`PendingAdmission::resume`] goes on then.
    Ask(Box<PendingAdmission>),
}

/// An empty message that a browser publishes.
pub struct PublishByBrowser {
    channel: ChannelName,
    rule: Arc<Rule>,
    /// The origin that may read the response.
    origin: Option<Box<str>>,
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
    holder: Option<u64>,
    /// What it wants to know and to say about the users on its channels.
    pub(in crate::server::gate) presence: presence::Wish,
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

/// The reason for not holding a poll: the counter, the status and the words.
pub(in crate::server::gate) type Full = (Refusal, u16, String);

/// Time that a poll with a zero timeout waits until it is known if there are messages.
const CATCH_UP: Duration = Duration::from_secs(3);

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
        let asked = dialect::Request { stars, query, form, headers, transport };
        if let Some(reply) = too_many(settings, rule, &asked) {
            return refuse(Refusal::ChannelsPerPoll, reply);
        }
        match rule.dialect.parse(&asked, &|name| settings.tick(&self.shared.hub, name)) {
            Parsed::OtherRule => None,
            Parsed::NoPoll => Some(Decision::Site),
            Parsed::Refused(reply) => refuse(Refusal::BadRequest, reply),
            Parsed::Poll(mut poll) => {
                settings.scope(&mut poll.subscriptions);
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

    fn admission(
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
        }
    }

    /// Lets the client in if the rule's `auth` does.
    fn authorized(
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

    fn poll(
        &self,
        settings: &Settings,
        admission: Admission,
        allowed: Option<Allowed>,
    ) -> Decision {
        let poll = &admission.poll;
        // With a backplane, it may take a moment to know if there are messages.
        let no_wait = poll.timeout == Some(Duration::ZERO) || admission.presence.is_any();
        let wanted = (!no_wait || self.shared.hub.is_replica()) && !admission.is_head;
        let (permit, refused) =
            match wanted.then(|| self.admit(settings, &admission, allowed.as_ref())) {
                Some(Ok(permit)) => (Some(permit), None),
                Some(Err(refused)) => (None, Some(refused)),
                None => (None, None),
            };
        let hub = &self.shared.hub;
        let now = (self.shared.clock)();
        let member = allowed.as_ref().and_then(Allowed::member);
        let present = match refused {
            None => self.enter(&admission, member, presence::Kind::Poll, now),
            Some(_) => Memberships::default(),
        };
        let found = match permit {
            None => hub.look(&poll.subscriptions, poll.take, now),
            Some(permit) => match hub.poll(&poll.subscriptions, poll.take, true, now) {
                Ok(PollOutcome::Waiting(mut waiter)) if no_wait && !waiter.is_unresolved() => {
                    Ok(waiter.finish(now))
                }
                Ok(PollOutcome::Waiting(mut waiter)) => {
                    waiter.set_no_wait(no_wait);
                    let leave = allowed.map(|allowed| self.shared.grants.take(allowed, &waiter));
                    return self.hold(settings, admission, (waiter, leave, permit, present));
                }
                Ok(PollOutcome::Answer(answer)) => Ok(answer),
                Err(full) => Err(full),
            },
        };
        match (found, refused) {
            (Err(full), _) => {
                self.refuse_full(&admission, (Refusal::TableFull, 503, full.to_string()))
            }
            (Ok(answer), Some(full)) if !answer.iter().any(|update| update.found.has_update) => {
                self.refuse_full(&admission, full)
            }
            (Ok(answer), _) => {
                let cause = self.cause_at_once(&answer);
                self.shared.counters.release(cause, Some(&answer), &self.shared.metrics.watched);
                let quiet = matches!(cause, Cause::Timeout | Cause::Drain);
                let rosters = self.rosters(&admission);
                let Admission { rule, poll, origin, .. } = admission;
                let answer = if quiet { self.quiet_answer(&rule, answer) } else { answer };
                if let Some(channels) = rosters {
                    let callback = poll.callback;
                    let gate = self.clone();
                    return Decision::Roster(Box::new(PendingRoster {
                        gate,
                        rule,
                        answer,
                        callback,
                        origin,
                        cause,
                        channels,
                        present,
                    }));
                }
                let reply = rule.dialect.render(&answer, poll.callback.as_deref());
                Decision::Reply(finished(reply, &rule, origin.as_deref()), Some(cause))
            }
        }
    }

    /// Refuses a poll that finds no room; it may come again.
    pub(in crate::server::gate) fn refuse_full(
        &self,
        admission: &Admission,
        (cause, status, error): Full,
    ) -> Decision {
        let reply = match &admission.purpose {
            Purpose::Stream(opening) => opening.full(&error),
            _ => None,
        };
        let reply = reply.unwrap_or_else(|| {
            refusal(&admission.rule, status, &error, "try again later")
                .with("Retry-After", RETRY_AFTER)
        });
        self.refuse(&admission.rule, admission.origin.as_deref(), cause, reply)
    }

    fn hold(
        &self,
        settings: &Settings,
        admission: Admission,
        (waiter, leave, permit, present): (Waiter, Option<GrantGuard>, Permit, Memberships),
    ) -> Decision {
        let rosters = self.rosters(&admission);
        let Admission { rule, poll, origin, presence, .. } = admission;
        // A poll with a zero timeout waits only until its channels have caught up.
        let no_wait = poll.timeout == Some(Duration::ZERO) || presence.is_any();
        let wait = if no_wait { Some(CATCH_UP) } else { poll.timeout };
        let held = HeldPoll {
            gate: self.clone(),
            duration: settings.hold.duration(rule.timeout, wait),
            rule,
            waiter,
            callback: poll.callback,
            origin,
            began: Instant::now(),
            leave,
            present,
            rosters,
            _permit: permit,
        };
        Decision::Hold(Box::new(held))
    }

    fn cause_at_once(&self, answer: &Answer) -> Cause {
        if answer.iter().any(|update| update.found.has_update) {
            Cause::of(answer)
        } else if self.shared.hub.is_draining() {
            Cause::Drain
        } else {
            Cause::Timeout
        }
    }

    /// A permit to hold a poll, or the cause of its refusal, with the status and words of the
    /// response.
    pub(in crate::server::gate) fn admit(
        &self,
        settings: &Settings,
        admission: &Admission,
        allowed: Option<&Allowed>,
    ) -> Result<Permit, Full> {
        let limits = &settings.limits;
        let crowded = |name: &ChannelName| self.shared.hub.held_on(name) >= limits.per_channel;
        let mut channels = admission.poll.subscriptions.iter().map(|one| &one.channel);
        if limits.per_channel > 0 && channels.any(crowded) {
            let error = "too many polls are held on this channel".to_owned();
            return Err((Refusal::PerChannel, 503, error));
        }
        // Without `limits.per_grant` nothing was looked up.
        let named = allowed.and_then(|allowed| self.shared.grants.named_holder(allowed));
        let holder = admission.holder.map(|holder| named.unwrap_or(holder));
        self.permit(settings, admission.client, holder).map_err(|refusal| {
            let status = if refusal == permit::Rejection::Held { 503 } else { 429 };
            (cause_of(refusal), status, refusal.to_string())
        })
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
            return self.shared.limits.admit(client, holder, &settings.limits);
        };
        // A grant is the site's own, and so is the count of its polls.
        let outer = self.shared.limits.admit(client, None, &site.gate_limits)?;
        let permit = site.figures.limits.admit(client, holder, &settings.limits)?;
        Ok(permit.within(outer))
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
    fn publish_for_browser(
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

/// The counter of a refused permit.
pub(in crate::server::gate) fn cause_of(refusal: permit::Rejection) -> Refusal {
    match refusal {
        permit::Rejection::Held => Refusal::HoldMax,
        permit::Rejection::Address => Refusal::PerAddress,
        permit::Rejection::Grant => Refusal::PerGrant,
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
