//! The sites behind one gate: the host of a request chooses one, and with it the settings.
//!
//! Each site has settings of its own, made as a gate's are that has no other site. So the choice
//! is made once, before anything else is decided about a request, and all that comes after it
//! reads one snapshot and knows no other site. Without sites there is no choice, and no cost.
//!
//! A host is compared in lower case, without port and trailing dot: a host that is listed comes
//! before a wildcard, which stands for one label, and one that is not listed is the default site's.
//! Over TLS the certificate that the connection was shown has to name the host, as a client that
//! mixes up hosts must not be answered in another one's name (RFC 9110, section 7.4).

use super::counters::SiteAnswer;
use super::settings::Settings;
use super::tls::Presented;
use crate::hub::channel::{ChannelName, SiteName};
use crate::protocol::http::Reply;
use crate::protocol::http::validate::host_name;
use crate::server::limits::permit::{self, Limits};
use crate::server::limits::rate::AddressRate;
use crate::server::telemetry::metrics::Counts;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Selects hosts: one, or those with one more label before a suffix (`*.shop.example`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// Those with one label before this.
    Wildcard(String),
}

/// A text is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It has a scheme, a port, or characters that no host has.
    #[error("is no host name; write it without scheme and port, such as shop.example")]
    Name,
    /// A star is not a whole first label.
    #[error("has a * that is not its first label; write *.shop.example, for one label")]
    Star,
}

impl std::str::FromStr for HostPattern {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        let (suffix, pattern): (_, fn(String) -> Self) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, Self::Wildcard),
            None => (text, Self::Exact),
        };
        if suffix.contains('*') {
            return Err(HostError::Star);
        }
        let suffix = suffix.strip_suffix('.').unwrap_or(suffix);
        let is_name = host_name(suffix) == Some(suffix) && !suffix.starts_with('.');
        if !is_name || suffix.starts_with('[') && text.starts_with('*') {
            return Err(HostError::Name);
        }
        Ok(pattern(suffix.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl HostPattern {
    /// A host that it selects.
    pub fn example(&self) -> String {
        match self {
            Self::Exact(host) => host.clone(),
            Self::Wildcard(suffix) => format!("any.{suffix}"),
        }
    }
}

/// Values by host.
#[derive(Debug, Clone)]
pub struct ByHost<T> {
    exact: Texts<T>,
    /// By what stands behind the star.
    wildcard: Texts<T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self { exact: Texts(Vec::new()), wildcard: Texts(Vec::new()) }
    }
}

/// Values by text, the shorter ones first: most steps of a search compare two lengths.
#[derive(Debug, Clone)]
struct Texts<T>(Vec<(Box<str>, T)>);

impl<T> Texts<T> {
    fn place(&self, text: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| {
            known.len().cmp(&text.len()).then_with(|| (**known).cmp(text))
        })
    }

    fn insert(&mut self, text: &str, value: T) {
        match self.place(text) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (text.into(), value)),
        }
    }

    fn get(&self, text: &str) -> Option<&T> {
        self.place(text).ok().map(|at| &self.0[at].1)
    }
}

impl<T> ByHost<T> {
    /// Sets the value of the hosts that `pattern` selects.
    pub fn insert(&mut self, pattern: &HostPattern, value: T) {
        match pattern {
            HostPattern::Exact(host) => self.exact.insert(host, value),
            HostPattern::Wildcard(suffix) => self.wildcard.insert(suffix, value),
        };
    }

    /// True if no host has one.
    pub fn is_empty(&self) -> bool {
        self.exact.0.is_empty() && self.wildcard.0.is_empty()
    }

    /// The value of a host, in lower case and without a trailing dot.
    pub fn get(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            let (label, suffix) = host.split_once('.')?;
            self.wildcard.get(suffix).filter(|_| !label.is_empty())
        })
    }
}

/// `host[:port]` as hosts are compared; `None` if it is none.
pub fn normalized(host: &str) -> Option<Cow<'_, str>> {
    let name = host_name(host.trim())?;
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    })
}

/// The sites of a gate.
#[derive(Debug, Default)]
pub struct Sites {
    by_host: ByHost<Arc<Settings>>,
    default: Option<Arc<Settings>>,
    all: Vec<Arc<Settings>>,
}

impl Sites {
    /// Adds a site with its hosts; `default` = it gets all hosts that no site has.
    pub fn add(&mut self, hosts: &[HostPattern], default: bool, settings: Settings) {
        let settings = Arc::new(settings);
        for pattern in hosts {
            self.by_host.insert(pattern, settings.clone());
        }
        if default {
            self.default = Some(settings.clone());
        }
        self.all.push(settings);
    }

    /// The settings of all sites.
    pub fn all(&self) -> &[Arc<Settings>] {
        &self.all
    }

    /// The settings of one site.
    pub fn named(&self, name: &SiteName) -> Option<&Arc<Settings>> {
        self.all.iter().find(|settings| settings.site_name() == name)
    }
}

/// One site's part of its settings.
#[derive(Debug)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// The limits on held polls of the gate as a whole.
    pub gate_limits: permit::Settings,
    /// Rate limit of requests of one address to this site; it counts beside the gate's.
    pub requests: Arc<AddressRate>,
    /// Its counts, which outlive a reload.
    pub figures: Arc<SiteFigures>,
}

/// Counts of one site.
#[derive(Debug, Default)]
pub struct SiteFigures {
    /// Its held polls.
    pub limits: Limits,
    /// Its requests to the upstream, by the response.
    pub upstream: Counts<SiteAnswer>,
}

/// The host that a request is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestHost<'a> {
    /// Its `Host`, if it has one.
    pub(super) header: Option<&'a str>,
    /// The authority of its target (`:authority` in HTTP/2), if it has one.
    pub(super) authority: Option<&'a str>,
}

/// The response to a request that no site takes.
pub(super) fn misdirected() -> Reply {
    Reply::new(421, "text/plain; charset=UTF-8", "this host is not served here\n")
}

/// The response to a request that names two hosts.
pub(super) fn ambiguous() -> Reply {
    Reply::new(400, "text/plain; charset=UTF-8", "the request is for two hosts\n")
}

/// The settings that a request is served with.
pub(super) enum Chosen {
    /// The gate's, which has no sites.
    Own,
    /// Those of a site.
    Site(Arc<Settings>),
    /// None: no site has this host, or not on this connection.
    Misdirected,
    /// The request names two hosts.
    Ambiguous,
}

impl Settings {
    /// Chooses the settings of a request.
    pub(super) fn choose(&self, host: RequestHost<'_>, tls: Option<&Presented>) -> Chosen {
        let Some(sites) = &self.sites else { return Chosen::Own };
        // Nearly all requests write their host as the config does, and have it in one place.
        if let (Some(host), None) = (host.header, host.authority)
            && let Some(site) = sites.by_host.exact.get(host)
        {
            return Self::chosen(site, Some(host), tls);
        }
        // RFC 9112, section 3.2.2, and RFC 9113, section 8.3.1: the target's authority counts. A
        // different Host beside it would be another one's to the upstream.
        let header = host.header.map(normalized);
        let authority = host.authority.map(normalized);
        let host = match (authority, header) {
            (Some(authority), Some(header)) if authority != header => return Chosen::Ambiguous,
            (Some(host), _) | (None, Some(host)) => host,
            // HTTP/1.0 need not name any.
            (None, None) => None,
        };
        let found = host.as_deref().and_then(|host| sites.by_host.get(host));
        let Some(site) = found.or(sites.default.as_ref()) else { return Chosen::Misdirected };
        Self::chosen(site, host.as_deref(), tls)
    }

    fn chosen(site: &Arc<Self>, host: Option<&str>, tls: Option<&Presented>) -> Chosen {
        match tls {
            Some(shown) if !shown.names(host) => Chosen::Misdirected,
            _ => Chosen::Site(site.clone()),
        }
    }

    /// The settings of a site, where these are the gate's; `None` = it is gone.
    pub fn of_site(self: &Arc<Self>, name: &SiteName) -> Option<Arc<Self>> {
        match &self.sites {
            None => (self.site_name() == name).then(|| self.clone()),
            Some(sites) => sites.named(name).cloned(),
        }
    }

    /// The site's name; empty without sites.
    pub fn site_name(&self) -> &SiteName {
        const NONE: &SiteName = &SiteName::NONE;
        self.site.as_ref().map_or(NONE, |site| &site.name)
    }

    /// `name` within the site.
    pub(super) fn scoped(&self, name: ChannelName) -> ChannelName {
        match &self.site {
            None => name,
            Some(site) => name.in_site(&site.name),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label_and_an_exact_host_comes_first() {
        let mut hosts = ByHost::default();
        for (at, text) in ["shop.example", "*.shop.example", "a.shop.example"].iter().enumerate() {
            hosts.insert(&text.parse().unwrap(), at);
        }
        for (host, at) in [
            ("shop.example", Some(0)),
            ("b.shop.example", Some(1)),
            ("a.shop.example", Some(2)),
            ("b.a.shop.example", None),
            (".shop.example", None),
            ("example", None),
            ("xshop.example", None),
        ] {
            assert_eq!(hosts.get(host).copied(), at, "{host}");
        }
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_trailing_dot() {
        for host in ["Shop.EXAMPLE", "shop.example:8080", "shop.example.", "shop.example.:80"] {
            assert_eq!(normalized(host).as_deref(), Some("shop.example"), "{host}");
        }
        assert_eq!(normalized("[::1]:80").as_deref(), Some("[::1]"));
        for none in ["", "a b", "shop.example:x", "a,b", "http://a"] {
            assert_eq!(normalized(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_host_is_no_pattern() {
        for bad in ["", "*", "*.", "a.*", "*.*.a", "*a.b", "a:80", "http://a", ".a", "*.[::1]"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
        let shown = |text: &str| text.parse::<HostPattern>().unwrap().to_string();
        assert_eq!(shown("*.Shop.Example."), "*.shop.example");
        assert_eq!((shown("127.0.0.1"), shown("[::1]")), ("127.0.0.1".into(), "[::1]".into()));
    }
}
