//! The statistics of a running gate: gathered from its parts for `/status` and `/metrics`.

use super::reload::Reload;
use super::snapshot_writer::SnapshotWriter;
use crate::hub::channel::{SiteName, Time};
use crate::hub::{Hub, Info};
use crate::server::admin::page::{self, BusyChannel, Event, Overview};
use crate::server::admin::{SiteStats, Stats, process};
use crate::server::gate::Gate;
use crate::server::limits::descriptors::soft_limit;
use crate::server::publish::{Publisher, system_time};
use crate::server::telemetry::exposition::{Kind, Text};
use crate::server::telemetry::log;
use crate::server::telemetry::metrics::{Counts, Label, SharedMetrics};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Sources of the statistics.
#[derive(Clone)]
pub(super) struct StatsSources {
    pub(super) hub: Hub,
    pub(super) gate: Gate,
    pub(super) publisher: Publisher,
    pub(super) reload: Reload,
    pub(super) metrics: Arc<SharedMetrics>,
    pub(super) snapshot_writer: Arc<SnapshotWriter>,
    /// Start time of the process.
    pub(super) started: Time,
}

impl StatsSources {
    /// Content of `/status`.
    pub(super) fn stats(&self) -> Stats {
        let counters = self.gate.counters();
        let in_force = self.reload.in_force();
        Stats {
            held: self.hub.held() as u64,
            streams: counters.streams().map(|(name, count)| (name, count as u64)).collect(),
            connections: self.gate.connections() as u64,
            channels: self.hub.channels() as u64,
            history_bytes: self.hub.cost(),
            publishes: self.publisher.counts().sum(),
            deliveries: counters.deliveries.load(Ordering::Relaxed),
            releases: by_label(&counters.releases),
            refusals: by_label(&self.metrics.refusals),
            upstream: by_label(&counters.upstream),
            generation: in_force.generation,
            restart: in_force.restart.clone(),
            snapshot: self.snapshot_writer.report(),
            sites: self.sites().map(|(name, stats)| (name.to_string(), stats)).collect(),
        }
    }

    /// The stats of all sites.
    fn sites(&self) -> impl Iterator<Item = (SiteName, SiteStats)> {
        let in_force = self.reload.in_force();
        let names: Vec<_> = in_force.config.sites.iter().map(|site| site.name.clone()).collect();
        names.into_iter().map(|name| {
            let stats = self.site(&name);
            (name, stats)
        })
    }

    /// The stats of one site.
    pub(super) fn site(&self, name: &SiteName) -> SiteStats {
        let usage = self.hub.usage(name);
        let settings = self.gate.settings();
        let sites = settings.sites.as_ref();
        let site = sites.and_then(|sites| sites.named(name)).and_then(|one| one.site.as_ref());
        let series = self.metrics.watched.site(name).unwrap_or_default();
        SiteStats {
            held: site.map_or(0, |site| site.figures.limits.held() as u64),
            channels: usage.channels as u64,
            waiting: usage.waiting as u64,
            history_bytes: usage.cost,
            publishes: series.publishes.load(Ordering::Relaxed),
            deliveries: series.deliveries.load(Ordering::Relaxed),
            upstream: site.map_or_else(BTreeMap::new, |site| by_label(&site.figures.upstream)),
        }
    }

    /// Content of the page.
    pub(super) fn overview(&self, unready: Vec<String>) -> Overview {
        let now = system_time();
        let busiest = self.hub.busiest(page::BUSIEST, now).into_iter().map(busy).collect();
        let events = log::recent().into_iter().map(event).collect();
        Overview {
            time: now.0 as f64 / 1e6,
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime: now.0.saturating_sub(self.started.0) / 1_000_000,
            unready,
            stats: self.stats(),
            memory: process::resident_memory(),
            open_fds: process::open_fds(),
            max_fds: Some(soft_limit()),
            busiest,
            events,
        }
    }

    /// Content of `/metrics`.
    pub(super) fn metrics(&self) -> String {
        let mut text = Text::default();
        self.polls(&mut text);
        self.upstream(&mut text);
        self.presence(&mut text);
        self.watched(&mut text);
        self.of_sites(&mut text);
        self.backplane(&mut text);
        self.process(&mut text);
        text.finish()
    }

    fn polls(&self, text: &mut Text) {
        use Kind::{Counter, Gauge};
        let stats = self.stats();
        let counters = self.gate.counters();
        text.number(Gauge, "pollgate_held_polls", "Polls held now.", stats.held);
        let help = "Streams now, by transport; they count as held polls, too.";
        text.numbers(Gauge, "pollgate_streams", help, "transport", counters.streams());
        let pusher = self.gate.pusher_figures();
        let help = "Connections of the Pusher protocol now, of all transports.";
        let connections = pusher.connections as u64;
        text.number(Gauge, "pollgate_pusher_connections", help, connections);
        let help = "Sessions of the Pusher protocol's HTTP fallbacks now.";
        text.number(Gauge, "pollgate_pusher_sessions", help, pusher.sessions as u64);
        let help = "Such sessions that were lost, as an answer could not be written.";
        text.number(Counter, "pollgate_pusher_sessions_lost_total", help, pusher.lost);
        let help = "Connections of the public side now.";
        text.number(Gauge, "pollgate_connections", help, stats.connections);
        text.number(Gauge, "pollgate_channels", "Channels that were published to.", stats.channels);
        let help = "Channels that were never published to and that polls wait on now.";
        let (waiting, _) = self.hub.waiting();
        text.number(Gauge, "pollgate_waiting_channels", help, waiting as u64);
        let help = "Memory of all messages kept.";
        text.number(Gauge, "pollgate_history_bytes", help, stats.history_bytes);
        let help = "Messages published, by the way they came.";
        text.counts("pollgate_publishes_total", help, "by", self.publisher.counts());
        let help = "Messages in answers.";
        text.number(Counter, "pollgate_deliveries_total", help, stats.deliveries);
        let help = "Polls that ended, by why; held before or not.";
        text.counts("pollgate_releases_total", help, "cause", &counters.releases);
        let help = "Looks of a Mercure hub's subscribers at updates, by what was for them.";
        text.counts("pollgate_mercure_wakes_total", help, "result", &counters.mercure_wakes);
        let help = "How long held polls were held.";
        text.histogram("pollgate_hold_seconds", help, &counters.hold);
        let help = "From a publish until the answer of a held poll that it released was written.";
        text.histogram("pollgate_publish_to_write_seconds", help, &counters.publish_to_write);
        let help = "Requests refused, by why, on both listeners.";
        text.counts("pollgate_refusals_total", help, "cause", &self.metrics.refusals);
        let help = "How often a config has come into force, the first included.";
        text.number(Gauge, "pollgate_config_generation", help, stats.generation);
    }

    fn upstream(&self, text: &mut Text) {
        let counters = self.gate.counters();
        let help = "Requests forwarded to the site, by its answer; none = it gave none, \
                    gone = the client left first.";
        text.counts("pollgate_upstream_requests_total", help, "status", &counters.upstream);
        let help = "From forwarding a request to the head of the site's answer.";
        text.histogram("pollgate_upstream_seconds", help, &counters.upstream_time);
    }

    fn presence(&self, text: &mut Text) {
        let presence = self.hub.presence();
        let help = "Users who are present on channels here.";
        text.number(Kind::Gauge, "pollgate_presence_members", help, presence.count());
        let help = "Memory of the users who are present.";
        text.number(Kind::Gauge, "pollgate_presence_bytes", help, presence.bytes());
        let help = "Events for webhooks, by their end.";
        let webhooks = &self.reload.live().webhooks;
        text.counts("pollgate_webhook_events_total", help, "result", webhooks.counts());
        let help = "Requests to webhooks that were not taken, by cause; they are repeated.";
        text.counts("pollgate_webhook_failures_total", help, "cause", webhooks.failures());
    }

    /// The channels that `metrics.channels` lists; without any, these families are left out.
    fn watched(&self, text: &mut Text) {
        let all = self.metrics.watched.all();
        if all.is_empty() {
            return;
        }
        let names: Vec<_> = all.iter().map(|(name, _)| name.path()).collect();
        let named = || names.iter().map(|name| &**name);
        let values = named().zip(all.iter().map(|(name, _)| self.hub.held_on(name)));
        let help = "Polls held now on a listed channel.";
        text.numbers(Kind::Gauge, "pollgate_channel_held_polls", help, "channel", values);
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let values = named().zip(all.iter().map(|(_, series)| count(&series.publishes)));
        let help = "Messages published on a listed channel.";
        text.numbers(Kind::Counter, "pollgate_channel_publishes_total", help, "channel", values);
        let values = named().zip(all.iter().map(|(_, series)| count(&series.deliveries)));
        let help = "Messages of a listed channel in answers.";
        text.numbers(Kind::Counter, "pollgate_channel_deliveries_total", help, "channel", values);
    }

    /// The sites; without any, these families are left out.
    fn of_sites(&self, text: &mut Text) {
        use Kind::{Counter, Gauge};
        let all: Vec<(SiteName, SiteStats)> = self.sites().collect();
        if all.is_empty() {
            return;
        }
        let mut family = |kind, name, help, value: fn(&SiteStats) -> u64| {
            let values = all.iter().map(|(site, stats)| (site.as_str(), value(stats)));
            text.numbers(kind, name, help, "site", values);
        };
        family(Gauge, "pollgate_site_held_polls", "Polls of a site held now.", |it| it.held);
        let help = "Channels of a site that were published to.";
        family(Gauge, "pollgate_site_channels", help, |it| it.channels);
        let help = "Channels of a site that were never published to and that polls wait on now.";
        family(Gauge, "pollgate_site_waiting_channels", help, |it| it.waiting);
        let help = "Memory of all messages of a site that are kept.";
        family(Gauge, "pollgate_site_history_bytes", help, |it| it.history_bytes);
        let help = "Messages published on channels of a site.";
        family(Counter, "pollgate_site_publishes_total", help, |it| it.publishes);
        let help = "Messages of a site in answers.";
        family(Counter, "pollgate_site_deliveries_total", help, |it| it.deliveries);
        let values = all.iter().flat_map(|(site, stats)| {
            let counts = stats.upstream.iter();
            counts.map(|(status, count)| ([site.as_str(), *status], *count))
        });
        let help = "Requests forwarded to a site's upstream, by its answer; none = it gave none, \
                    gone = the client left first.";
        let name = "pollgate_site_upstream_requests_total";
        text.by_two(Counter, name, help, ["site", "status"], values);
    }

    /// The state of the backplane; without one, these families are left out.
    fn backplane(&self, text: &mut Text) {
        let Some(backplane) = &self.reload.live().backplane else { return };
        let stats = backplane.stats();
        let help = "Whether publishes reach Redis and every subscription is confirmed.";
        let up = u64::from(backplane.unready().is_empty());
        text.number(Kind::Gauge, "pollgate_backplane_up", help, up);
        let help = "Channels subscribed to in Redis.";
        let name = "pollgate_backplane_subscriptions";
        text.number(Kind::Gauge, name, help, stats.subscriptions);
        let help = "Channels that wait to be read from Redis.";
        text.number(Kind::Gauge, "pollgate_backplane_reads_waiting", help, stats.reads);
        let help = "How often pushes were lost: connections that ended, and overflows.";
        text.number(Kind::Counter, "pollgate_backplane_pushes_lost_total", help, stats.losses);
    }

    fn process(&self, text: &mut Text) {
        let version = [(env!("CARGO_PKG_VERSION"), 1)];
        let help = "Always 1; the label says which version this is.";
        text.numbers(Kind::Gauge, "pollgate_build_info", help, "version", version);
        let help = "When the process started, in seconds since 1970.";
        let started = self.started.0 as f64 / 1e6;
        text.number(Kind::Gauge, "process_start_time_seconds", help, started);
        let http2 = self.gate.http2();
        let help = "Requests of HTTP/2 streams at the upstream.";
        text.number(Kind::Gauge, "pollgate_http2_requests", help, http2.requests() as u64);
        let help = "HTTP/2 streams that wait for one of their connection to end.";
        text.number(Kind::Gauge, "pollgate_http2_requests_waiting", help, http2.waiting() as u64);
        let help = "Bytes of the upstream's responses that wait for HTTP/2 clients.";
        text.number(Kind::Gauge, "pollgate_http2_unsent_bytes", help, http2.unsent() as u64);
        let bodies = self.gate.settings().bodies.clone();
        let help = "What bodies take that are kept, in bytes.";
        text.number(Kind::Gauge, "pollgate_body_bytes", help, bodies.used() as u64);
        let help = "Bodies that were not kept, as there was no room.";
        text.number(Kind::Counter, "pollgate_bodies_refused_total", help, bodies.refused());
        let help = "Log lines that were dropped, as the log was not read in time.";
        text.number(Kind::Counter, "pollgate_log_lines_dropped_total", help, log::dropped());
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory.", process::resident_memory()),
            ("process_open_fds", "Open file descriptors.", process::open_fds()),
            ("process_max_fds", "The most file descriptors.", Some(soft_limit())),
        ] {
            if let Some(value) = value {
                text.number(Kind::Gauge, name, help, value);
            }
        }
    }
}

fn busy(info: Info) -> BusyChannel {
    BusyChannel {
        channel: info.channel.to_string(),
        site: info.channel.site().to_owned(),
        held: info.held,
        kept: info.kept,
        bytes: info.bytes,
        epoch: info.epoch.to_string(),
        messages: info.newest.map_or(0, |(position, _)| position.seq),
    }
}

fn event(recent: log::Recent) -> Event {
    let since = recent.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Event { time: since.as_secs_f64(), level: recent.level, text: recent.text }
}

fn by_label<L: Label>(counts: &Counts<L>) -> BTreeMap<&'static str, u64> {
    counts.all().map(|(label, count)| (label.as_str(), count)).collect()
}
