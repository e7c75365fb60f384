//! Grants: the decision of a rule's `auth`, for as long as a poll is held by it.
//!
//! A token is checked at once, without the upstream. The upstream gets at most one request at a
//! time for the same client and channels, and its decision is cached for a while ([`cache`]). A
//! revoked grant ends the polls that it holds: they are notified, and find it gone. Dropping a
//! [`GrantGuard`] ends its use of the grant.

mod auth_request;
mod cache;
mod holder;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub(crate) use auth_request::AuthRequest;

use super::proxy::forwarded::Way;
use super::route::Rule;
use super::upstream::Upstream;
use super::{Gate, Incoming, Settings};
use crate::hub::channel::{ChannelName, SiteName, Time};
use crate::hub::presence::{self, Member};
use crate::hub::{Waiter, WakeHandle};
use crate::protocol::auth::{self, Auth, Channels, Grant, Rejection, Seconds};
use crate::protocol::dialect::Poll;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply, cookies};
use crate::server::telemetry::refusal::Refusal;
use cache::DecisionCache;
use parking_lot::Mutex;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Hashes of the credentials that a client shows; a grant can be found again by them.
pub(super) type Credentials = SmallVec<[u64; 2]>;

/// Cookies of a request that are kept as credentials.
const MAX_COOKIES: usize = 32;

/// Stands for all cookies beyond [`MAX_COOKIES`]: a client that shows so many matches every
/// credential, so that no grant hides behind them when it is revoked.
const ANYBODY: u64 = 0;

/// True if `credential` may be among those shown.
fn shows(credentials: &[u64], credential: u64) -> bool {
    credentials.iter().any(|shown| *shown == credential || *shown == ANYBODY)
}

/// Some of a poll's channels.
pub(super) type Names = SmallVec<[ChannelName; 1]>;

/// All grants in use or in the cache.
#[derive(Clone, Default)]
pub(super) struct Grants {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    used: Mutex<InUse>,
    memory: DecisionCache,
    asking: auth_request::InFlight,
    hasher: RandomState,
    next: AtomicU64,
}

/// Grants that hold polls, and recent revocations.
#[derive(Default)]
struct InUse {
    used: Slab<ActiveGrant>,
    recent: VecDeque<Revocation>,
    /// Number of revocations so far.
    revocations: u64,
}

/// A grant that holds a poll now.
struct ActiveGrant {
    grant: u64,
    credentials: Credentials,
    channels: Names,
    ringer: WakeHandle,
    revoked: Arc<AtomicBool>,
}

/// A revocation: of a channel, for a credential; `None` = any of the site, or of all sites where
/// there is none.
struct Revocation {
    site: SiteName,
    channel: Option<ChannelName>,
    credential: Option<u64>,
}

/// Revocations that are kept for grants that were found before them and used after them.
const MAX_RECENT: usize = 256;

impl Revocation {
    fn means(&self, channels: &[ChannelName], credentials: &[u64]) -> bool {
        let in_site = |channel: &ChannelName| self.site.is_none() || channel.is_of(&self.site);
        let means = match &self.channel {
            Some(channel) => channels.contains(channel),
            None => channels.iter().any(in_site),
        };
        means && self.credential.is_none_or(|credential| shows(credentials, credential))
    }
}

impl InUse {
    /// True if a grant that was found after `seen` revocations has been revoked since then.
    fn was_revoked(&self, seen: u64, channels: &[ChannelName], credentials: &[u64]) -> bool {
        let missed = usize::try_from(self.revocations.saturating_sub(seen)).unwrap_or(usize::MAX);
        // Revocations that are no longer known count as matching.
        missed > self.recent.len()
            || self.recent.iter().rev().take(missed).any(|one| one.means(channels, credentials))
    }
}

/// A poll's authorization, before it is held.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    /// Distinguishes this grant from others.
    grant: u64,
    credentials: Credentials,
    expires: Option<Seconds>,
    /// The user that the upstream named.
    user: Option<u64>,
    /// The user who is present by it.
    member: Option<Member>,
    /// Number of revocations at the time it was found.
    seen: u64,
}

/// The grant of a held poll.
pub(super) struct GrantGuard {
    grants: Grants,
    key: usize,
    revoked: Arc<AtomicBool>,
    expires: Option<Seconds>,
}

/// The state of a poll's authorization.
pub(super) enum Authorization {
    /// Decided.
    Known(Verdict),
    /// The upstream has to be asked.
    Site(Box<AuthRequest>),
}

/// The decision about a client's poll.
pub(crate) enum Verdict {
    /// It may poll these of the channels.
    Allowed(Allowed, Names),
    /// It may not.
    Rejection(Rejection),
    /// It may not; the response is the upstream's own.
    Blocked(Reply),
    /// The upstream gave no decision.
    Unknown(Reply),
}

impl Verdict {
    /// Takes out of a poll what its client may not poll. The error is the answer to a client that
    /// may poll none of it.
    pub(super) fn apply(
        self,
        poll: &mut Poll,
        is_granted: impl Fn(&ChannelName, &Names) -> bool,
    ) -> Result<Allowed, (Refusal, Reply)> {
        match self {
            Self::Allowed(allowed, names) => {
                poll.subscriptions.retain(|one| is_granted(&one.channel, &names));
                Ok(allowed)
            }
            Self::Rejection(denied) => Err((Refusal::Rejection, denied.reply())),
            Self::Blocked(reply) => Err((Refusal::Rejection, reply)),
            Self::Unknown(reply) => Err((Refusal::Auth, reply)),
        }
    }
}

impl Gate {
    /// Whether the client may poll; `None` = every client may.
    pub(super) fn authorize(
        &self,
        settings: &Settings,
        rule: &Rule,
        request: &Incoming<'_>,
        poll: &Poll,
    ) -> Option<Authorization> {
        let auth = rule.auth.as_ref()?;
        // A name that reads as a pattern would be one wherever it is listed: by the site, which
        // is shown it, or in a token that is made for it.
        if let Some(name) = poll.subscriptions.iter().find(|s| s.channel.contains('*')) {
            let denied = Rejection::Star(name.channel.clone());
            return Some(Authorization::Known(Verdict::Rejection(denied)));
        }
        let requester = Requester {
            rule,
            target: request.target,
            path: request.path,
            query: request.query,
            headers: request.headers,
            host: request.host,
            client: request.client,
            way: request.way,
            upstream: &settings.upstream,
        };
        let channels = self.authorized_by(poll);
        Some(self.shared.grants.look(auth, &requester, &channels, (self.shared.clock)()))
    }

    /// Revokes grants; `None` = any channel of the site, any credential. Without a site, those of
    /// all. Returns the number of revoked grants.
    pub fn revoke(
        &self,
        site: &SiteName,
        channel: Option<&ChannelName>,
        credential: Option<&str>,
    ) -> usize {
        self.shared.grants.revoke(site, channel, credential)
    }
}

/// A request, as far as its authorization depends on it.
pub(super) struct Requester<'a> {
    /// The rule of its poll.
    pub(super) rule: &'a Rule,
    /// Path and query as they came.
    pub(super) target: &'a str,
    /// The path as it came.
    pub(super) path: &'a str,
    pub(super) query: &'a Query<'a>,
    pub(super) headers: &'a dyn Headers,
    /// The requested host.
    pub(super) host: &'a str,
    pub(super) client: Option<IpAddr>,
    /// The last hop of the request.
    pub(super) way: Way,
    /// The upstream that would be asked.
    pub(super) upstream: &'a Upstream,
}

impl Grants {
    /// The result of `auth` for a poll on `channels`.
    pub(super) fn look(
        &self,
        auth: &Auth,
        visitor: &Requester<'_>,
        channels: &[ChannelName],
        now: Time,
    ) -> Authorization {
        let credentials = self.credentials(visitor);
        let by_token = |grant: &dyn Fn(&str) -> Result<Grant, Rejection>| {
            let token = auth::token(visitor.query, visitor.headers).ok_or(Rejection::Missing)?;
            let grant = grant(&token)?;
            covers(&grant.channels, channels)?;
            Ok((grant.expires, grant.member))
        };
        let seconds = seconds(now);
        let seen = self.seen();
        let granted = match auth {
            Auth::Signed(keys) => by_token(&|token| keys.grant(token, seconds)),
            Auth::Jwt(verifier) => by_token(&|token| verifier.grant(token, seconds)),
            Auth::Upstream(upstream) => {
                return self.look_upstream(upstream, visitor, credentials, channels);
            }
        };
        Authorization::Known(match granted {
            Ok((expires, member)) => {
                let grant = self.number();
                let allowed = Allowed { grant, credentials, expires, user: None, member, seen };
                Verdict::Allowed(allowed, channels.into())
            }
            Err(denied) => Verdict::Rejection(denied),
        })
    }

    /// The authorization by a token that was checked already.
    pub(super) fn by_token(
        &self,
        token: &str,
        headers: &dyn Headers,
        expires: Option<Seconds>,
    ) -> Allowed {
        let seen = self.seen();
        let credentials = self.shown(Some(token), headers);
        let grant = self.number();
        Allowed { grant, credentials, expires, user: None, member: None, seen }
    }

    /// A grant for a poll that is held from now on.
    pub(super) fn take(&self, allowed: Allowed, waiter: &Waiter) -> GrantGuard {
        let Allowed { grant, credentials, expires, seen, .. } = allowed;
        let mut channels: Names = waiter.channels().cloned().collect();
        // Joins and leaves are read by the grant for the channel they are about.
        let about = |name: &ChannelName| name.sibling(name.strip_prefix(presence::PREFIX)?).ok();
        let about: Names = channels.iter().filter_map(about).collect();
        channels.extend(about);
        let mut in_use = self.shared.used.lock();
        let late = in_use.was_revoked(seen, &channels, &credentials);
        let revoked = Arc::new(AtomicBool::new(late));
        let ringer = waiter.wake_handle();
        let used = ActiveGrant { grant, credentials, channels, ringer, revoked: revoked.clone() };
        let key = in_use.used.insert(used);
        drop(in_use);
        if late {
            waiter.wake_handle().notify();
        }
        GrantGuard { grants: self.clone(), key, revoked, expires }
    }

    /// Revokes the grants of `channel` for clients that have shown `credential` (a token, or the
    /// value of a cookie); `None` = any of `site`. Returns the number of revoked grants.
    pub(super) fn revoke(
        &self,
        site: &SiteName,
        channel: Option<&ChannelName>,
        credential: Option<&str>,
    ) -> usize {
        let credential = credential.map(|text| self.shared.hasher.hash_one(text.as_bytes()));
        let (site, channel) = (site.clone(), channel.cloned().map(|name| name.in_site(site)));
        let revocation = Revocation { site, channel, credential };
        let mut rung = Vec::new();
        let mut in_use = self.shared.used.lock();
        let mut grants = self.shared.memory.forget(&revocation);
        for (_, used) in &in_use.used {
            if revocation.means(&used.channels, &used.credentials) {
                used.revoked.store(true, Ordering::SeqCst);
                rung.push(used.ringer.clone());
                grants.insert(used.grant);
            }
        }
        in_use.revocations += 1;
        in_use.recent.push_back(revocation);
        if in_use.recent.len() > MAX_RECENT {
            in_use.recent.pop_front();
        }
        drop(in_use);
        // Unlock, then wake.
        rung.iter().for_each(WakeHandle::notify);
        grants.len()
    }

    /// Number of revocations so far.
    fn seen(&self) -> u64 {
        self.shared.used.lock().revocations
    }

    fn number(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    fn credentials(&self, visitor: &Requester<'_>) -> Credentials {
        let token = auth::token(visitor.query, visitor.headers);
        self.shown(token.as_deref(), visitor.headers)
    }

    /// The credentials in a request with that token.
    fn shown(&self, token: Option<&str>, headers: &dyn Headers) -> Credentials {
        let hash = |shown: &[u8]| self.shared.hasher.hash_one(shown);
        let authorization = headers.get("authorization");
        let mut more = cookies(headers).map(|(_, value)| value);
        let cookies: Credentials = more.by_ref().take(MAX_COOKIES).map(hash).collect();
        let anybody = more.next().map(|_| ANYBODY);
        token
            .map(|token| hash(token.as_bytes()))
            .into_iter()
            .chain(authorization.map(|shown| hash(shown.as_bytes())))
            .chain(cookies)
            .chain(anybody)
            .collect()
    }
}

fn covers(granted: &Channels, channels: &[ChannelName]) -> Result<(), Rejection> {
    match channels.iter().find(|channel| !granted.has(channel)) {
        None => Ok(()),
        Some(channel) => Err(Rejection::Channel(channel.clone())),
    }
}

/// Whole seconds since 1970.
fn seconds(now: Time) -> Seconds {
    now.0 / 1_000_000
}

impl Allowed {
    /// The user who is present by it.
    pub(super) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }
}

impl GrantGuard {
    /// Time until it expires; `None` = it holds until it is revoked.
    pub(super) fn left(&self, now: Time) -> Option<Duration> {
        let micros = self.expires?.saturating_mul(1_000_000).saturating_sub(now.0);
        Some(Duration::from_micros(micros))
    }

    /// The reason why it is no longer valid, if it is not.
    pub(super) fn check(&self, now: Time) -> Result<(), Rejection> {
        if self.revoked.load(Ordering::SeqCst) {
            return Err(Rejection::Revoked);
        }
        match self.expires {
            Some(expires) if seconds(now) >= expires => Err(Rejection::Expired),
            _ => Ok(()),
        }
    }
}

impl Drop for GrantGuard {
    fn drop(&mut self) {
        self.grants.shared.used.lock().used.try_remove(self.key);
    }
}
