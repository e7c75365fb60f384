//! `[[site]]`: one group of hosts with an upstream, channels and a token of its own.
//!
//! What a site does not say is as the gate's own sections say; in `history` and `limits` it may
//! only take less than they give.

use super::grip::{Grip, grip};
use super::mercure::hub as hub_of;
use super::nchan::rules as publishers;
use super::presence as present;
use super::webhook as webhooks;
use super::{ANY, SOME, capture, channel, hold, poll, pusher, rate, token, upstream, watch};
use crate::config::read::section::Section;
use crate::config::read::values;
use crate::hub::channel::{Limits, SiteName};
use crate::hub::{self, SiteBounds, presence};
use crate::protocol::auth::secret::Secret;
use crate::protocol::mercure;
use crate::server::gate::poll::hold as holding;
use crate::server::gate::pusher::PusherApp;
use crate::server::gate::route::Rule;
use crate::server::gate::sites::HostPattern;
use crate::server::gate::upstream as servers;
use crate::server::limits::permit;
use crate::server::net::certificate::Identity;
use crate::server::publish::{Captured, nchan, watch as watching};
use crate::server::webhook;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One site.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    /// Its name.
    pub name: SiteName,
    /// Its hosts.
    pub hosts: Vec<HostPattern>,
    /// True if it gets the hosts that no site has.
    pub default: bool,
    /// The files of its certificate and key; `None` = those of the gate.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Their contents; present if `tls` is.
    pub identity: Option<Identity>,
    /// Its upstream.
    pub upstream: servers::Settings,
    /// The token that reaches its channels; empty = only the gate's does.
    pub token: Secret,
    /// Settings of its held polls.
    pub hold: holding::Settings,
    /// Limits on those.
    pub limits: permit::Settings,
    /// Bounds of its channels.
    pub bounds: SiteBounds,
    /// Rules that select its polls.
    pub routes: Vec<Rule>,
    /// What is published of the requests to its upstream.
    pub captured: Captured,
    /// Rules for files that it publishes with.
    pub watch: Vec<watching::Rule>,
    /// Presence on its channels.
    pub presence: presence::Rules,
    /// Receivers of its events.
    pub webhooks: Vec<webhook::Settings>,
    /// Its apps of the Pusher protocol.
    pub pusher: Vec<Arc<PusherApp>>,
    /// Its Mercure hub.
    pub mercure: Option<Arc<mercure::Settings>>,
    /// The interface of Pushpin.
    pub grip: Grip,
    /// Paths of the internal listener that publish as Nchan's publishers do.
    pub nchan: Vec<Arc<nchan::Rule>>,
}

/// The gate's own settings, which a site's begin with and stay within.
pub(in crate::config) struct Above<'a> {
    pub(in crate::config) hold: &'a holding::Settings,
    pub(in crate::config) limits: &'a permit::Settings,
    pub(in crate::config) hub: &'a hub::Settings,
    pub(in crate::config) upstream: &'a servers::Settings,
    /// The gate has a token of its own.
    pub(in crate::config) with_token: bool,
}

/// Reads a site; `None` is a mistake.
pub(in crate::config) fn site(section: &mut Section, above: &Above<'_>) -> Option<SiteConfig> {
    let hint = "write a short name of a-z, 0-9 and -, for logs, metrics and the hook";
    let name = section.required("name", hint, |text| {
        let most = SiteName::MAX_BYTES;
        let wrong = || format!("\"{text}\" must be 1 to {most} of a-z 0-9 -");
        SiteName::new(text).ok_or_else(wrong)
    });
    let hosts = section.list("hosts", Vec::new(), |text| {
        text.parse::<HostPattern>().map_err(|error| format!("\"{}\" {error}", text.escape_debug()))
    });
    let default = section.flag("default", false);
    if hosts.is_empty() && !default && section.is_sound("hosts") {
        let message = "missing; name the site's hosts, or let it have the rest: default = true";
        section.mistake("hosts", message);
    }
    let tls = section.optional_table("tls", tls).flatten();
    let (upstream, may_publish) = section.table("upstream", |section| {
        let default = servers::Settings { servers: Vec::new(), ..above.upstream.clone() };
        let read = upstream(section, default);
        if read.0.servers.is_empty() && section.is_sound("servers") {
            let message = "missing; name the servers behind the gate, such as [\"127.0.0.1:8001\"]";
            section.mistake("servers", message);
        }
        read
    });
    let token = section.table("publish", token);
    let (hold, held) = section.table("hold", |section| {
        let most = above.limits.held;
        let (settings, held) = hold(section, above.hold, most);
        narrows(section, "max", held > most, most);
        (settings, held)
    });
    let limits = section.table("limits", |section| limits(section, held, above.limits));
    // Any name lets the rest be read; the mistake is noted.
    let site = name.clone().unwrap_or_default();
    let bounds = section.table("history", |section| history(section, &site, &limits, above.hub));
    let own = bounds.limits.clone();
    let channels = section.tables("channel", |section| channel(section, &own));
    let channels: Vec<_> = channels.into_iter().flatten().collect();
    let mut presence = present::rules(&site, &channels);
    let overrides = channels.into_iter().map(|(pattern, limits, _)| (pattern, limits));
    let bounds = SiteBounds { overrides: overrides.collect(), ..bounds };
    let (pusher, hooks) = pusher::apps(section, &site);
    pusher::presence(&pusher, &mut presence);
    let mut webhooks = webhooks::webhooks(section, &site);
    webhooks.extend(hooks);
    presence.occupancy = webhooks::want_occupancy(&webhooks);
    let with_token = above.with_token || !token.is_empty();
    let mercure = section.optional_table("mercure", |section| hub_of(section, &site, with_token));
    let nchan = publishers(section, &site);
    let grip = section.table("grip", grip);
    let routes = section.tables("poll", |section| poll::rule(section, hold.timeout));
    let capture = section.tables("capture", capture::rule);
    let capture = capture.into_iter().flatten().map(Arc::new).collect();
    let watch = section.tables("watch", |section| watch::rule(section, &site));
    Some(SiteConfig {
        name: name?,
        hosts,
        default,
        tls,
        identity: None,
        upstream,
        token,
        hold,
        limits,
        bounds,
        routes: routes.into_iter().flatten().collect(),
        captured: Captured { capture, may_publish },
        watch: watch.into_iter().flatten().collect(),
        presence,
        webhooks,
        pusher,
        mercure: mercure.flatten(),
        grip,
        nchan,
    })
}

/// `None` is a mistake.
fn tls(section: &mut Section) -> Option<(PathBuf, PathBuf)> {
    let cert = section.required("cert", "name the certificate's PEM file", values::filled);
    let key = section.required("key", "name the PEM file of its private key", values::filled);
    Some((cert?.into(), key?.into()))
}

/// The limits of a site; what is counted before its host is known is the gate's alone.
fn limits(section: &mut Section, held: usize, above: &permit::Settings) -> permit::Settings {
    let mut counted = |key, above: usize| {
        let number = section.number(key, above, ANY);
        // 0 = no limit, and so more than any.
        let wider = above > 0 && (number == 0 || number > above);
        narrows(section, key, wider, above);
        number
    };
    let per_address = counted("per_address", above.per_address);
    let per_grant = counted("per_grant", above.per_grant);
    let per_channel = counted("per_channel", above.per_channel);
    let channels_per_poll = counted("channels_per_poll", above.channels_per_poll);
    let requests_per_second = rate(section, "requests_per_second", above.requests_per_second);
    let most = above.requests_per_second;
    let wider = most > 0 && (requests_per_second == 0 || requests_per_second > most);
    narrows(section, "requests_per_second", wider, most);
    permit::Settings {
        held,
        per_address,
        per_grant,
        per_channel,
        channels_per_poll,
        requests_per_second,
        ..above.clone()
    }
}

fn history(
    section: &mut Section,
    site: &SiteName,
    limits: &permit::Settings,
    above: &hub::Settings,
) -> SiteBounds {
    let most = &above.limits;
    let messages = section.number("messages", most.messages, SOME);
    narrows(section, "messages", messages > most.messages, most.messages);
    let bytes = section.size("bytes", most.bytes, 1);
    narrows(section, "bytes", bytes > most.bytes, "the gate's");
    let age = section.duration("age", most.age);
    let for_ever = |age: Duration| age.is_zero();
    let wider = !for_ever(most.age) && (for_ever(age) || age > most.age);
    narrows(section, "age", wider, "the gate's");
    let channels = section.number("channels", above.channels, SOME);
    narrows(section, "channels", channels > above.channels, above.channels);
    // All that its polls and streams can wait on, of which those on several channels get a half.
    let per_poll =
        if limits.channels_per_poll == 0 { usize::MAX } else { limits.channels_per_poll };
    let waiting = limits.held.saturating_mul(per_poll).saturating_mul(2);
    let total = section.size("total", above.total, 1);
    narrows(section, "total", total > above.total, "the gate's");
    SiteBounds {
        name: site.clone(),
        channels,
        waiting: above.waiting.min(waiting),
        waiting_bytes: above.waiting_bytes,
        total,
        limits: Arc::new(Limits { messages, bytes, age, ..Limits::clone(most) }),
        overrides: Vec::new(),
    }
}

fn narrows(section: &Section, key: &str, wider: bool, above: impl Display) {
    if wider && section.is_sound(key) {
        let message = format!("is more than the gate allows ({above}); a site may only take less");
        section.mistake(key, message);
    }
}
