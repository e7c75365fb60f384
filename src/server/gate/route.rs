//! Routing: the config's rules, tried in their order, decide which requests are polls.

use crate::protocol::auth::Auth;
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::native::Native;
use crate::protocol::dialect::novcomet::NovComet;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::timestamp::Timestamp;
use crate::protocol::http::condition::{Condition, Test};
use crate::protocol::http::path::{Captures, PathPattern, normalize};
use crate::protocol::http::query::Query;
use crate::protocol::template::Field;
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
    /// The path.
    pub path: PathPattern,
    /// Conditions that must all hold.
    pub when: Vec<Condition>,
    /// Conditions none of which may hold.
    pub unless: Vec<Condition>,
    /// The methods of its polls.
    pub methods: Vec<Method>,
    /// The wire format.
    pub dialect: Dialect,
    /// Hold time of a poll without messages; `None` = `hold.timeout`, zero = for ever.
    pub timeout: Option<Duration>,
    /// Authorization of its polls; `None` = all clients may poll.
    pub auth: Option<Arc<Auth>>,
    /// The channels that its polls may name; none = any. Only of native rules.
    pub channels: Vec<crate::hub::channel::Pattern>,
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
            Dialect::Native(_) | Dialect::Nchan(_) => vec![Method::Get],
            Dialect::NovComet(_) | Dialect::Timestamp(_) | Dialect::Replay(_) | Dialect::None => {
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
            channels: Vec::new(),
            csp_nonce: None,
            origins: Vec::new(),
        }
    }

    /// True if its polls may name this channel.
    pub fn has_channel(&self, name: &str) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|pattern| pattern.matches(name))
    }

    /// The transports of a dialect whose rule names none.
    pub fn transports(dialect: &Dialect) -> Vec<Transport> {
        match dialect {
            Dialect::Native(_) => vec![Transport::Poll, Transport::Sse, Transport::WebSocket],
            Dialect::Nchan(_) => vec![
                Transport::Poll,
                Transport::Sse,
                Transport::WebSocket,
                Transport::Chunked,
                Transport::Multipart,
            ],
            Dialect::NovComet(_) | Dialect::Timestamp(_) | Dialect::Replay(_) | Dialect::None => {
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

    /// True if no request for its path is the upstream's, whatever its method.
    fn owns_path(&self) -> bool {
        matches!(self.dialect, Dialect::Native(_) | Dialect::Nchan(_))
    }

    fn takes(&self, method: &str) -> bool {
        match method {
            _ if self.dialect.is_none() => true,
            "GET" | "HEAD" => self.methods.contains(&Method::Get),
            "POST" => self.methods.contains(&Method::Post),
            "OPTIONS" => true,
            _ => false,
        }
    }

    fn wants(&self, query: &Query, form: Option<&Query>) -> bool {
        let holds = |condition: &Condition| condition.holds(query, form);
        self.when.iter().all(holds) && !self.unless.iter().any(holds)
    }

    /// True if no request that its path and methods select is left to a later rule.
    pub fn leaves_nothing(&self) -> bool {
        let fillable = |field: &Field| matches!(field, Field::Path(_));
        let always = match &self.dialect {
            Dialect::Native(native) => {
                native.channel.as_ref().is_none_or(|t| t.fields().all(fillable))
            }
            Dialect::Timestamp(timestamp) => timestamp.channel.fields().all(fillable),
            Dialect::Replay(replay) => replay.channel.fields().all(fillable),
            Dialect::Nchan(nchan) => {
                nchan.channel.as_ref().is_none_or(|t| t.fields().all(fillable))
            }
            Dialect::NovComet(_) | Dialect::None => true,
        };
        self.when.is_empty() && self.unless.is_empty() && always
    }

    /// True if `later`, which stands behind this one, never gets a request.
    pub fn hides(&self, later: &Self) -> bool {
        // Such a rule answers the methods that it does not take.
        let any_method = self.dialect.is_none() || self.owns_path();
        let methods = || later.methods.iter().all(|method| self.methods.contains(method));
        self.leaves_nothing()
            && self.path.covers(&later.path)
            && (any_method || !later.dialect.is_none() && methods())
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
        /// The parts that the `*`s of its path matched, still escaped.
        stars: Captures<'a>,
    },
    /// A browser publishes an empty message on this channel.
    Publish {
        /// The rule.
        rule: &'a Arc<Rule>,
        /// The channel's name, unchecked.
        channel: std::borrow::Cow<'a, str>,
    },
    /// The path belongs to a native or an nchan rule, which does not take this method.
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
        self.may(path, |_| true)
    }

    /// The rules for `path` (as it stands in the target), whatever their other conditions.
    pub fn rules_for<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a Arc<Rule>> {
        let normal = normalize(path).into_owned();
        self.rules.iter().filter(move |rule| rule.path.matches(&normal))
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
        self.may(path, |rule| rule.takes("POST"))
    }

    fn may(&self, path: &str, wanted: impl Fn(&Rule) -> bool) -> bool {
        let normal = normalize(path);
        let mut rules = self.rules.iter().filter(|rule| rule.path.matches(&normal));
        let first = rules.find(|rule| wanted(rule));
        // Behind a rule that says of all of them that they are none, the others do not count.
        first.is_some_and(|rule| !rule.dialect.is_none() || !rule.leaves_nothing())
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
        self.rules.iter().filter_map(move |rule| {
            let stars = rule.path.captures(path, &normal)?;
            if !rule.takes(method) {
                return rule.owns_path().then_some(Match::WrongMethod { rule });
            }
            if let Some(channel) = rule.browser_publish(query) {
                return Some(Match::Publish { rule, channel });
            }
            let readable = method != "POST" || form.is_some() || rule.dialect.is_none();
            (readable && rule.wants(query, form)).then_some(Match::Poll { rule, stars })
        })
    }
}

/// The rules of a config that names none.
fn default_rules() -> Vec<Rule> {
    // Both patterns and the template are well-formed as they stand here.
    let (Ok(below), Ok(exact)) = ("/comet/*".parse(), "/comet".parse::<PathPattern>()) else {
        return Vec::new();
    };
    let Ok(channel) = "{query.channel}".parse() else { return Vec::new() };
    let native = Rule::new(below, Dialect::Native(Native::default()));
    let mut novcomet = Rule::new(exact.clone(), Dialect::NovComet(NovComet::default()));
    novcomet.when = vec![Condition::new("subscribed", Test::Present)];
    let mut timestamp = Rule::new(exact, Dialect::Timestamp(Timestamp::new(channel)));
    timestamp.when =
        ["channel", "timestamp"].map(|name| Condition::new(name, Test::Present)).into();
    vec![native, novcomet, timestamp]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind(routes: &Routes, method: &str, target: &str, form: Option<&str>) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let form = form.map(Query::parse);
        match routes.matches(method, path, &query, form.as_ref()).next() {
            None => "site".to_owned(),
            Some(Match::Poll { rule, stars }) => {
                format!("{} {}", rule.dialect.name(), stars.last().copied().unwrap_or("-"))
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
        let path = "/backend.php".parse().unwrap();
        let timestamp = Timestamp::new("data.txt".parse().unwrap());
        let mut rule = Rule::new(path, Dialect::Timestamp(timestamp));
        rule.unless = vec![Condition::new("msg", Test::Filled)];
        let routes = Routes::new(vec![rule]);
        assert_eq!(kind(&routes, "GET", "/backend.php?timestamp=0", None), "timestamp -");
        assert_eq!(kind(&routes, "GET", "/backend.php?msg=", None), "timestamp -");
        assert_eq!(kind(&routes, "GET", "/backend.php?msg=hi", None), "site");
        assert_eq!(kind(&routes, "POST", "/backend.php", Some("msg=hi")), "site");
        assert_eq!(kind(&routes, "POST", "/backend.php", Some("timestamp=1")), "timestamp -");
        assert_eq!(kind(&routes, "POST", "/backend.php", None), "site");
    }

    #[test]
    fn what_is_no_poll_is_none_for_later_rules_too() {
        let rule = |path: &str, dialect| Rule::new(path.parse().unwrap(), dialect);
        let timestamp = || Dialect::Timestamp(Timestamp::new("{path.1}".parse().unwrap()));
        let mut send = rule("/rooms/*/poll", Dialect::None);
        send.when = vec![Condition::new("act=send", Test::Present)];
        let stats = rule("/rooms/stats/*", Dialect::None);
        let routes = Routes::new(vec![
            send,
            stats,
            rule("/rooms/*/poll", timestamp()),
            rule("/rooms/*", Dialect::Native(Native::default())),
        ]);
        assert_eq!(kind(&routes, "GET", "/rooms/%37/poll?act=get", None), "timestamp %37");
        assert_eq!(kind(&routes, "GET", "/rooms/7/poll?act=send", None), "none 7");
        assert_eq!(kind(&routes, "POST", "/rooms/7/poll", Some("act=send")), "none 7");
        assert_eq!(kind(&routes, "POST", "/rooms/7/poll", Some("act=get")), "timestamp 7");
        for method in ["GET", "POST", "DELETE", "OPTIONS"] {
            assert_eq!(kind(&routes, method, "/rooms/stats/poll", None), "none poll", "{method}");
        }
        assert!(routes.may_take_form("/rooms/7/poll") && routes.may_be_poll("/rooms/7"));
        assert!(!routes.may_take_form("/rooms/stats/a") && !routes.may_be_poll("/rooms/stats/a"));
    }

    #[test]
    fn a_browser_publishes_only_where_the_rule_says_so() {
        for (browser_publish, expected) in [(true, "publish x"), (false, "site")] {
            let dialect = NovComet { browser_publish, ..NovComet::default() };
            let path = "/comet.php".parse().unwrap();
            let mut rule = Rule::new(path, Dialect::NovComet(dialect));
            rule.when = vec![Condition::new("subscribed", Test::Present)];
            rule.unless = vec![Condition::new("publish", Test::Filled)];
            let routes = Routes::new(vec![rule]);
            assert_eq!(kind(&routes, "GET", "/comet.php?publish=x", None), expected);
        }
    }
}
