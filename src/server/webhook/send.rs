//! Sending the events of one webhook.

use super::{Cause, GATHER, Hook, MAX_BATCH, Outcome, REPEAT, Settings, Shared, event};
use crate::hub::channel::Time;
use crate::protocol::address::Address;
use crate::protocol::auth::Url;
use crate::server::net::tls_client::{HandshakeError, cause, untrusted};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

/// Timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest and the longest pause before a repetition; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The interval at which a full batch is noticed.
const FULL: Duration = Duration::from_millis(50);

/// Sends the events of `hook`, for ever.
pub(super) async fn send_all(hook: Arc<Hook>, shared: Arc<Shared>) {
    loop {
        hook.queue.filled().await;
        gather(&hook).await;
        let events = hook.queue.oldest(MAX_BATCH);
        let body = Bytes::from(event::body(&events, hook.settings.pusher.as_deref(), now()));
        let outcome = match deliver(&hook, &shared, &body).await {
            Ok(()) => Outcome::Sent,
            Err(reason) => {
                let url = name(&hook.settings.url);
                let lost = events.len();
                tracing::error!(url, reason, lost, "a webhook does not take its events");
                Outcome::Failed
            }
        };
        // Those of a webhook that is gone meanwhile are counted already.
        shared.counts.add(outcome, hook.queue.take_off(events.len()) as u64);
    }
}

/// Waits for more events for the same request.
async fn gather(hook: &Hook) {
    let end = Instant::now() + GATHER;
    while hook.queue.len() < MAX_BATCH.events && Instant::now() < end {
        tokio::time::sleep(FULL).await;
    }
}

/// Sends one body until the receiver takes it; the error is why it never did.
async fn deliver(hook: &Hook, shared: &Shared, body: &Bytes) -> Result<(), String> {
    let end = Instant::now() + REPEAT;
    let mut pause = PAUSES.0;
    let mut tried = 0;
    loop {
        let reason = match attempt(hook, shared, body).await {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        };
        tried += 1;
        if tried == 1 {
            let url = name(&hook.settings.url);
            tracing::warn!(url, reason, "a webhook is not taken; it is repeated");
        }
        let wait = pause.mul_f64(1.0 - 0.3 * fastrand::f64());
        if Instant::now() + wait > end {
            return Err(reason);
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn attempt(hook: &Hook, shared: &Shared, body: &Bytes) -> Result<(), String> {
    let settings = &hook.settings;
    let (servers, target, host) = match &settings.url {
        Url::Absolute { server, host, target } => (vec![server.clone()], target, host.clone()),
        Url::Path(path) => ((shared.servers)(&settings.site), path, settings.host.clone()),
    };
    let mut failed = "there is no server to send to".to_owned();
    for server in servers {
        let host = if host.is_empty() { host_of(&server) } else { host.clone() };
        let request = http::Request::post(target)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "pollgate");
        let request = match settings.secret.is_empty() {
            true => request,
            false => {
                request.header("Pollgate-Signature", signature(settings.secret.reveal(), body))
            }
        };
        let request = match &settings.pusher {
            None => request,
            Some(app) => request
                .header("X-Pusher-Key", &*app.key)
                .header("X-Pusher-Signature", app.signer.sign(body)),
        };
        let request = request.body(Full::new(body.clone())).map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(TIMEOUT, exchange(&server, settings, request)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure { cause: Cause::Timeout, reason: "it does not answer".to_owned() })
        });
        match answer {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) => {
                shared.failures.count(Cause::Status);
                return Err(format!("{server} answers {status}"));
            }
            // The next server may take it; a repetition does no harm.
            Err(Failure { cause, reason }) => {
                shared.failures.count(cause);
                failed = format!("{server}: {reason}");
            }
        }
    }
    Err(failed)
}

/// A request that had no answer.
struct Failure {
    cause: Cause,
    reason: String,
}

impl Failure {
    fn connection(error: impl std::fmt::Display) -> Self {
        Self { cause: Cause::Connection, reason: error.to_string() }
    }
}

/// Sends a request; its response's body is not read.
async fn exchange(
    server: &Address,
    settings: &Settings,
    request: http::Request<Full<Bytes>>,
) -> Result<http::StatusCode, Failure> {
    let (host, port) = match server {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(Failure::connection)?;
            return exchange_on(stream, request).await;
        }
        Address::Tcp { host, port } => (host.as_str(), *port),
    };
    let stream = TcpStream::connect((host, port)).await.map_err(Failure::connection)?;
    match &settings.tls {
        None => exchange_on(stream, request).await,
        Some(tls) => {
            let stream = tls.handshake(host, stream).await.map_err(not_secure)?;
            exchange_on(stream, request).await
        }
    }
}

/// There is no TLS with the receiver.
fn not_secure(error: HandshakeError) -> Failure {
    let reason = match &error {
        HandshakeError::Name => "no certificate can be for this name".to_owned(),
        HandshakeError::Tls(error) => match cause(error) {
            Some(Error::InvalidCertificate(wrong)) => untrusted(wrong, "the ca of the webhook"),
            Some(Error::InvalidMessage(_)) => {
                "it does not speak TLS there; write http in place of https".to_owned()
            }
            Some(error) => format!("TLS with it failed: {error}"),
            None => format!("TLS with it failed: {error}; does it speak TLS?"),
        },
    };
    Failure { cause: Cause::Tls, reason }
}

async fn exchange_on<S>(
    stream: S,
    request: http::Request<Full<Bytes>>,
) -> Result<http::StatusCode, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Failure::connection)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(Failure::connection);
    connection.abort();
    Ok(answer?.status())
}

/// The HMAC-SHA-256 of a body, as it stands in the header.
pub(super) fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn host_of(server: &Address) -> String {
    match server {
        Address::Unix(_) => "localhost".to_owned(),
        Address::Tcp { .. } => server.to_string(),
    }
}

fn name(url: &Url) -> String {
    match url {
        // What stands behind the ? may be a secret.
        Url::Path(path) => path.split('?').next().unwrap_or_default().to_owned(),
        Url::Absolute { server, .. } => server.to_string(),
    }
}

fn now() -> Time {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_php_makes() {
        // hash_hmac('sha256', '{}', 'key')
        let php = "a777724d943eb48dc69bca8a4a6d57a04db3f9ec7e1de4e581e860265bdf3032";
        assert_eq!(signature("key", b"{}"), format!("sha256={php}"));
    }
}
