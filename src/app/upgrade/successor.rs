//! Requests that still arrive at a gate that has been taken over: the new process answers them.

use crate::hub::channel::{ChannelName, Payload, Position, Tick};
use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use crate::protocol::http::{Reply, Request};
use crate::server::internal;
use crate::server::net::client::{self, Call, ClientError};
use crate::server::publish::{PublishError, Receipt, Remote, Source};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, TRANSFER_ENCODING,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The process that has taken over.
#[derive(Clone)]
pub(super) struct Successor {
    address: Address,
    token: Secret,
    in_flight: Arc<AtomicUsize>,
}

/// Response headers that are passed back, beside the content type.
const PASSED_BACK: [(HeaderName, &str); 5] = [
    (http::header::ALLOW, "Allow"),
    (http::header::CACHE_CONTROL, "Cache-Control"),
    (http::header::RETRY_AFTER, "Retry-After"),
    (http::header::WWW_AUTHENTICATE, "WWW-Authenticate"),
    (http::header::X_CONTENT_TYPE_OPTIONS, "X-Content-Type-Options"),
];

/// Counts one request as under way.
struct InFlightRequest(Arc<AtomicUsize>);

impl InFlightRequest {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Successor {
    /// The process whose internal side is at `address`. `in_flight` counts the requests under way
    /// there.
    pub(super) fn new(address: Address, token: String, in_flight: Arc<AtomicUsize>) -> Self {
        Self { address, token: Secret::new(token), in_flight }
    }

    /// Passes whole requests to it.
    pub(super) fn ask(self) -> internal::Remote {
        Arc::new(move |request| {
            let successor = self.clone();
            let in_flight = InFlightRequest::new(&self.in_flight);
            Box::pin(async move {
                let _passing = in_flight;
                let asked = match outgoing(request) {
                    Ok(request) => client::exchange_with(&successor.address, request).await,
                    Err(error) => Err(ClientError::Request(error)),
                };
                asked.map_or_else(|error| lost(&error), incoming)
            })
        })
    }

    /// Publishes there. `tick` returns the units of stamps.
    pub(super) fn publish(
        self,
        tick: impl Fn(&ChannelName) -> Tick + Clone + Send + Sync + 'static,
    ) -> Remote {
        Arc::new(move |posts, by| {
            let successor = self.clone();
            let tick = tick.clone();
            let in_flight = InFlightRequest::new(&self.in_flight);
            Box::pin(async move {
                let _passing = in_flight;
                if by == Source::Watch {
                    // The new process watches the same files.
                    return Err(PublishError::Ended);
                }
                let mut receipts = Vec::new();
                for (channel, payload) in posts {
                    let tick = tick(&channel);
                    receipts.push(successor.publish_one(channel, payload, tick).await?);
                }
                Ok(receipts)
            })
        })
    }

    async fn publish_one(
        &self,
        channel: ChannelName,
        payload: Payload,
        tick: Tick,
    ) -> Result<Receipt, PublishError> {
        let site = match channel.site() {
            "" => String::new(),
            site => format!("/sites/{site}"),
        };
        let name = utf8_percent_encode(&channel, NON_ALPHANUMERIC);
        let target = format!("{site}/channels/{name}");
        let content_type = Some(&*payload.content_type);
        let call = Call { method: "POST", target: &target, content_type, body: payload.body };
        match client::call(&self.address, &self.token, call).await {
            Ok((200, body)) => receipt(channel, tick, &body)
                .ok_or_else(|| PublishError::Unknown("the new process cannot be read".to_owned())),
            Ok((status, _)) => {
                Err(PublishError::Away(format!("the new process answered {status}")))
            }
            Err(error @ ClientError::Connect(..)) => Err(PublishError::Away(error.to_string())),
            Err(error) => Err(PublishError::Unknown(error.to_string())),
        }
    }
}

/// The same request for another process, without the headers of the connection.
fn outgoing(request: Request) -> Result<http::Request<bytes::Bytes>, http::Error> {
    let path = request.whole_path().into_owned();
    let Request { method, query, headers, body, .. } = request;
    let target = if query.is_empty() { path } else { format!("{path}?{query}") };
    let mut request = http::Request::builder().method(method).uri(target).body(body)?;
    *request.headers_mut() = headers;
    for name in [CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    Ok(request)
}

fn incoming(answer: http::Response<bytes::Bytes>) -> Reply {
    let text = |name: &HeaderName| {
        let value = answer.headers().get(name)?.to_str().ok()?;
        Some(Cow::Owned(value.to_owned()))
    };
    let content_type = text(&CONTENT_TYPE).unwrap_or_default();
    let known =
        PASSED_BACK.iter().filter_map(|(name, shown)| Some((Cow::Borrowed(*shown), text(name)?)));
    let status = answer.status().as_u16();
    let headers = known.collect();
    Reply { status, content_type, headers, body: answer.into_body() }
}

/// The reply when the new process did not answer.
fn lost(error: &ClientError) -> Reply {
    let hint = "try again; if it was a publish, it may have been done";
    Reply::error(503, error, hint).with("Retry-After", "1")
}

fn receipt(channel: ChannelName, tick: Tick, body: &[u8]) -> Option<Receipt> {
    #[derive(Deserialize)]
    struct Published<'a> {
        id: &'a str,
        #[serde(borrow)]
        stamp: &'a RawValue,
        released: usize,
    }
    let published: Published = serde_json::from_slice(body).ok()?;
    let id: Position = published.id.parse().ok()?;
    let stamp = tick.show(tick.parse(published.stamp.get())?);
    Some(Receipt { channel, id, stamp, released: published.released })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn a_receipt_is_read_from_an_answer() {
        let channel = ChannelName::new("live").unwrap();
        let body = br#"{"channel":"live","id":"Xk3v9Q-42","stamp":1700000000.123456,"released":3}"#;
        let receipt = receipt(channel, Tick::Micros, body).unwrap();
        assert_eq!((receipt.id.to_string().as_str(), receipt.released), ("Xk3v9Q-42", 3));
        assert_eq!(receipt.stamp.to_string(), "1700000000.123456");
    }

    #[test]
    fn a_request_is_passed_on_without_what_belongs_to_its_connection() {
        let mut request = Request::new(Method::POST, "/channels/a%20b?x=1");
        for (name, value) in [
            ("host", "gate.example"),
            ("idempotency-key", "k"),
            ("connection", "close"),
            ("content-length", "99"),
            ("expect", "100-continue"),
        ] {
            request.headers.insert(name, value.parse().unwrap());
        }
        let passed = outgoing(request).unwrap();
        assert_eq!(passed.uri(), "/channels/a%20b?x=1");
        let mut names: Vec<_> = passed.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "idempotency-key"]);
    }
}
