//! The site behind a hold: the request that was held, to be made again, and requests to its links.

use super::Settings as Grip;
use super::withheld::MAX_BODY;
use crate::protocol::address::Address;
use crate::protocol::grip::link::{self, Link};
use crate::protocol::grip::{Instruct, is_own};
use crate::server::gate::Settings;
use crate::server::gate::proxy::forwarded::Client;
use crate::server::gate::proxy::upstream_request;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pingora::proxy::Session;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// See the [module](self).
#[derive(Clone)]
pub(in crate::server::gate) struct Origin(Arc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    /// It was a GET; another one cannot be made again, since its body is gone.
    again: bool,
    /// Path and query.
    target: Box<str>,
    /// The headers as the site got them, in lines; a map would take four times the room.
    headers: Box<[u8]>,
}

/// The site's response to a request of the gate's own.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no response.
pub(super) struct Failed {
    pub(super) words: String,
    /// The site may have the request.
    pub(super) reached: bool,
}

/// A header that says which item of a channel was the last.
pub(super) type Last<'a> = (&'a str, &'a str);

/// Headers of the one request, of its connection or its body, which do not go with another.
const NOT_AGAIN: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Origin {
    /// The site behind the session's request.
    pub(super) fn of(
        settings: &Arc<Settings>,
        session: &Session,
        client: &Client,
    ) -> Result<Self, String> {
        let mut head = session.req_header().clone();
        upstream_request::prepare(session, &mut head, client).map_err(|e| e.to_string())?;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let host = head.uri.authority().filter(|_| !head.headers.contains_key(header::HOST));
        let host = host.map(|authority| ("host", authority.as_str().as_bytes()));
        Ok(Self::new(settings, head.method == Method::GET, target, headers.chain(host)))
    }

    /// The site behind a request that was forwarded with this `head`; `None` = that is none.
    pub(in crate::server::gate) fn of_head(settings: &Arc<Settings>, head: &[u8]) -> Option<Self> {
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let mut words = std::str::from_utf8(lines.next()?).ok()?.split(' ');
        let method = words.next()?;
        let target = words.next()?;
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            Some((std::str::from_utf8(name).ok()?, value[1..].trim_ascii_start()))
        });
        Some(Self::new(settings, method == "GET", target, headers))
    }

    /// The site behind a socket, whose requests bear these headers.
    pub(super) fn of_socket(
        settings: &Arc<Settings>,
        target: &str,
        headers: impl Iterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        let headers: Vec<_> = headers.collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        Self::new(settings, false, target, headers)
    }

    fn new<'a>(
        settings: &Arc<Settings>,
        again: bool,
        target: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut lines = Vec::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if !NOT_AGAIN.contains(&name.as_str()) && !is_own(&name) {
                for part in [name.as_bytes(), b":", value, b"\n"] {
                    lines.extend_from_slice(part);
                }
            }
        }
        let settings = settings.clone();
        let target = target.into();
        Self(Arc::new(Shared { settings, again, target, headers: lines.into() }))
    }

    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.0.settings
    }

    /// True if the request can be made again.
    pub(super) fn can_ask_again(&self) -> bool {
        self.0.again
    }

    /// Makes the request again; the site learns where the client is.
    pub(super) async fn ask_again(&self, last: &[Last<'_>]) -> Result<Answer, String> {
        let headers = self.headers(None);
        let asked = self.exchange(Method::GET, &self.0.target, headers, last, Bytes::new()).await;
        asked.map_err(|failed| failed.words)
    }

    /// Posts a body to the target of the request, with more headers.
    pub(super) async fn post(&self, more: HeaderMap, body: Bytes) -> Result<Answer, Failed> {
        let mut headers = self.headers(None);
        headers.extend(more);
        self.exchange(Method::POST, &self.0.target, headers, &[], body).await
    }

    /// Resolves a link of a response to a request of `target`, or to the first one.
    pub(super) fn resolve(&self, target: Option<&str>, uri: &str) -> Option<Link> {
        link::resolve(target.unwrap_or(&self.0.target), uri)
    }

    /// Asks for what a link has.
    pub(super) async fn follow(&self, link: &Link, last: &[Last<'_>]) -> Result<Answer, String> {
        let headers = self.link_headers(link);
        let asked = self.exchange(Method::GET, &link.target, headers, last, Bytes::new()).await;
        asked.map_err(|failed| failed.words)
    }

    /// Posts to the link that wants to know of the end, beside everything else.
    pub(super) fn gone(&self, link: Link) {
        let origin = self.clone();
        tokio::spawn(async move {
            let headers = origin.link_headers(&link);
            let asked =
                origin.exchange(Method::POST, &link.target, headers, &[], Bytes::new()).await;
            if let Err(Failed { words, .. }) = asked {
                tracing::debug!(error = words, "the site does not learn that a client is gone");
            }
        });
    }

    fn link_headers(&self, link: &Link) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let host = link.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
        let all = self.headers(Some("host"));
        if let Some(host) = host.or_else(|| all.get(header::HOST).cloned()) {
            headers.insert(header::HOST, host);
        }
        headers
    }

    /// The headers of the request, or those of one name.
    fn headers(&self, only: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in self.0.headers.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = &line[..colon];
            let value = &line[colon + 1..];
            if only.is_some_and(|only| only.as_bytes() != name) {
                continue;
            }
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        headers
    }

    fn grip(&self) -> Result<&Grip, Failed> {
        let grip = self.0.settings.grip.as_deref();
        grip.ok_or_else(|| Failed { words: "GRIP is off".to_owned(), reached: true })
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        last: &[Last<'_>],
        body: Bytes,
    ) -> Result<Answer, Failed> {
        let grip = self.grip()?;
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if method == Method::POST {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        for (name, value) in grip.headers() {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                headers.insert(name, value);
            }
        }
        for (channel, id) in last {
            let value = format!("{channel}; last-id={id}");
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append("grip-last", value);
            }
        }
        let reached = |words: &str| Failed { words: words.to_owned(), reached: true };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| reached("the target is none"))?;
        *request.headers_mut() = headers;
        let limit = self.0.settings.connect_timeout + self.0.settings.read_timeout;
        let asked = tokio::time::timeout(limit, async {
            // The semaphore is never closed.
            let _turn = grip.asking.acquire().await;
            self.send(request).await
        });
        asked.await.unwrap_or_else(|_| Err(reached("the site took too long")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        let mut failed = "there is no server to ask".to_owned();
        for server in self.0.settings.upstream.addresses() {
            // Nothing was sent yet, so the next server may be asked.
            match server {
                Address::Unix(path) => match UnixStream::connect(path).await {
                    Ok(stream) => return answer(stream, request).await,
                    Err(error) => failed = error.to_string(),
                },
                Address::Tcp { host, port } => match connect(host.as_str(), port).await {
                    Ok(stream) => return answer(stream, request).await,
                    Err(error) => failed = error,
                },
            }
        }
        Err(Failed { words: failed, reached: false })
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| error.to_string())
}

async fn answer<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| Failed { words: error.to_string(), reached: true };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(words)?.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let too_long = |_| "its body is too long, or breaks off".to_owned();
    let body = body.map_err(|error| Failed { words: too_long(error), reached: true })?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

impl Answer {
    /// The instruction in it.
    pub(super) fn instruct(self) -> Result<Instruct, String> {
        Instruct::read(self.status, &self.headers, self.body)
    }
}

/// The time before a link is asked once more that could not be had `failures` times.
pub(super) fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)) + Duration::from_secs(1).mul_f64(fastrand::f64())
}
