//! `[[poll]]`: one rule with its dialect.

use super::{auth, extra, nchan};
use crate::config::read::section::Section;
use crate::config::read::{suggest, values};
use crate::protocol::dialect::native::Native;
use crate::protocol::dialect::novcomet::NovComet;
use crate::protocol::dialect::replay::{self, QuietReply, Replay};
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::timestamp::{Deliver, First, OnTimeout, Timestamp};
use crate::protocol::dialect::{Dialect, PHP_CONTENT_TYPE};
use crate::protocol::http::condition::Test;
use crate::protocol::http::path::PathPattern;
use crate::protocol::template::{Field, Template};
use crate::server::gate::route::{Method, Rule};
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Native,
    NovComet,
    Timestamp,
    Nchan,
    Replay,
    None,
}

const KINDS: [(&str, Kind); 6] = [
    ("native", Kind::Native),
    ("novcomet", Kind::NovComet),
    ("timestamp", Kind::Timestamp),
    ("nchan", Kind::Nchan),
    ("replay", Kind::Replay),
    ("none", Kind::None),
];

/// The keys that belong to some dialects only.
const OWN_KEYS: [(&str, &[Kind]); 24] = [
    ("channels", &[Kind::Native]),
    ("channel", &[Kind::Native, Kind::Timestamp, Kind::Nchan, Kind::Replay]),
    ("group", &[Kind::Nchan]),
    ("interval", &[Kind::Nchan]),
    ("batch", &[Kind::Nchan]),
    ("raw", &[Kind::Nchan]),
    ("existing_only", &[Kind::Nchan]),
    ("slack", &[Kind::NovComet, Kind::Replay]),
    ("add_query", &[Kind::Replay]),
    ("share", &[Kind::Replay]),
    ("concurrency", &[Kind::Replay]),
    ("browser_publish", &[Kind::NovComet]),
    ("fields", &[Kind::Timestamp]),
    ("cursor", &[Kind::Replay]),
    ("max_wait", &[Kind::Replay]),
    ("on_timeout", &[Kind::Timestamp, Kind::Replay]),
    ("first", &[Kind::Timestamp, Kind::Nchan, Kind::Replay]),
    ("deliver", &[Kind::Timestamp]),
    ("content_type", &[Kind::Timestamp, Kind::Replay]),
    ("extra", &[Kind::Timestamp]),
    ("embed", &[Kind::Timestamp]),
    ("callback", &[Kind::Native, Kind::Timestamp]),
    ("transports", &[Kind::Native, Kind::NovComet, Kind::Timestamp, Kind::Nchan]),
    ("csp_nonce", &[Kind::Native, Kind::Timestamp]),
];

/// Reads a rule; its polls are held for `hold` unless it has its own timeout. `None` is a mistake,
/// and a returned rule may contain one too: only the report has it.
pub(in crate::config) fn rule(section: &mut Section, hold: Duration) -> Option<Rule> {
    let path = section.required("path", "write the path of its polls", values::path);
    let when = section.list("when", Vec::new(), |text| values::condition(text, Test::Present));
    let unless = section.list("unless", Vec::new(), |text| values::condition(text, Test::Filled));
    let hint = "write native, novcomet, timestamp, nchan, replay or none";
    let kind = section.required("dialect", hint, Kind::named);
    let dialect = dialect(section, kind, path.as_ref())?;
    // A pattern that matches everything lets the rest be read; the mistake is noted.
    let mut rule = Rule::new(path.or_else(|| "*".parse().ok())?, dialect);
    (rule.when, rule.unless) = (when, unless);
    if rule.dialect.is_none() {
        for key in ["methods", "timeout", "transports", "origins", "auth"] {
            section.refuse(key, "a none rule has no such key; remove it");
        }
        return Some(rule);
    }
    rule.methods = methods(section, &rule);
    rule.timeout = match kind {
        // Its clients take the end of a hold for an error.
        Some(Kind::Nchan) => Some(section.duration("timeout", Duration::ZERO)),
        _ => timeout(section, hold),
    };
    transports(section, kind, &mut rule);
    rule.origins = section.list("origins", Vec::new(), values::origin);
    rule.auth = auth::read(section);
    if matches!(kind, Some(Kind::Native)) {
        rule.channels = section.list("channels", Vec::new(), values::pattern);
    }
    check_channel(section, &rule);
    Some(rule)
}

impl Kind {
    fn named(text: &str) -> Result<Self, String> {
        suggest::one_of(&KINDS, text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// `None` only if a text of this very file is no template.
fn dialect(
    section: &mut Section,
    kind: Option<Kind>,
    path: Option<&PathPattern>,
) -> Option<Dialect> {
    let Some(kind) = kind else {
        // The dialect is unknown, and so are its keys, so none of them is reported.
        for (key, _) in OWN_KEYS {
            section.take(key);
        }
        return Some(Dialect::Native(Native::default()));
    };
    for (key, kinds) in OWN_KEYS {
        if !kinds.contains(&kind) {
            section.refuse(key, &format!("a {kind} rule has no such key; remove it"));
        }
    }
    match kind {
        Kind::Native => Some(Dialect::Native(native(section, path))),
        Kind::NovComet => Some(Dialect::NovComet(novcomet(section))),
        Kind::Timestamp => timestamp(section).map(Dialect::Timestamp),
        Kind::Nchan => Some(Dialect::Nchan(nchan::dialect(section, path))),
        Kind::Replay => replay(section).map(Dialect::Replay),
        Kind::None => Some(Dialect::None),
    }
}

fn native(section: &mut Section, path: Option<&PathPattern>) -> Native {
    let channel = section.optional("channel", values::channel);
    if channel.is_none() && path.is_some_and(|path| !path.has_rest()) && section.is_sound("channel")
    {
        let message = "missing; end the path in * (the channels stand there), or name the channel";
        section.mistake("channel", message);
    }
    Native { channel, callback: section.optional("callback", values::parameter) }
}

fn novcomet(section: &mut Section) -> NovComet {
    let default = NovComet::default();
    NovComet {
        slack: section.duration("slack", default.slack),
        browser_publish: section.flag("browser_publish", default.browser_publish),
    }
}

const CHANNEL_HINT: &str = "write the channel's name, or a template such as \"room-{query.room}\"";

fn replay(section: &mut Section) -> Option<Replay> {
    let channel = section.required("channel", CHANNEL_HINT, values::channel);
    // Any template lets the rest be read; the mistake is noted.
    let default = Replay::new(channel.or_else(|| "-".parse().ok())?);
    let cursor = section.optional("cursor", values::parameter);
    if cursor.is_none() && section.has("first") && section.is_sound("cursor") {
        section.mistake("first", "the rule names no cursor, so no poll is known to be a first one");
    }
    let firsts = [("forward", replay::First::Forward), ("wait", replay::First::Wait)];
    let first = match cursor {
        Some(_) => section.choice("first", replay::First::Forward, &firsts),
        None => {
            section.take("first");
            replay::First::Wait
        }
    };
    let max_wait = section.has("max_wait");
    let max_wait = max_wait.then(|| section.some_duration("max_wait", Duration::from_secs(3)));
    Some(Replay {
        add_query: section.optional("add_query", values::query),
        share: section.flag("share", default.share),
        concurrency: section.number("concurrency", default.concurrency, 1..=10_000),
        slack: section.duration("slack", default.slack),
        cursor,
        first,
        on_timeout: quiet_reply(section),
        max_wait,
        ..default
    })
}

/// `on_timeout` of a replay rule, with its `content_type`.
fn quiet_reply(section: &mut Section) -> Option<QuietReply> {
    let is_set = section.has("on_timeout");
    if !is_set {
        let message = "belongs to on_timeout, which is missing; remove it";
        section.refuse("content_type", message);
    }
    let body = section.optional("on_timeout", |text| Ok(text.to_owned()));
    if !is_set {
        return None;
    }
    let usual = PHP_CONTENT_TYPE.to_owned();
    let content_type = section.parsed("content_type", usual, values::content_type);
    Some(QuietReply { content_type, body: body?.into() })
}

fn timestamp(section: &mut Section) -> Option<Timestamp> {
    let channel = section.required("channel", CHANNEL_HINT, values::channel);
    // Any template lets the rest be read; the mistake is noted.
    let mut timestamp = Timestamp::new(channel.or_else(|| "-".parse().ok())?);
    let default = (timestamp.message_field, timestamp.cursor_field);
    let (message, cursor) = section.inline("fields", |fields| {
        let message = fields.parsed("message", default.0, values::filled);
        (message, fields.parsed("cursor", default.1, values::parameter))
    });
    let firsts = [("latest", First::Latest), ("oldest", First::Oldest), ("wait", First::Wait)];
    let delivers = [("next", Deliver::Next), ("latest", Deliver::Latest)];
    let bare = message == ".";
    // A client without a position would get the newest message again and again.
    let first = if bare { First::Wait } else { timestamp.first };
    timestamp.first = section.choice("first", first, &firsts);
    timestamp.deliver = section.choice("deliver", timestamp.deliver, &delivers);
    let ends = [("empty", OnTimeout::Empty), ("latest", OnTimeout::Latest)];
    timestamp.on_timeout = section.choice("on_timeout", timestamp.on_timeout, &ends);
    timestamp.content_type = section.optional("content_type", values::content_type);
    timestamp.extra = extra::read(section);
    timestamp.embed = section.flag("embed", timestamp.embed);
    timestamp.callback = section.optional("callback", values::parameter);
    if bare {
        for (key, set) in [
            ("extra", !timestamp.extra.is_empty()),
            ("embed", timestamp.embed),
            ("callback", timestamp.callback.is_some()),
        ] {
            if set {
                section.mistake(
                    key,
                    "the answer is the bare message (fields.message), with no place for this",
                );
            }
        }
    }
    if message == cursor {
        section.mistake("fields", format!("message and cursor are both \"{message}\""));
    }
    for name in [&message, &cursor] {
        if timestamp.extra.contains_key(name) {
            section.mistake("extra", format!("the answer has a field \"{name}\" already"));
        }
    }
    (timestamp.message_field, timestamp.cursor_field) = (message, cursor);
    Some(timestamp)
}

fn methods(section: &mut Section, rule: &Rule) -> Vec<Method> {
    let name = |method: &Method| match method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let words = [("GET", "GET"), ("POST", "POST")];
    let default = rule.methods.iter().map(name).collect();
    let names = section.list("methods", default, |text| suggest::one_of(&words, text));
    if names.is_empty() && section.is_sound("methods") {
        section.mistake("methods", "must name GET, POST or both");
    }
    [Method::Get, Method::Post].into_iter().filter(|method| names.contains(&name(method))).collect()
}

/// The transports, and what only some of them want.
fn transports(section: &mut Section, kind: Option<Kind>, rule: &mut Rule) {
    if !matches!(kind, Some(Kind::Native | Kind::NovComet | Kind::Timestamp | Kind::Nchan)) {
        return;
    }
    let words = Transport::NAMES.map(|(name, _)| (name, name));
    let default = rule.transports.iter().map(|transport| transport.name()).collect();
    let names = section.list("transports", default, |text| suggest::one_of(&words, text));
    if names.is_empty() && section.is_sound("transports") {
        section.mistake(
            "transports",
            "must name at least one of: poll, sse, ws, chunked, iframe, multipart",
        );
    }
    let all = Transport::NAMES.into_iter().filter(|(name, _)| names.contains(name));
    rule.transports = all.map(|(_, transport)| transport).collect();
    let callback = match &rule.dialect {
        Dialect::Native(native) => native.callback.is_some(),
        Dialect::Timestamp(timestamp) => timestamp.callback.is_some(),
        Dialect::NovComet(_) | Dialect::Nchan(_) | Dialect::Replay(_) | Dialect::None => false,
    };
    if rule.transports.contains(&Transport::Iframe) && !callback {
        let message = match kind {
            Some(Kind::NovComet) => "a novcomet rule has no callback, which \"iframe\" needs",
            Some(Kind::Nchan) => "an nchan rule has no callback, which \"iframe\" needs",
            _ => "\"iframe\" needs the rule's callback: the parameter that names its function",
        };
        section.mistake("transports", message);
    }
    if rule.transports.contains(&Transport::Multipart) && !matches!(kind, Some(Kind::Nchan)) {
        section.mistake("transports", "only an nchan rule has \"multipart\"");
    }
    if !matches!(kind, Some(Kind::NovComet | Kind::Nchan)) {
        rule.csp_nonce = section.optional("csp_nonce", values::header);
    }
}

/// `None` if the rule has no timeout, so that it keeps following `hold.timeout`.
fn timeout(section: &mut Section, hold: Duration) -> Option<Duration> {
    let set = section.has("timeout");
    let timeout = section.duration("timeout", hold);
    set.then_some(timeout)
}

/// Reports a template with fields that no poll of the rule can fill: it would silently match
/// nothing.
fn check_channel(section: &Section, rule: &Rule) {
    let template = match &rule.dialect {
        Dialect::Native(native) => native.channel.as_ref(),
        Dialect::Timestamp(timestamp) => Some(&timestamp.channel),
        Dialect::Replay(replay) => Some(&replay.channel),
        Dialect::Nchan(nchan) => nchan.channel.as_ref(),
        Dialect::NovComet(_) | Dialect::None => None,
    };
    for field in template.into_iter().flat_map(Template::fields) {
        let stars = rule.path.stars();
        let message = match field {
            Field::Path(n) if *n > stars && section.is_sound("path") => {
                format!("{{path.{n}}} wants {n} * in the path, which has {stars}")
            }
            Field::Form(name) if !rule.methods.contains(&Method::Post) => {
                format!("{{form.{name}}} is never there, as the rule's methods have no POST")
            }
            Field::Json(_) | Field::ResponseBody => {
                "{json...} and {response.body} are never there in a poll".to_owned()
            }
            _ => continue,
        };
        section.mistake("channel", message);
    }
}
