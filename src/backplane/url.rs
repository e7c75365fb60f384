//! Where Redis is, as users write it.
//!
//! `redis://[[user]:password@]host[:port][/database]`

use crate::query::decode_strictly;
use crate::secret::Secret;
use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
};
use std::fmt;
use std::str::FromStr;

/// A server, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    user: String,
    password: Secret,
    database: i64,
}

/// Why a text is no such URL. It does not show the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("must begin with redis://")]
    Scheme,
    /// No host, or one that is none.
    #[error("has no host; write redis://host:port")]
    Host,
    /// The port is no number.
    #[error("has a port that is no number from 1 to 65535")]
    Port,
    /// The database is no number.
    #[error("has a path that is no number of a database; write redis://host:port/0")]
    Database,
    /// A user or password with an escape that is none.
    #[error("has a % in its user or password that is not followed by two hex digits; write %25")]
    Escape,
}

const PORT: u16 = 6379;

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("redis://").ok_or(UrlError::Scheme)?;
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = host_and_port(address)?;
        let database = match database {
            "" => 0,
            number => number.parse::<u16>().map_err(|_| UrlError::Database)?.into(),
        };
        let password = Secret::new(decoded(password)?);
        Ok(Self { host, port, user: decoded(user)?, password, database })
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), UrlError> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, "")) => (host, ""),
        Some((host, port)) => (host, port.strip_prefix(':').ok_or(UrlError::Port)?),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(known) || host.contains(':') && bracketed.is_none() {
        return Err(UrlError::Host);
    }
    let port = match port {
        "" => PORT,
        port => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?,
    };
    Ok((host.to_owned(), port))
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let bytes = decode_strictly(text).ok_or(UrlError::Escape)?;
    String::from_utf8(bytes.into_owned()).map_err(|_| UrlError::Escape)
}

impl Url {
    /// The password.
    pub fn password(&self) -> &Secret {
        &self.password
    }

    /// How to connect there.
    pub(super) fn connection(&self) -> redis::RedisResult<ConnectionInfo> {
        let mut who = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.database)
            .set_lib_name("pollgate", env!("CARGO_PKG_VERSION"));
        if !self.user.is_empty() {
            who = who.set_username(&self.user);
        }
        if !self.password.is_empty() {
            who = who.set_password(self.password.reveal());
        }
        let address = ConnectionAddr::Tcp(self.host.clone(), self.port);
        Ok(address.into_connection_info()?.set_redis_settings(who))
    }
}

/// With `***` in place of the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        f.write_str(&self.user)?;
        if !self.password.is_empty() {
            f.write_str(":***")?;
        }
        if !self.user.is_empty() || !self.password.is_empty() {
            f.write_str("@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port)?,
            false => write!(f, "{}:{}", self.host, self.port)?,
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_whole_but_for_its_password() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://10.0.0.1:7000/2", "redis://10.0.0.1:7000/2"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("redis://:p%40ss@host", "redis://:***@host:6379"),
            ("redis://gate:secret@host/0", "redis://gate:***@host:6379"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
        let url: Url = "redis://:p%40ss@host".parse().unwrap();
        assert_eq!(url.password().reveal(), "p@ss");
    }

    #[test]
    fn what_is_no_url_is_told_without_showing_it() {
        for (text, error) in [
            ("http://host", UrlError::Scheme),
            ("localhost:6379", UrlError::Scheme),
            ("redis://", UrlError::Host),
            ("redis://a b", UrlError::Host),
            ("redis://::1", UrlError::Host),
            ("redis://host:0", UrlError::Port),
            ("redis://host:x", UrlError::Port),
            ("redis://host/news", UrlError::Database),
            ("redis://:%zz@host", UrlError::Escape),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }
}
