//! Authorization requests to the upstream.
//!
//! One request serves all clients that ask the same at the same time. Few are at the upstream at
//! once, and the timeout of one counts from when it was wanted, so a slow upstream makes for 503,
//! never for a queue without an end.

use super::cache::{CachedDecision, Key};
use super::{Allowed, Authorization, Credentials, Grants, Names, Requester, Verdict};
use crate::hub::channel::ChannelName;
use crate::hub::presence::Member;
use crate::protocol::address::Address;
use crate::protocol::auth::{self, Rejection, Upstream, Url};
use crate::protocol::http::Reply;
use crate::protocol::http::query::{decode_strictly, masked};
use crate::server::gate::digest::Digest;
use crate::server::limits::permit::ip_prefix;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming as Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OnceCell, Semaphore};

/// Authorization requests at the upstream at once.
const AT_ONCE: usize = 16;
/// Of those, the questions about clients of one address: slow answers to one of them are not to
/// keep all others waiting.
const PER_ADDRESS: usize = 4;
/// The longest body of a refusal that is passed on, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Headers of the client that are forwarded, beside its cookies and the gate's own headers.
const PASSED_ON: [&str; 4] = ["authorization", "user-agent", "accept-language", "origin"];
/// The header with the channels, in the request and in the response.
const CHANNELS: &str = "pollgate-channels";
/// The header in which the answer may name the user.
const USER: &str = "pollgate-user";
/// The header with more about that user, as JSON.
const USER_INFO: &str = "pollgate-user-info";
/// Bytes that need no escape in a list of channels.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request under way, and its response.
type Cell = OnceCell<Arc<AuthResponse>>;

/// Requests under way.
pub(super) struct InFlight {
    cells: Mutex<HashMap<Key, Weak<Cell>>>,
    at_once: Semaphore,
    /// The share of each address in that.
    shares: Mutex<HashMap<Option<IpAddr>, Weak<Semaphore>>>,
}

impl InFlight {
    fn share(&self, address: Option<IpAddr>) -> Arc<Semaphore> {
        let address = address.map(ip_prefix);
        let mut shares = self.shares.lock();
        let known = shares.get(&address).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            shares.retain(|_, share| share.strong_count() > 0);
            let share = Arc::new(Semaphore::new(PER_ADDRESS));
            shares.insert(address, Arc::downgrade(&share));
            share
        })
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self { cells: Mutex::default(), at_once: Semaphore::new(AT_ONCE), shares: Mutex::default() }
    }
}

/// A request to the upstream, ready to be sent.
pub(crate) struct AuthRequest {
    grants: Grants,
    /// The servers to ask: the first that can be connected to.
    servers: Vec<Address>,
    target: String,
    headers: HeaderMap,
    /// Digest of the whole request.
    key: Key,
    /// Its channels, each with the key of the request for it alone.
    channels: Vec<(Key, ChannelName)>,
    credentials: Credentials,
    client: Option<IpAddr>,
    settings: Upstream,
}

/// The upstream's response.
enum AuthResponse {
    /// Authorization for these channels.
    Permission(Permission),
    No(Reply),
    Nothing(String),
}

struct Permission {
    grant: u64,
    /// A hash of the user that the upstream named.
    user: Option<u64>,
    /// The user who is present by it.
    member: Option<Member>,
    names: Names,
    /// Number of revocations at the time of the request.
    seen: u64,
}

impl Grants {
    /// The cached decision, or the request to send to the upstream.
    pub(super) fn look_upstream(
        &self,
        settings: &Upstream,
        visitor: &Requester<'_>,
        credentials: Credentials,
        channels: &[ChannelName],
    ) -> Authorization {
        if credentials.is_empty() && !settings.anonymous {
            return Authorization::Known(Verdict::Rejection(Rejection::Missing));
        }
        // The part that is the same for all of them is hashed once.
        let common = common_key(settings, visitor);
        let key = |names: &[ChannelName]| key(&common, names);
        let single: Vec<(Key, ChannelName)> =
            channels.iter().map(|name| (key(std::slice::from_ref(name)), name.clone())).collect();
        let memory = &self.shared.memory;
        let seen = self.seen();
        let words: Option<Vec<CachedDecision>> =
            single.iter().map(|(key, _)| memory.recall(key)).collect();
        if let Some(words) = words {
            let names = words.iter().filter(|word| word.allowed).map(|word| word.channel.clone());
            let names: Names = names.collect();
            let grant = words.first().map_or(0, |word| word.grant);
            let user = words.first().and_then(|word| word.user);
            let member = words.first().and_then(|word| word.member.clone());
            return Authorization::Known(match channels.first() {
                Some(first) if names.is_empty() => {
                    Verdict::Rejection(Rejection::Channel(first.clone()))
                }
                _ => Verdict::Allowed(
                    Allowed { grant, credentials, expires: None, user, member, seen },
                    names,
                ),
            });
        }
        let (servers, host, target) = match &settings.url {
            Url::Path(path) => (visitor.upstream.addresses(), visitor.host, path.clone()),
            Url::Absolute { server, host, target } => {
                (vec![server.clone()], host.as_str(), target.clone())
            }
        };
        if servers.is_empty() {
            return Authorization::Known(Verdict::Unknown(unknown("there is no server to ask")));
        }
        Authorization::Site(Box::new(AuthRequest {
            grants: self.clone(),
            servers,
            target,
            headers: question(visitor, host, channels),
            key: key(channels),
            channels: single,
            credentials,
            client: visitor.client,
            settings: settings.clone(),
        }))
    }
}

/// The headers of the request.
fn question(visitor: &Requester<'_>, host: &str, channels: &[ChannelName]) -> HeaderMap {
    let names: Vec<String> =
        channels.iter().map(|name| utf8_percent_encode(name, PLAIN).to_string()).collect();
    let names = names.join(",");
    let cookies = visitor.headers.raw("cookie").join(&b"; "[..]);
    let passed = PASSED_ON.into_iter();
    let passed = passed.filter_map(|name| Some((name, visitor.headers.get(name)?.as_bytes())));
    let own = [
        ("host", host.as_bytes()),
        ("connection", b"close"),
        ("cookie", &cookies),
        ("x-original-uri", visitor.target.as_bytes()),
        (CHANNELS, names.as_bytes()),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in own.into_iter().chain(passed) {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    // As with every other request: a site that asks for HTTPS would refuse this one.
    for (name, value) in visitor.way.headers(visitor.headers, visitor.host) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Distinguishes one request from all others: target, client and channels. The upstream may decide
/// by any part of what it gets, so all of it counts: of the query and the path everything but what
/// is new with each poll, or names the channels, which count by themselves.
fn key(common: &Digest, channels: &[ChannelName]) -> Key {
    let mut digest = common.clone();
    channels.hash(&mut digest);
    digest.end()
}

/// The part that is the same for all channels.
fn common_key(settings: &Upstream, visitor: &Requester<'_>) -> Digest {
    let dialect = &visitor.rule.dialect;
    let path = match dialect.has_channels_in_path() {
        true => visitor.rule.path.before_rest(visitor.path),
        false => visitor.path,
    };
    let mut digest = Digest::new();
    settings.url.hash(&mut digest);
    visitor.headers.raw("cookie").hash(&mut digest);
    // The hops before the client are its own words, and may be new with each request.
    let way = visitor.way.headers(visitor.headers, visitor.host).into_iter();
    let way = way.filter(|(name, _)| !matches!(*name, "X-Forwarded-For" | "Forwarded"));
    way.collect::<Vec<_>>().hash(&mut digest);
    PASSED_ON.map(|name| visitor.headers.get(name)).hash(&mut digest);
    (visitor.client, visitor.host, path).hash(&mut digest);
    visitor.query.hash_without(|name| dialect.moves(name), &mut digest);
    auth::token(visitor.query, visitor.headers).hash(&mut digest);
    digest
}

fn unknown(error: &str) -> Reply {
    Reply::json(503, &serde_json::json!({ "error": error })).with("Retry-After", "5")
}

impl AuthRequest {
    /// Sends the request, or waits for one like it that is under way.
    pub(crate) async fn verdict(self: Box<Self>) -> Verdict {
        let cell = {
            let mut cells = self.grants.shared.asking.cells.lock();
            let known = cells.get(&self.key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let cell = Arc::<Cell>::default();
                cells.retain(|_, cell| cell.strong_count() > 0);
                cells.insert(self.key, Arc::downgrade(&cell));
                cell
            })
        };
        // If the task that sends it is dropped, the next waiting task sends it instead.
        let said = cell.get_or_init(|| async { Arc::new(self.ask().await) }).await.clone();
        match &*said {
            AuthResponse::Permission(Permission { grant, user, member, names, seen }) => {
                match self.channels.first() {
                    Some((_, first)) if names.is_empty() => {
                        Verdict::Rejection(Rejection::Channel(first.clone()))
                    }
                    _ => {
                        let credentials = self.credentials.clone();
                        let grant = *grant;
                        let user = *user;
                        let seen = *seen;
                        let member = member.clone();
                        let allowed =
                            Allowed { grant, credentials, expires: None, user, member, seen };
                        Verdict::Allowed(allowed, names.clone())
                    }
                }
            }
            AuthResponse::No(reply) => Verdict::Blocked(reply.clone()),
            AuthResponse::Nothing(error) => Verdict::Unknown(unknown(error)),
        }
    }

    async fn ask(&self) -> AuthResponse {
        let seen = self.grants.seen();
        let asked = tokio::time::timeout(self.settings.timeout, async {
            // Neither semaphore is ever closed.
            let share = self.grants.shared.asking.share(self.client);
            let _share = share.acquire().await;
            let _turn = self.grants.shared.asking.at_once.acquire().await;
            self.exchange().await
        });
        let said = match asked.await {
            Ok(Ok(AuthResponse::Permission(yes))) => {
                AuthResponse::Permission(Permission { seen, ..yes })
            }
            Ok(Ok(said)) => said,
            Ok(Err(why)) => {
                AuthResponse::Nothing(format!("the site cannot be asked who may poll: {why}"))
            }
            Err(_) => {
                AuthResponse::Nothing("the site took too long to say who may poll".to_owned())
            }
        };
        match &said {
            AuthResponse::Permission(yes) => self.remember(yes),
            AuthResponse::Nothing(error) => {
                let url = masked(&self.target, &["*".to_owned()]);
                tracing::warn!(servers = ?self.servers, url, error, "auth");
            }
            AuthResponse::No(_) => {}
        }
        said
    }

    fn remember(&self, Permission { grant, user, member, names, seen }: &Permission) {
        // Kept under the lock of the revocations, so that none comes in between.
        let in_use = self.grants.shared.used.lock();
        if self.settings.cache.is_zero() || in_use.was_revoked(*seen, names, &self.credentials) {
            return;
        }
        // A time beyond the clock's end is as good as a long one.
        let now = Instant::now();
        let long = now + Duration::from_secs(365 * 24 * 3600);
        let until = now.checked_add(self.settings.cache).unwrap_or(long);
        for (key, channel) in &self.channels {
            let allowed = names.contains(channel);
            let channel = channel.clone();
            let credentials = self.credentials.clone();
            let grant = *grant;
            let user = *user;
            let member = member.clone();
            let word = CachedDecision { grant, allowed, credentials, channel, user, member, until };
            self.grants.shared.memory.keep(*key, word);
        }
    }

    async fn exchange(&self) -> Result<AuthResponse, String> {
        let mut failed = String::new();
        for server in &self.servers {
            // Nothing was sent yet, so the next server may be asked.
            match server {
                Address::Unix(path) => match UnixStream::connect(path).await {
                    Ok(stream) => return self.exchange_on(stream).await,
                    Err(error) => failed = error.to_string(),
                },
                Address::Tcp { host, port } => {
                    match TcpStream::connect((host.as_str(), *port)).await {
                        Ok(stream) => return self.exchange_on(stream).await,
                        Err(error) => failed = error.to_string(),
                    }
                }
            }
        }
        Err(failed)
    }

    async fn exchange_on<S>(&self, stream: S) -> Result<AuthResponse, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let words = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        tokio::spawn(connection);
        let mut request = Request::get(&self.target).body(Empty::<Bytes>::new());
        let request = request.as_mut().map_err(|error| error.to_string())?;
        *request.headers_mut() = self.headers.clone();
        let answer = sender.send_request(std::mem::take(request)).await.map_err(words)?;
        self.understand(answer).await
    }

    async fn understand(&self, answer: Response<Body>) -> Result<AuthResponse, String> {
        let status = answer.status();
        if status.is_success() {
            return self.allowed(answer.headers());
        }
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(format!("it answered {status}; answer 2xx to allow, 401 or 403 to refuse"));
        }
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = text(header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let scheme = text(header::WWW_AUTHENTICATE).map(str::to_owned);
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|_| "its refusal is too long, or breaks off".to_owned())?;
        let mut reply = Reply::new(status.as_u16(), "", body.to_bytes());
        reply.content_type = content_type.into();
        Ok(AuthResponse::No(match scheme {
            Some(scheme) => reply.with("WWW-Authenticate", scheme),
            None => reply,
        }))
    }

    /// The channels that a response authorizes.
    fn allowed(&self, headers: &HeaderMap) -> Result<AuthResponse, String> {
        let grant = self.grants.number();
        let seen = 0;
        let asked = self.channels.iter().map(|(_, name)| name);
        let user = headers.get(USER).filter(|user| !user.is_empty());
        let member = user.and_then(|user| member(user, headers.get(USER_INFO)));
        let user = user.map(|user| self.grants.shared.hasher.hash_one(user.as_bytes()));
        if !headers.contains_key(CHANNELS) {
            return Ok(AuthResponse::Permission(Permission {
                grant,
                user,
                member,
                names: asked.cloned().collect(),
                seen,
            }));
        }
        let granted = granted(headers).ok_or(
            "its Pollgate-Channels is no list of percent-encoded names; it has no patterns",
        )?;
        let names = asked.filter(|name| granted.contains(name.as_str())).cloned().collect();
        Ok(AuthResponse::Permission(Permission { grant, user, member, names, seen }))
    }
}

/// The user that a response names. An info that cannot be used is left out.
fn member(user: &HeaderValue, info: Option<&HeaderValue>) -> Option<Member> {
    let user = std::str::from_utf8(user.as_bytes()).ok()?;
    let usable = |info: &&str| {
        let reason = if info.len() > Member::MAX_INFO {
            "it is longer than 1 KB"
        } else if serde_json::from_str::<&serde_json::value::RawValue>(info).is_err() {
            "it is no JSON"
        } else {
            return true;
        };
        tracing::warn!(user, reason, "a Pollgate-User-Info is left out");
        false
    };
    let info = info.and_then(|info| std::str::from_utf8(info.as_bytes()).ok());
    Member::new(user, info.filter(usable))
}

/// The names in the response's list. The list is taken apart before its names are decoded, and a
/// name is a name: `room-%2A` is a channel with a star in it, never all rooms.
fn granted(headers: &HeaderMap) -> Option<HashSet<String>> {
    let mut names = HashSet::new();
    for list in headers.get_all(CHANNELS) {
        for name in list.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name.contains('*') {
                return None;
            }
            names.insert(String::from_utf8(decode_strictly(name)?.into_owned()).ok()?);
        }
    }
    Some(names)
}
