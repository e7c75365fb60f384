//! Admission: decides if a request goes to the upstream, is answered at once, or is held.

use super::hold::Cause;
use super::replies::{allowed_origin, finished, preflight, refusal, wrong_method};
use crate::hub::channel::ChannelName;
use crate::hub::{Answer, PollOutcome, Waiter};
use crate::protocol::dialect::{self, Dialect, Parsed, Poll};
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::grant::{Allowed, AuthRequest, Blocked, GrantGuard, Verdict};
use crate::server::gate::proxy::forwarded::Way;
use crate::server::gate::route::{Match, Rule};
use crate::server::gate::{Gate, HeldPoll, HeldReplay, RETRY_AFTER, Settings};
use crate::server::limits::permit::{self, Permit};
use crate::server::telemetry::refusal::Refusal;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// It publishes: [`Gate::publish`] has the response.
    Publish(Box<PublishByBrowser>),
}

/// An empty message that a browser publishes.
pub struct PublishByBrowser {
    channel: ChannelName,
    rule: Arc<Rule>,
    /// The origin that may read the response.
    origin: Option<Box<str>>,
}

/// Time that a poll with a zero timeout waits until it is known if there are messages.
const CATCH_UP: Duration = Duration::from_secs(3);

impl Gate {
    /// Decides about a request. A poll to hold is registered by now.
    ///
    /// The error means that the upstream has to be asked for authorization; decide again with its
    /// `verdict`.
    pub(crate) fn decide(
        &self,
        settings: &Settings,
        request: &Incoming<'_>,
        mut verdict: Option<Verdict>,
    ) -> Result<Decision, Box<AuthRequest>> {
        let matches =
            settings.routes.matches(request.method, request.path, request.query, request.form);
        for found in matches {
            match found {
                Match::WrongMethod { rule } => {
                    self.refused(Refusal::Method);
                    let origin = allowed_origin(rule, request.headers);
                    let reply = wrong_method(request.method, rule);
                    let reply = finished(reply, rule, origin.as_deref());
                    return Ok(Decision::Reply(reply, None));
                }
                Match::Publish { rule, channel } => {
                    return self.publish_for_browser(settings, rule, request, &channel, verdict);
                }
                Match::Poll { rule, .. }
                    if request.method == "OPTIONS" && !rule.dialect.is_none() =>
                {
                    return Ok(Decision::Reply(preflight(rule, request.headers), None));
                }
                Match::Poll { rule, stars } => {
                    let form = request.form;
                    let (query, headers) = (request.query, request.headers);
                    let asked = dialect::Request { stars: &stars, query, form, headers };
                    if let Some(reply) = too_many(settings, rule, &asked) {
                        let cause = Refusal::ChannelsPerPoll;
                        return Ok(self.refuse(rule, request, cause, reply));
                    }
                    match rule.dialect.parse(&asked, &|name| self.shared.hub.tick(name)) {
                        Parsed::OtherRule => continue,
                        Parsed::NoPoll => return Ok(Decision::Site),
                        Parsed::Refused(reply) => {
                            let refusal = Refusal::BadRequest;
                            return Ok(self.refuse(rule, request, refusal, reply));
                        }
                        Parsed::Poll(mut poll) => {
                            if let Some(reply) = unknown_channel(rule, &poll) {
                                let cause = Refusal::UnknownChannel;
                                return Ok(self.refuse(rule, request, cause, reply));
                            }
                            let allowed =
                                self.allow(settings, rule, request, &mut poll, verdict.take());
                            let allowed = match allowed {
                                Ok(allowed) => allowed,
                                Err(Blocked::Ask(asking)) => return Err(asking),
                                Err(Blocked::Reply(cause, reply)) => {
                                    return Ok(self.refuse(rule, request, cause, reply));
                                }
                            };
                            return Ok(match &rule.dialect {
                                Dialect::Replay(replay) => {
                                    self.replay(settings, rule, replay, request, (poll, allowed))
                                }
                                _ => self.poll(settings, rule, request, poll, allowed),
                            });
                        }
                    }
                }
            }
        }
        Ok(Decision::Site)
    }

    fn poll(
        &self,
        settings: &Settings,
        rule: &Arc<Rule>,
        request: &Incoming<'_>,
        poll: Poll,
        allowed: Option<Allowed>,
    ) -> Decision {
        // With a backplane, it may take a moment to know if there are messages.
        let no_wait = poll.timeout == Some(Duration::ZERO);
        let wanted = (!no_wait || self.shared.hub.is_replica()) && request.method != "HEAD";
        let (permit, refused) =
            match wanted.then(|| self.admit(settings, rule, request, &poll, allowed.as_ref())) {
                Some(Ok(permit)) => (Some(permit), None),
                Some(Err(refused)) => (None, Some(refused)),
                None => (None, None),
            };
        let (hub, now) = (&self.shared.hub, (self.shared.clock)());
        let found = match permit {
            None => hub.look(&poll.subscriptions, poll.take, now),
            Some(permit) => match hub.poll(&poll.subscriptions, poll.take, true, now) {
                Ok(PollOutcome::Waiting(mut waiter)) if no_wait && !waiter.is_unresolved() => {
                    Ok(waiter.finish(now))
                }
                Ok(PollOutcome::Waiting(mut waiter)) => {
                    waiter.set_no_wait(no_wait);
                    let leave = allowed.map(|allowed| self.shared.grants.take(allowed, &waiter));
                    let guards = (waiter, leave, permit);
                    return self.hold(settings, rule, request, poll, guards);
                }
                Ok(PollOutcome::Answer(answer)) => Ok(answer),
                Err(full) => Err(full),
            },
        };
        match (found, refused) {
            (Err(full), _) => {
                let reply = refusal(rule, 503, &full.to_string(), "try again later");
                let reply = reply.with("Retry-After", RETRY_AFTER);
                self.refuse(rule, request, Refusal::TableFull, reply)
            }
            (Ok(answer), Some((cause, status, error)))
                if !answer.iter().any(|update| update.found.news) =>
            {
                let reply = refusal(rule, status, &error, "try again later");
                self.refuse(rule, request, cause, reply.with("Retry-After", RETRY_AFTER))
            }
            (Ok(answer), _) => {
                let cause = self.cause_at_once(&answer);
                self.shared.counters.release(cause, Some(&answer), &self.shared.metrics.watched);
                let origin = allowed_origin(rule, request.headers);
                let quiet = matches!(cause, Cause::Timeout | Cause::Drain);
                let answer = if quiet { self.quiet_answer(rule, answer) } else { answer };
                let reply = rule.dialect.render(&answer, poll.callback.as_deref());
                Decision::Reply(finished(reply, rule, origin.as_deref()), Some(cause))
            }
        }
    }

    fn hold(
        &self,
        settings: &Settings,
        rule: &Arc<Rule>,
        request: &Incoming<'_>,
        poll: Poll,
        (waiter, leave, permit): (Waiter, Option<GrantGuard>, Permit),
    ) -> Decision {
        // A poll with a zero timeout waits only until its channels have caught up.
        let wait = poll.timeout.map(|wait| if wait.is_zero() { CATCH_UP } else { wait });
        let duration = settings.hold.duration(rule.timeout, wait);
        let origin = allowed_origin(rule, request.headers);
        let (gate, rule, callback) = (self.clone(), rule.clone(), poll.callback);
        let (began, _permit) = (Instant::now(), permit);
        let held =
            HeldPoll { gate, rule, waiter, duration, callback, origin, began, leave, _permit };
        Decision::Hold(Box::new(held))
    }

    fn cause_at_once(&self, answer: &Answer) -> Cause {
        if answer.iter().any(|update| update.found.news) {
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
        rule: &Rule,
        request: &Incoming<'_>,
        poll: &Poll,
        allowed: Option<&Allowed>,
    ) -> Result<Permit, (Refusal, u16, String)> {
        let limits = &settings.limits;
        let crowded = |name: &ChannelName| self.shared.hub.held_on(name) >= limits.per_channel;
        if limits.per_channel > 0 && poll.subscriptions.iter().any(|s| crowded(&s.channel)) {
            let error = "too many polls are held on this channel".to_owned();
            return Err((Refusal::PerChannel, 503, error));
        }
        let auth = rule.auth.as_ref().filter(|_| limits.per_grant > 0);
        let grant = auth.and_then(|auth| self.shared.grants.holder(auth, request, allowed));
        let permit = self.shared.limits.admit(request.client, grant, limits);
        permit.map_err(|refusal| match refusal {
            permit::Rejection::Held => (Refusal::HoldMax, 503, refusal.to_string()),
            permit::Rejection::Address => (Refusal::PerAddress, 429, refusal.to_string()),
            permit::Rejection::Grant => (Refusal::PerGrant, 429, refusal.to_string()),
        })
    }

    pub(in crate::server::gate) fn refuse(
        &self,
        rule: &Rule,
        request: &Incoming<'_>,
        cause: Refusal,
        reply: Reply,
    ) -> Decision {
        self.refused(cause);
        let origin = allowed_origin(rule, request.headers);
        Decision::Reply(finished(reply, rule, origin.as_deref()), None)
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
        verdict: Option<Verdict>,
    ) -> Result<Decision, Box<AuthRequest>> {
        let channel = match ChannelName::new(channel) {
            Ok(name) => name,
            Err(error) => {
                let reply = Reply::new(400, "text/plain; charset=UTF-8", format!("{error}\n"));
                return Ok(self.refuse(rule, request, Refusal::BadRequest, reply));
            }
        };
        match self.allow(settings, rule, request, &mut Poll::on(channel.clone()), verdict) {
            Ok(_) => {
                let (rule, origin) = (rule.clone(), allowed_origin(rule, request.headers));
                Ok(Decision::Publish(Box::new(PublishByBrowser { channel, rule, origin })))
            }
            Err(Blocked::Ask(asking)) => Err(asking),
            Err(Blocked::Reply(cause, reply)) => Ok(self.refuse(rule, request, cause, reply)),
        }
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
    let other = poll.subscriptions.iter().find(|one| !rule.has_channel(&one.channel))?;
    let error = format!("{:?} is none of the channels here", other.channel);
    let hint = "the rule lists its channels; add it there (poll.channels)";
    Some(refusal(rule, 404, &error, hint))
}
