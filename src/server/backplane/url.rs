//! The URL of Redis, as users write it.
//!
//! `redis://[[user]:password@]host[:port][/database]` names one server,
//! `redis-sentinel://[[user]:password@]host[:port],.../master[/database]` the sentinels that know
//! the master of that name, `redis-cluster://[[user]:password@]host[:port],...` some nodes of a
//! cluster. With `rediss` in place of `redis` all connections are TLS.

use crate::protocol::auth::secret::Secret;
use crate::protocol::http::query::decode_strictly;
use redis::{ProtocolVersion, RedisConnectionInfo};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The servers to ask, and the login.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    kind: Kind,
    tls: bool,
    servers: Vec<Server>,
    user: String,
    password: Secret,
    database: u16,
}

/// Kind of a [`Url`]'s servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Redis itself, one server.
    Single,
    /// Sentinels, which know the address of Redis.
    Sentinel {
        /// The name of the master.
        master: String,
    },
    /// Nodes of a cluster.
    Cluster,
}

/// The address of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    /// Host name or IP address, IPv6 without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Reason why a text is no such URL, and the remedy. It does not show the text, which may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error(
        "must begin with redis://, redis-sentinel:// or redis-cluster://, or for TLS with \
         rediss://, rediss-sentinel:// or rediss-cluster://"
    )]
    Scheme,
    /// No host, or an invalid one; with an example.
    #[error("has no host, or one that is none; write {0}")]
    Host(&'static str),
    /// An IPv6 address without brackets.
    #[error("has an IPv6 address without brackets; write it as [2001:db8::1]:6379")]
    Brackets,
    /// The port is no number.
    #[error("has a port that is no number from 1 to 65535")]
    Port,
    /// Several hosts instead of one.
    #[error(
        "names several hosts; write one, or redis-sentinel:// before sentinels, or \
         redis-cluster:// before the nodes of a cluster"
    )]
    Hosts,
    /// A user and no password.
    #[error("has a user and no password; write user:password@ before the host, or :password@")]
    Password,
    /// A user or password with an invalid escape.
    #[error("has a % in its user or password that is not followed by two hex digits; write %25")]
    Escape,
    /// A password with a slash.
    #[error("has an @ behind a /; in a user or password / is written as %2F and @ as %40")]
    Slash,
    /// A query or fragment.
    #[error(
        "has a ? or #; write further settings as keys of [backplane], and in a password %3F or %23"
    )]
    Query,
    /// The database is no number.
    #[error("has a path that is no number of a database; write redis://host:port/0")]
    Database,
    /// Sentinels without the name of a master.
    #[error(
        "does not say which master the sentinels are to be asked for; write its name behind them, \
         as in redis-sentinel://host:26379/mymaster"
    )]
    Master,
    /// A name that no sentinel accepts for a master.
    #[error("has a name of a master that is none; it is made of A-Z a-z 0-9 . - _")]
    MasterName,
    /// A cluster with a path.
    #[error("has a path; a cluster has no databases, so write nothing behind its hosts")]
    ClusterPath,
}

/// The schemes, their meaning, and an example of each.
const SCHEMES: [(&str, &str); 3] = [
    ("", "redis://host:6379"),
    ("-sentinel", "redis-sentinel://host:26379,host2:26379/mymaster"),
    ("-cluster", "redis-cluster://host:6379,host2:6379"),
];
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let suffix = scheme.strip_prefix("redis").ok_or(UrlError::Scheme)?;
        let secure = suffix.strip_prefix('s');
        // `redis-sentinel` does not begin with `rediss`.
        let suffix = secure.unwrap_or(suffix);
        let known = SCHEMES.into_iter().find(|(known, _)| *known == suffix);
        let (_, example) = known.ok_or(UrlError::Scheme)?;
        if rest.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err(UrlError::Slash);
        }
        let (user, password, hosts) = credentials(authority)?;
        let port = if suffix == "-sentinel" { SENTINEL_PORT } else { PORT };
        let servers = hosts.split(',').map(|host| server(host, port, example));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let (kind, database) = match suffix {
            "" if servers.len() > 1 => return Err(UrlError::Hosts),
            "" => (Kind::Single, database(path)?),
            "-sentinel" => {
                let (name, number) = path.split_once('/').unwrap_or((path, ""));
                (Kind::Sentinel { master: master(name)? }, database(number)?)
            }
            _ if path.is_empty() => (Kind::Cluster, 0),
            _ => return Err(UrlError::ClusterPath),
        };
        Ok(Self { kind, tls: secure.is_some(), servers, user, password, database })
    }
}

/// User and password, and the text behind them.
fn credentials(authority: &str) -> Result<(String, Secret, &str), UrlError> {
    let Some((credentials, hosts)) = authority.rsplit_once('@') else {
        return Ok((String::new(), Secret::default(), authority));
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    if password.is_empty() && !user.is_empty() {
        return Err(UrlError::Password);
    }
    Ok((decoded(user)?, Secret::new(decoded(password)?), hosts))
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let bytes = decode_strictly(text).ok_or(UrlError::Escape)?;
    String::from_utf8(bytes.into_owned()).map_err(|_| UrlError::Escape)
}

fn server(text: &str, default: u16, example: &'static str) -> Result<Server, UrlError> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, _)) if host.parse::<Ipv6Addr>().is_err() => {
            return Err(UrlError::Host(example));
        }
        Some((host, "")) => (host, ""),
        Some((host, port)) => (host, port.strip_prefix(':').ok_or(UrlError::Port)?),
        None if text.parse::<Ipv6Addr>().is_ok() => return Err(UrlError::Brackets),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(known) && bracketed.is_none() {
        return Err(UrlError::Host(example));
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = match port {
        "" => default,
        port => port.parse().ok().filter(|port| *port > 0 && digits).ok_or(UrlError::Port)?,
    };
    Ok(Server { host: host.to_owned(), port })
}

fn database(text: &str) -> Result<u16, UrlError> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| UrlError::Database) }
}

fn master(name: &str) -> Result<String, UrlError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    match name {
        "" => Err(UrlError::Master),
        name if name.bytes().all(known) => Ok(name.to_owned()),
        _ => Err(UrlError::MasterName),
    }
}

impl Url {
    /// Kind of the servers.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The servers; at least one.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// True if connections are encrypted: to the servers, and to those that they name.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The password.
    pub fn password(&self) -> &Secret {
        &self.password
    }

    /// User, password and database at Redis.
    pub(super) fn login(&self) -> RedisConnectionInfo {
        let mut login = anonymous().set_db(self.database.into());
        if !self.user.is_empty() {
            login = login.set_username(&self.user);
        }
        if !self.password.is_empty() {
            login = login.set_password(self.password.reveal());
        }
        login
    }
}

/// A connection without a password.
pub(super) fn anonymous() -> RedisConnectionInfo {
    RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("pollgate", env!("CARGO_PKG_VERSION"))
}

/// With `***` in place of the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, _) = match self.kind {
            Kind::Single => SCHEMES[0],
            Kind::Sentinel { .. } => SCHEMES[1],
            Kind::Cluster => SCHEMES[2],
        };
        write!(f, "redis{}{suffix}://", if self.tls { "s" } else { "" })?;
        if !self.password.is_empty() {
            write!(f, "{}:***@", self.user)?;
        }
        for (index, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if index > 0 { "," } else { "" })?;
        }
        if let Kind::Sentinel { master } = &self.kind {
            write!(f, "/{master}")?;
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
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
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://:p%40ss@host", "redis://:***@host:6379"),
            ("redis://gate:secret@host/0", "redis://gate:***@host:6379"),
            ("rediss://:secret@host/3", "rediss://:***@host:6379/3"),
            ("redis-sentinel://a,b:7,[::1]/m.1", "redis-sentinel://a:26379,b:7,[::1]:26379/m.1"),
            ("rediss-sentinel://:secret@a/m/2", "rediss-sentinel://:***@a:26379/m/2"),
            ("redis-cluster://gate:secret@a:1,b:2", "redis-cluster://gate:***@a:1,b:2"),
            ("rediss-cluster://a", "rediss-cluster://a:6379"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.is_tls(), text.starts_with("rediss"), "{text}");
            assert!(!format!("{url:?}").contains("secret"));
            if url.password().is_empty() {
                assert_eq!(shown.parse::<Url>(), Ok(url), "what is shown means the same");
            }
        }
        let url: Url = "redis://:p%40ss@host".parse().unwrap();
        assert_eq!(url.password().reveal(), "p@ss");
    }

    #[test]
    fn what_is_no_url_is_told_without_showing_it() {
        for (text, error) in [
            ("http://host", UrlError::Scheme),
            ("localhost:6379", UrlError::Scheme),
            ("redis-sentinels://host", UrlError::Scheme),
            ("redissss://host", UrlError::Scheme),
            ("redis://", UrlError::Host(SCHEMES[0].1)),
            ("redis://a b", UrlError::Host(SCHEMES[0].1)),
            ("redis://[host]", UrlError::Host(SCHEMES[0].1)),
            ("redis-sentinel:///m", UrlError::Host(SCHEMES[1].1)),
            ("redis-cluster://a,,b", UrlError::Host(SCHEMES[2].1)),
            ("redis://::1", UrlError::Brackets),
            ("redis://host:0", UrlError::Port),
            ("redis://host:+1", UrlError::Port),
            ("redis://host:x", UrlError::Port),
            ("redis://[::1]7000", UrlError::Port),
            ("redis://a,b", UrlError::Hosts),
            ("redis://secret@host", UrlError::Password),
            ("redis://:%zz@host", UrlError::Escape),
            ("redis://:p/q@host", UrlError::Slash),
            ("redis://host?db=1", UrlError::Query),
            ("redis://:p#q@host", UrlError::Query),
            ("redis://host/news", UrlError::Database),
            ("redis-sentinel://host/m/news", UrlError::Database),
            ("redis-sentinel://host", UrlError::Master),
            ("redis-sentinel://host//1", UrlError::Master),
            ("redis-sentinel://host/my master", UrlError::MasterName),
            ("redis-cluster://host/0", UrlError::ClusterPath),
        ] {
            let found = text.parse::<Url>();
            assert_eq!(found, Err(error), "{text}");
            assert!(!found.unwrap_err().to_string().contains("secret"));
        }
    }
}
