//! Authorization requests to the upstream.
//!
//! One request serves all clients that ask the same at the same time. Few are at the upstream at
//! once, and the timeout of one counts from when it was wanted, so a slow upstream makes for 503,
//! never for a queue without an end.
//!
//! [`request`] builds one, [`response`] reads the answer.

mod request;
mod response;

use self::response::{AuthResponse, Permission};
use super::cache::{CachedDecision, Key};
use super::{Allowed, Authorization, Credentials, Grants, Names, Requester, Verdict};
use crate::hub::channel::ChannelName;
use crate::protocol::address::Address;
use crate::protocol::auth::{Rejection, Upstream, Url};
use crate::protocol::http::Reply;
use crate::protocol::http::query::masked;
use crate::server::limits::permit::ip_prefix;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
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
/// The header with the channels, in the request and in the response.
const CHANNELS: &str = "pollgate-channels";

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
        let common = request::common_key(settings, visitor);
        let key = |names: &[ChannelName]| request::key(&common, names);
        let single: Vec<(Key, ChannelName)> =
            channels.iter().map(|name| (key(std::slice::from_ref(name)), name.clone())).collect();
        let memory = &self.shared.memory;
        let seen = self.seen();
        let decisions: Option<Vec<CachedDecision>> =
            single.iter().map(|(key, _)| memory.recall(key)).collect();
        if let Some(decisions) = decisions {
            let allowed = decisions.iter().filter(|decision| decision.allowed);
            let names: Names = allowed.map(|decision| decision.channel.clone()).collect();
            let grant = decisions.first().map_or(0, |decision| decision.grant);
            let user = decisions.first().and_then(|decision| decision.user);
            let member = decisions.first().and_then(|decision| decision.member.clone());
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
            headers: request::headers(visitor, host, channels),
            key: key(channels),
            channels: single,
            credentials,
            client: visitor.client,
            settings: settings.clone(),
        }))
    }
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
        let response = cell.get_or_init(|| async { Arc::new(self.ask().await) }).await.clone();
        match &*response {
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
        let response = match asked.await {
            Ok(Ok(AuthResponse::Permission(yes))) => {
                AuthResponse::Permission(Permission { seen, ..yes })
            }
            Ok(Ok(response)) => response,
            Ok(Err(why)) => {
                AuthResponse::Nothing(format!("the site cannot be asked who may poll: {why}"))
            }
            Err(_) => {
                AuthResponse::Nothing("the site took too long to say who may poll".to_owned())
            }
        };
        match &response {
            AuthResponse::Permission(yes) => self.remember(yes),
            AuthResponse::Nothing(error) => {
                let url = masked(&self.target, &["*".to_owned()]);
                tracing::warn!(servers = ?self.servers, url, error, "auth");
            }
            AuthResponse::No(_) => {}
        }
        response
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
            let decision =
                CachedDecision { grant, allowed, credentials, channel, user, member, until };
            self.grants.shared.memory.keep(*key, decision);
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
}
