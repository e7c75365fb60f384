//! The sections of the config, each read into the settings of its module.

pub(super) mod auth;
pub(super) mod backplane;
pub(super) mod capture;
pub(super) mod extra;
pub(super) mod grip;
pub(super) mod mercure;
pub(super) mod nchan;
pub(super) mod poll;
pub(super) mod presence;
pub(super) mod pusher;
pub(super) mod site;
pub(super) mod watch;
pub(super) mod webhook;

use super::Config;
use super::read::locations::ConnectionSlots;
use super::read::section::Section;
use super::read::values;
use crate::hub;
use crate::hub::channel::{Limits, Pattern, SiteName, Tick};
use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use crate::server::gate::client_script::ClientScript;
use crate::server::gate::poll::hold;
use crate::server::gate::pusher::PusherSettings;
use crate::server::gate::{self, tls, upstream};
use crate::server::limits::{body_memory, permit};
use crate::server::persist::snapshot;
use crate::server::publish;
use crate::server::telemetry::log;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Limits on a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Maximum length of a request head, in bytes.
    pub head_bytes: usize,
    /// Maximum number of header lines in it.
    pub head_count: usize,
    /// The least rate of a request's body in bytes a second; 0 = any.
    pub body_rate: u32,
    /// Bytes of all bodies that are kept.
    pub body_memory: usize,
    /// Timeout of a request head; `None` = none.
    pub head_timeout: Option<Duration>,
    /// Timeout of an idle kept-alive connection between requests; `None` = none.
    pub idle_timeout: Option<Duration>,
    /// Timeout of a client that does not accept bytes that are sent, or pauses in a body; `None` =
    /// none.
    pub write_timeout: Option<Duration>,
}

/// `[drain]`: the shutdown of the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Time over which held polls are answered, so that their clients do not all come back at once.
    pub spread: Duration,
    /// Time after which requests still under way are cut off.
    pub timeout: Duration,
}

/// A number where 0 means no limit.
const ANY: RangeInclusive<usize> = 0..=usize::MAX;
/// A number that must not be 0.
const SOME: RangeInclusive<usize> = 1..=usize::MAX;

/// The whole config, as far as the text itself defines it; the caller adds the content of the files
/// that it names, [`Config::effective`] and [`Config::places`].
pub(super) fn config(root: &mut Section) -> Config {
    let listen = root.list("listen", vec![local(8080)], values::address);
    let internal = internal(root);
    let internal_names = root.list("internal_names", Vec::new(), values::host);
    let trusted_proxies = root.list("trusted_proxies", Vec::new(), values::network);
    let threads = root.number("threads", 0, 0..=1024);
    let tls = root.optional_table("tls", tls).flatten();
    let has_sites = root.has("site");
    let default = upstream::Settings::default();
    // With sites, each names its own.
    let servers = if has_sites { Vec::new() } else { default.servers.clone() };
    let default = upstream::Settings { servers, ..default };
    let (upstream, may_publish) = root.table("upstream", |section| upstream(section, default));
    let (token, messages_per_second) = root.table("publish", publish_keys);
    let usual = (hold::Settings::default(), permit::Settings::default().held);
    let (hold, held) = root.table("hold", |section| hold(section, &usual.0, usual.1));
    let stream = root.table("stream", stream);
    let client_script = root.table("client", client_script);
    let (mut hub, max_message, snapshot) = root.table("history", history);
    let (limits, client, presence_bytes, pusher_sessions) = root.table("limits", |section| {
        let (limits, client, presence) = limits(section, held);
        let sessions = PusherSettings::default().sessions;
        (limits, client, presence, section.number("pusher_sessions", sessions, SOME))
    });
    let watch_file = root.table("reload", |reload| reload.flag("watch", false));
    let drain = root.table("drain", drain);
    let upgrade = root.table("upgrade", upgrade);
    let log = root.table("log", log);
    let listed = if has_sites { values::listed_in_site } else { values::listed };
    let watched = root.table("metrics", |metrics| metrics.list("channels", Vec::new(), listed));
    let watched = watched.into_iter().map(|listed| listed.0).collect();
    let with_token = !token.is_empty();
    let mercure = root.optional_table("mercure", |section| {
        mercure::hub(section, &SiteName::NONE, with_token || has_sites)
    });
    let mercure = mercure.flatten();
    let backplane = root.table("backplane", backplane::backplane);
    let grip = root.table("grip", grip::grip);
    let above = hub.limits.clone();
    let channels = root.tables("channel", |section| channel(section, &above));
    let channels: Vec<_> = channels.into_iter().flatten().collect();
    let mut presence = presence::rules(&SiteName::NONE, &channels);
    hub.overrides = channels.into_iter().map(|(pattern, limits, _)| (pattern, limits)).collect();
    let routes = root.tables("poll", |section| poll::rule(section, hold.timeout));
    let routes = routes.into_iter().flatten().collect();
    let capture = root.tables("capture", capture::rule);
    let capture = capture.into_iter().flatten().map(Arc::new).collect();
    let (mut apps, hooks) = pusher::apps(root, &SiteName::NONE);
    pusher::presence(&apps, &mut presence);
    let mut webhooks = webhook::webhooks(root, &SiteName::NONE);
    webhooks.extend(hooks);
    presence.occupancy = webhook::want_occupancy(&webhooks);
    let mut nchan = nchan::rules(root, &SiteName::NONE);
    let watch = root.tables("watch", |section| watch::rule(section, &SiteName::NONE));
    let above =
        site::Above { hold: &hold, limits: &limits, hub: &hub, upstream: &upstream, with_token };
    let sites = root.tables("site", |section| site::site(section, &above));
    let sites: Vec<_> = sites.into_iter().flatten().collect();
    hub.sites = sites.iter().map(|site| site.bounds.clone()).collect();
    let watch = watch.into_iter().flatten();
    let watch = watch.chain(sites.iter().flat_map(|site| site.watch.clone())).collect();
    let presence = [presence].into_iter().chain(sites.iter().map(|site| site.presence.clone()));
    let presence = presence.collect();
    webhooks.extend(sites.iter().flat_map(|site| site.webhooks.clone()));
    apps.extend(sites.iter().flat_map(|site| site.pusher.clone()));
    nchan.extend(sites.iter().flat_map(|site| site.nchan.clone()));
    Config {
        listen,
        internal,
        internal_names,
        trusted_proxies,
        threads,
        tls,
        identity: None,
        upstream,
        token,
        messages_per_second,
        max_message,
        hold,
        stream,
        client_script,
        hub,
        presence,
        presence_bytes,
        webhooks,
        snapshot,
        upgrade,
        limits,
        client,
        drain,
        log,
        watched,
        backplane,
        grip,
        mercure,
        routes,
        pusher: PusherSettings { apps, sessions: pusher_sessions },
        captured: publish::Captured { capture, may_publish },
        nchan,
        watch,
        sites,
        watch_file,
        warnings: Vec::new(),
        effective: toml_edit::Table::new(),
        places: ConnectionSlots::default(),
    }
}

pub(super) fn internal(root: &mut Section) -> Vec<Address> {
    root.list("internal", vec![local(7080)], values::address)
}

/// The token, and its rate limit in messages per second.
fn publish_keys(section: &mut Section) -> (Secret, u32) {
    (token(section), rate(section, "messages_per_second", 0))
}

pub(super) fn token(publish: &mut Section) -> Secret {
    publish.secret("token", values::token)
}

fn local(port: u16) -> Address {
    Address::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// `None` is a mistake.
fn tls(section: &mut Section) -> Option<tls::Settings> {
    let cert = section.required("cert", "name the certificate's PEM file", values::filled);
    let key = section.required("key", "name the PEM file of its private key", values::filled);
    let redirect = section.list("redirect", Vec::new(), values::address);
    Some(tls::Settings { cert: cert?.into(), key: key?.into(), redirect })
}

/// The upstream; true if it may publish with a header.
fn upstream(section: &mut Section, default: upstream::Settings) -> (upstream::Settings, bool) {
    let settings = upstream::Settings {
        servers: section.list("servers", default.servers, values::address),
        connect_timeout: section.some_duration("connect_timeout", default.connect_timeout),
        read_timeout: section.some_duration("read_timeout", default.read_timeout),
    };
    (settings, section.flag("may_publish", false))
}

/// The settings of held polls, and their maximum number.
fn hold(section: &mut Section, default: &hold::Settings, most: usize) -> (hold::Settings, usize) {
    let timeout = section.duration("timeout", default.timeout);
    let jitter = section.percent("jitter", default.jitter * 100.0) / 100.0;
    (hold::Settings { timeout, jitter }, section.number("max", most, SOME))
}

/// `None` = the gate does not serve its browser client.
fn client_script(section: &mut Section) -> Option<ClientScript> {
    let path = section.parsed("path", ClientScript::PATH.to_owned(), values::script);
    (!path.is_empty()).then(|| ClientScript::at(&path))
}

fn stream(section: &mut Section) -> gate::stream::Settings {
    let default = gate::stream::Settings::default();
    gate::stream::Settings {
        max: section.duration("max", default.max),
        heartbeat: section.duration("heartbeat", default.heartbeat),
        retry: section.duration("retry", default.retry),
        ..default
    }
}

/// The channels, the maximum length of a message, and the snapshot file.
fn history(section: &mut Section) -> (hub::Settings, u64, snapshot::Settings) {
    let default = hub::Settings::default();
    let limits = Limits {
        messages: section.number("messages", default.limits.messages, SOME),
        bytes: section.size("bytes", default.limits.bytes, 1),
        age: section.duration("age", default.limits.age),
        ..Limits::default()
    };
    let settings = hub::Settings {
        channels: section.number("channels", default.channels, SOME),
        waiting: section.number("waiting", default.waiting, SOME),
        waiting_bytes: section.size("waiting_bytes", default.waiting_bytes, 1),
        total: section.size("total", default.total, 1),
        limits: Arc::new(limits),
        ..default
    };
    let max_message = section.size("max_message", publish::Settings::default().max_message, 1);
    let file = section.parsed("snapshot", String::new(), values::snapshot);
    let snapshot = snapshot::Settings {
        file: (!file.is_empty()).then(|| file.into()),
        every: section.duration("snapshot_every", snapshot::Settings::default().every),
    };
    (settings, max_message, snapshot)
}

fn limits(section: &mut Section, held: usize) -> (permit::Settings, Client, u64) {
    let default = permit::Settings::default();
    let limits = permit::Settings {
        held,
        per_address: section.number("per_address", default.per_address, ANY),
        per_grant: section.number("per_grant", default.per_grant, ANY),
        per_channel: section.number("per_channel", default.per_channel, ANY),
        channels_per_poll: section.number("channels_per_poll", default.channels_per_poll, ANY),
        connections_per_second: rate(
            section,
            "connections_per_second",
            default.connections_per_second,
        ),
        requests_per_second: rate(section, "requests_per_second", default.requests_per_second),
    };
    let head_bytes = section.size("head_bytes", 64 << 10, 1 << 10);
    let head_count = section.number("head_count", 100, 1..=10_000);
    let body_rate = section.number("body_rate", 256, 0..=1_000_000);
    let presence = section.size("presence", hub::presence::DEFAULT_BYTES, 0);
    let body_memory = section.size("body_memory", body_memory::DEFAULT as u64, 64 << 10);
    let mut timeout = |key, seconds| {
        let timeout = section.duration(key, Duration::from_secs(seconds));
        (!timeout.is_zero()).then_some(timeout)
    };
    let head_timeout = timeout("head_timeout", 10);
    let idle_timeout = timeout("idle_timeout", 75);
    let write_timeout = timeout("write_timeout", 30);
    let client = Client {
        head_bytes: usize::try_from(head_bytes).unwrap_or(usize::MAX),
        head_count,
        body_rate: u32::try_from(body_rate).unwrap_or(u32::MAX),
        body_memory: usize::try_from(body_memory).unwrap_or(usize::MAX),
        head_timeout,
        idle_timeout,
        write_timeout,
    };
    (limits, client, presence)
}

/// A rate limit per second; 0 = no limit.
fn rate(section: &mut Section, key: &'static str, default: u32) -> u32 {
    let default = usize::try_from(default).unwrap_or(usize::MAX);
    let rate = section.number(key, default, 0..=1_000_000);
    u32::try_from(rate).unwrap_or(u32::MAX)
}

fn drain(section: &mut Section) -> Drain {
    Drain {
        spread: section.duration("spread", Duration::from_secs(2)),
        timeout: section.duration("timeout", Duration::from_secs(30)),
    }
}

fn upgrade(section: &mut Section) -> Option<PathBuf> {
    let socket = section.parsed("socket", String::new(), values::socket);
    (!socket.is_empty()).then(|| socket.into())
}

fn log(section: &mut Section) -> log::Settings {
    let formats = [("text", log::Format::Text), ("json", log::Format::Json)];
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    let default = log::Settings::default();
    log::Settings {
        format: section.choice("format", default.format, &formats),
        level: section.choice("level", default.level, &levels),
        mask: section.list("mask", default.mask, values::filled),
    }
}

/// The names of some channels, their limits and their presence.
type Channel = (Pattern, Arc<Limits>, Option<Arc<hub::presence::Settings>>);

/// A `[[channel]]`; its missing keys come from `above`. `None` is a mistake.
fn channel(section: &mut Section, above: &Limits) -> Option<Channel> {
    let ticks = [("micros", Tick::Micros), ("millis", Tick::Millis), ("seconds", Tick::Seconds)];
    let hint = "write a channel's name, or the beginning of names and *";
    let pattern = section.required("match", hint, values::pattern);
    let limits = Limits {
        messages: section.number("messages", above.messages, SOME),
        bytes: section.size("bytes", above.bytes, 1),
        age: section.duration("age", above.age),
        keep_newest: section.optional_flag("keep_newest").or(above.keep_newest),
        tick: section.choice("stamp", above.tick, &ticks),
    };
    let present = presence::presence(section);
    pattern.map(|pattern| (pattern, Arc::new(limits), present))
}
