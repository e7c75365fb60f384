//! Opens connections to Redis and its sentinels: address, login and transport.

use super::link::{TIMEOUT, reason};
use super::sentinel::Sentinels;
use super::tls;
use super::url::anonymous;
use super::{Kind, Server, Settings, Url};
use crate::protocol::auth::secret::Secret;
use crate::server::net::tls_client::TlsClient;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use std::future::pending;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// See the [module](self).
pub(super) struct Access {
    url: Url,
    tls: Option<TlsClient>,
    sentinel_password: Secret,
}

impl Access {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            url: settings.redis.clone(),
            tls: settings.tls.clone(),
            sentinel_password: settings.sentinel_password.clone(),
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// A connection to Redis itself.
    pub(super) async fn open(
        &self,
        server: &Server,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let opened = self.open_as(&self.url.login(), server, config).await;
        opened.map_err(|reason| needs_password(reason, "write :password@ before the host"))
    }

    /// A connection to a sentinel.
    pub(super) async fn open_sentinel(
        &self,
        server: &Server,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let mut login = anonymous();
        if !self.sentinel_password.is_empty() {
            login = login.set_password(self.sentinel_password.reveal());
        }
        let opened = self.open_as(&login, server, config).await;
        opened.map_err(|reason| needs_password(reason, "set backplane.sentinel_password"))
    }

    async fn open_as(
        &self,
        login: &RedisConnectionInfo,
        server: &Server,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let config = config.set_response_timeout(Some(TIMEOUT));
        let opened = tokio::time::timeout(TIMEOUT, self.handshake(login, server, config)).await;
        opened.unwrap_or_else(|_| {
            let hint = if self.url.is_tls() { "; does it speak TLS there?" } else { "" };
            Err(format!("no answer within {} s{hint}", TIMEOUT.as_secs()))
        })
    }

    async fn handshake(
        &self,
        login: &RedisConnectionInfo,
        server: &Server,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        // Every write is whole already.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            Some(tls) => {
                let stream = tls::handshake(tls, server, stream).await?;
                log_in(stream, login, config).await.map_err(|error| reason(&error))
            }
            None => log_in(stream, login, config).await.map_err(|error| {
                let hint = "; is it a port for TLS? Then write rediss in place of redis";
                format!("{}{}", reason(&error), if error.is_io_error() { hint } else { "" })
            }),
        }
    }
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    login: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    let (connection, driver) =
        MultiplexedConnection::new_with_config(login, stream, config).await?;
    // It ends when the connection is dropped and all requests are answered, or the other side ends.
    tokio::spawn(driver);
    Ok(connection)
}

/// `reason`; if it is a missing password, the remedy instead.
fn needs_password(reason: String, advice: &str) -> String {
    match reason.contains("NOAUTH") {
        true => format!("it asks for a password; {advice}"),
        false => reason,
    }
}

/// The server of a link.
pub(super) enum LinkTarget {
    /// Always there.
    Fixed(Server),
    /// The master that the sentinels name.
    Master(Sentinels),
}

impl LinkTarget {
    /// The one server of a URL that is no cluster.
    pub(super) fn of(access: &Arc<Access>) -> Self {
        match access.url().kind() {
            Kind::Sentinel { master } => {
                Self::Master(Sentinels::new(access.clone(), master.clone()))
            }
            Kind::Single | Kind::Cluster => Self::Fixed(access.url().servers()[0].clone()),
        }
    }

    /// Its current address.
    pub(super) async fn find(&self) -> Result<Server, String> {
        match self {
            Self::Fixed(server) => Ok(server.clone()),
            Self::Master(sentinels) => sentinels.ask().await,
        }
    }

    /// The server found there was not what it should be.
    pub(super) fn suspect(&self) {
        if let Self::Master(sentinels) = self {
            sentinels.suspect();
        }
    }

    /// Waits until it is known to be elsewhere than at `server`.
    pub(super) async fn moved(&self, server: &Server) {
        match self {
            Self::Fixed(_) => pending().await,
            Self::Master(sentinels) => sentinels.moved(server).await,
        }
    }

    /// Watches for its moves, for ever.
    pub(super) async fn keep(&self) {
        match self {
            Self::Fixed(_) => pending().await,
            Self::Master(sentinels) => sentinels.keep().await,
        }
    }
}
