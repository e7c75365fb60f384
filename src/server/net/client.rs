//! A small HTTP client for the internal listener: the command line and the demo site use it.

use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Reason why a request to the internal listener failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens at the address.
    #[error("no gate answers at {0}: {1}")]
    Connect(Address, io::Error),
    /// The connection broke.
    #[error("the gate at {0} broke off: {1}")]
    Http(Address, hyper::Error),
    /// The request cannot be encoded, as with a line break in a header.
    #[error("the request cannot be sent: {0}")]
    Request(http::Error),
    /// There was no response in time.
    #[error("the gate at {0} did not answer within {1:?}")]
    Timeout(Address, Duration),
}

/// A request to the internal listener.
#[derive(Debug, Default)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query, escaped.
    pub target: &'a str,
    /// The body's type, if there is a body.
    pub content_type: Option<&'a str>,
    /// The body.
    pub body: Bytes,
}

/// Timeout of a response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends `call` to the gate at `address` and reads its whole response.
pub async fn call(
    address: &Address,
    token: &Secret,
    call: Call<'_>,
) -> Result<(u16, Bytes), ClientError> {
    let host = match address {
        Address::Unix(_) => "localhost".to_owned(),
        Address::Tcp { .. } => address.to_string(),
    };
    let mut request =
        http::Request::builder().method(call.method).uri(call.target).header("Host", host);
    if let Some(content_type) = call.content_type {
        request = request.header("Content-Type", content_type);
    }
    if !token.is_empty() {
        request = request.header("Authorization", format!("Bearer {}", token.reveal()));
    }
    let request = request.body(call.body).map_err(ClientError::Request)?;
    let answer = exchange_with(address, request).await?;
    Ok((answer.status().as_u16(), answer.into_body()))
}

/// Sends any request to the gate at `address`, over a connection of its own, and reads its whole
/// response.
pub async fn exchange_with(
    address: &Address,
    mut request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, ClientError> {
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let answer = tokio::time::timeout(TIMEOUT, async {
        match address {
            Address::Unix(path) => {
                exchange(address, UnixStream::connect(path).await, request).await
            }
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                exchange(address, stream, request).await
            }
        }
    });
    answer.await.unwrap_or_else(|_| Err(ClientError::Timeout(address.clone(), TIMEOUT)))
}

async fn exchange<S>(
    address: &Address,
    stream: io::Result<S>,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = stream.map_err(|error| ClientError::Connect(address.clone(), error))?;
    let broken = |error| ClientError::Http(address.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::new)).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    Ok(http::Response::from_parts(head, body.collect().await.map_err(broken)?.to_bytes()))
}
