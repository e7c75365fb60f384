//! Routing: the config's rules, tried in their order, decide which requests are polls.

use crate::protocol::auth::Auth;
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::native::Native;
use crate::protocol::dialect::novcomet::NovComet;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::timestamp::Timestamp;
use crate::protocol::http::path::{PathPattern, normalize};
use crate::protocol::http::query::Query;
use std::sync::Arc;
use std::time::Duration;

/// A method a poll can have; HEAD goes with GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET, and with it HEAD.
    Get,
    /// POST, with an urlencoded or multipart form.
    Post,
}

/// One `[[poll]]` rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The path: exact, or a prefix.
    pub path: PathPattern,
    /// Parameters that must be there.
    pub when: Vec<String>,
    /// Parameters that must be absent or empty.
    pub unless: Vec<String>,
    /// The methods of its polls.
    pub methods: Vec<Method>,
    /// The wire format.
    pub dialect: Dialect,
    /// Hold time of a poll without messages; `None` = `hold.timeout`, zero = for ever.
    pub timeout: Option<Duration>,
    /// Authorization of its polls; `None` = all clients may poll.
    pub auth: Option<Arc<Auth>>,
    /// The transports that its messages travel on.
    pub transports: Vec<Transport>,
    /// The request header with the nonce for an iframe's scripts.
    pub csp_nonce: Option<String>,
    /// Origins whose pages may read the responses (CORS); `*` = any.
    pub origins: Vec<String>,
}

impl Rule {
    /// A rule for `path` with nothing but the dialect's defaults.
    pub fn new(path: PathPattern, dialect: Dialect) -> Self {
        let methods = match dialect {
            Dialect::Native(_) => vec![Method::Get],
            Dialect::NovComet(_) | Dialect::Timestamp(_) | Dialect::Replay(_) => {
                vec![Method::Get, Method::Post]
            }
        };
        Self {
            path,
            when: Vec::new(),
            unless: Vec::new(),
            methods,
            transports: Self::transports(&dialect),
            dialect,
            timeout: None,
            auth: None,
            csp_nonce: None,
            origins: Vec::new(),
        }
    }

    /// The transports of a dialect whose rule names none.
    pub fn transports(dialect: &Dialect) -> Vec<Transport> {
        match dialect {
            Dialect::Native(_) => vec![Transport::Poll, Transport::Sse, Transport::WebSocket],
            Dialect::NovComet(_) | Dialect::Timestamp(_) | Dialect::Replay(_) => {
                vec![Transport::Poll]
            }
        }
    }

    /// The methods for an `Allow` header.
    pub fn allow(&self) -> &'static str {
        match (self.methods.contains(&Method::Get), self.methods.contains(&Method::Post)) {
            (true, true) => "GET, HEAD, POST, OPTIONS",
            (false, true) => "POST, OPTIONS",
            (_, false) => "GET, HEAD, OPTIONS",
        }
    }

    fn takes(&self, method: &str) -> bool {
        match method {
            "GET" | "HEAD" => self.methods.contains(&Method::Get),
            "POST" => self.methods.contains(&Method::Post),
            "OPTIONS" => true,
            _ => false,
        }
    }

    fn wants(&self, query: &Query, form: Option<&Query>) -> bool {
        let has = |name: &String| query.has(name) || form.is_some_and(|form| form.has(name));
        let filled =
            |name: &String| query.has_value(name) || form.is_some_and(|form| form.has_value(name));
        self.when.iter().all(has) && !self.unless.iter().any(filled)
    }

    /// The id in `publish=ID`, if the gate publishes for browsers.
    fn browser_publish<'a>(&self, query: &'a Query) -> Option<std::borrow::Cow<'a, str>> {
        match &self.dialect {
            Dialect::NovComet(NovComet { browser_publish: true, .. }) => {
                query.text("publish").filter(|id| !id.is_empty())
            }
            _ => None,
        }
    }
}

/// All rules, in their order.
#[derive(Debug, Clone)]
pub struct Routes {
    rules: Vec<Arc<Rule>>,
}

/// Classification of a request by one rule.
#[derive(Debug)]
pub enum Match<'a> {
    /// A poll, if the rule's templates can be filled.
    Poll {
        /// The rule.
        rule: &'a Arc<Rule>,
        /// The part that the `*` of its path matched, still escaped.
        rest: Option<&'a str>,
    },
    /// A browser publishes an empty message on this channel.
    Publish {
        /// The rule.
        rule: &'a Arc<Rule>,
        /// The channel's name, unchecked.
        channel: std::borrow::Cow<'a, str>,
    },
    /// The path belongs to a native rule, which does not take this method.
    WrongMethod {
        /// The rule.
        rule: &'a Arc<Rule>,
    },
}

impl Routes {
    /// The rules in their order; with none, the default ones.
    pub fn new(rules: Vec<Rule>) -> Self {
        let rules = if rules.is_empty() { default_rules() } else { rules };
        Self { rules: rules.into_iter().map(Arc::new).collect() }
    }

    /// The rules.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// True if a request for `path` (as it stands in the target) may be a poll.
    pub fn may_be_poll(&self, path: &str) -> bool {
        let normal = normalize(path);
        self.rules.iter().any(|rule| rule.path.matches(&normal))
    }

    /// Whether an event stream may be had at `path` (as it stands in the target).
    pub fn may_stream(&self, path: &str) -> bool {
        let normal = normalize(path);
        let streams = |rule: &Rule| rule.transports.contains(&Transport::Sse);
        self.rules.iter().any(|rule| streams(rule) && rule.path.matches(&normal))
    }

    /// True if a POST to `path` (as it stands in the target) may be a poll, so that its form has to
    /// be read to find out.
    pub fn may_take_form(&self, path: &str) -> bool {
        let normal = normalize(path);
        self.rules.iter().any(|rule| rule.takes("POST") && rule.path.matches(&normal))
    }

    /// The first rule that matches a request. A request that no rule matches goes to the upstream.
    pub fn matches<'a>(
        &'a self,
        method: &'a str,
        path: &'a str,
        query: &'a Query,
        form: Option<&'a Query>,
    ) -> impl Iterator<Item = Match<'a>> {
        let normal = normalize(path);
        self.rules.iter().filter(move |rule| rule.path.matches(&normal)).filter_map(move |rule| {
            let native = matches!(rule.dialect, Dialect::Native(_));
            if !rule.takes(method) {
                return native.then_some(Match::WrongMethod { rule });
            }
            if let Some(channel) = rule.browser_publish(query) {
                return Some(Match::Publish { rule, channel });
            }
            let a_form_or_none_needed = method != "POST" || form.is_some();
            (a_form_or_none_needed && rule.wants(query, form))
                .then(|| Match::Poll { rule, rest: rule.path.raw_rest(path) })
        })
    }
}

/// What is polled where the config names nothing.
fn default_rules() -> Vec<Rule> {
    // Both patterns and the template are well-formed as they stand here.
    let (Some(below), Some(exact)) = (PathPattern::new("/comet/*"), PathPattern::new("/comet"))
    else {
        return Vec::new();
    };
    let Ok(channel) = "{query.channel}".parse() else { return Vec::new() };
    let native = Rule::new(below, Dialect::Native(Native::default()));
    let mut novcomet = Rule::new(exact.clone(), Dialect::NovComet(NovComet::default()));
    novcomet.when = vec!["subscribed".to_owned()];
    let mut timestamp = Rule::new(exact, Dialect::Timestamp(Timestamp::new(channel)));
    timestamp.when = vec!["channel".to_owned(), "timestamp".to_owned()];
    vec![native, novcomet, timestamp]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind(routes: &Routes, method: &str, target: &str, form: Option<&str>) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (query, form) = (Query::parse(query), form.map(Query::parse));
        match routes.matches(method, path, &query, form.as_ref()).next() {
            None => "site".to_owned(),
            Some(Match::Poll { rule, rest }) => {
                format!("{} {}", rule.dialect.name(), rest.unwrap_or("-"))
            }
            Some(Match::Publish { channel, .. }) => format!("publish {channel}"),
            Some(Match::WrongMethod { rule }) => rule.allow().to_owned(),
        }
    }

    #[test]
    fn without_rules_the_three_dialects_live_at_comet() {
        let routes = Routes::new(Vec::new());
        assert_eq!(kind(&routes, "GET", "/comet/a%2Cb,c", None), "native a%2Cb,c");
        assert_eq!(kind(&routes, "GET", "/%63omet/a", None), "native a");
        assert_eq!(kind(&routes, "GET", "/comet?subscribed[x]=1", None), "novcomet -");
        assert_eq!(kind(&routes, "GET", "/comet?channel=a&timestamp=", None), "timestamp -");
        assert_eq!(kind(&routes, "GET", "/comet?channel=a", None), "site");
        assert_eq!(kind(&routes, "GET", "/comets/a", None), "site");
        assert_eq!(kind(&routes, "POST", "/comet/a", None), "GET, HEAD, OPTIONS");
        assert_eq!(kind(&routes, "DELETE", "/comet?subscribed[x]=1", None), "site");
    }

    #[test]
    fn dots_and_double_slashes_are_not_folded() {
        let routes = Routes::new(Vec::new());
        assert_eq!(kind(&routes, "GET", "/x/../comet/a", None), "site");
        assert_eq!(kind(&routes, "GET", "//comet/a", None), "site");
        assert_eq!(kind(&routes, "GET", "/comet//a", None), "native /a");
        assert_eq!(kind(&routes, "GET", "/%2e%2E/comet/a", None), "site");
    }

    #[test]
    fn an_escaped_slash_is_no_slash() {
        let routes = Routes::new(Vec::new());
        assert_eq!(kind(&routes, "GET", "/comet%2Fa", None), "site");
        assert_eq!(kind(&routes, "GET", "/comet%3Fsubscribed[x]=1", None), "site");
    }

    #[test]
    fn when_and_unless_look_at_the_query_and_the_form() {
        let path = PathPattern::new("/backend.php").unwrap();
        let timestamp = Timestamp::new("data.txt".parse().unwrap());
        let mut rule = Rule::new(path, Dialect::Timestamp(timestamp));
        rule.unless = vec!["msg".to_owned()];
        let routes = Routes::new(vec![rule]);
        assert_eq!(kind(&routes, "GET", "/backend.php?timestamp=0", None), "timestamp -");
        assert_eq!(kind(&routes, "GET", "/backend.php?msg=", None), "timestamp -");
        assert_eq!(kind(&routes, "GET", "/backend.php?msg=hi", None), "site");
        assert_eq!(kind(&routes, "POST", "/backend.php", Some("msg=hi")), "site");
        assert_eq!(kind(&routes, "POST", "/backend.php", Some("timestamp=1")), "timestamp -");
        assert_eq!(kind(&routes, "POST", "/backend.php", None), "site");
    }

    #[test]
    fn a_browser_publishes_only_where_the_rule_says_so() {
        for (browser_publish, expected) in [(true, "publish x"), (false, "site")] {
            let dialect = NovComet { browser_publish, ..NovComet::default() };
            let path = PathPattern::new("/comet.php").unwrap();
            let mut rule = Rule::new(path, Dialect::NovComet(dialect));
            rule.when = vec!["subscribed".to_owned()];
            rule.unless = vec!["publish".to_owned()];
            let routes = Routes::new(vec![rule]);
            assert_eq!(kind(&routes, "GET", "/comet.php?publish=x", None), expected);
        }
    }
}
