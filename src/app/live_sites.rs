//! The settings of the sites, made from a config.

use super::live::grip_gate;
use crate::config::{Config, SiteConfig};
use crate::hub::channel::SiteName;
use crate::server::gate::mercure::Settings as Hub;
use crate::server::gate::pusher::PusherSettings;
use crate::server::gate::route::Routes;
use crate::server::gate::sites::{Site, SiteFigures, Sites};
use crate::server::gate::upstream::Upstream;
use crate::server::limits::rate::AddressRate;
use crate::server::{gate, publish};
use std::sync::Arc;

/// The upstream of each site; that of a gate without sites is the one of no site.
pub(super) type Upstreams = Vec<(SiteName, Arc<Upstream>)>;

/// The upstream of `site`; one without servers if there is none.
pub(super) fn upstream_of(upstreams: &Upstreams, site: &SiteName) -> Option<Arc<Upstream>> {
    upstreams.iter().find(|(name, _)| name == site).map(|(_, upstream)| upstream.clone())
}

/// The sites of `config` beside the gate's own settings. What a site of `before` has counted, it
/// goes on with.
pub(super) fn sites(
    config: &Config,
    gate: &gate::Settings,
    upstreams: &Upstreams,
    before: Option<&Sites>,
) -> Option<Arc<Sites>> {
    if config.sites.is_empty() {
        return None;
    }
    let mut sites = Sites::default();
    for site in &config.sites {
        let known = before.and_then(|before| before.named(&site.name));
        let known = known.and_then(|settings| settings.site.as_ref());
        let upstream = upstream_of(upstreams, &site.name);
        let upstream = upstream.unwrap_or_else(|| gate.upstream.clone());
        let known = known.map(|known| &**known);
        let settings = settings(site, (gate, config.max_message), upstream, known);
        sites.add(&site.hosts, site.default, settings);
    }
    Some(Arc::new(sites))
}

fn settings(
    config: &SiteConfig,
    (gate, max_message): (&gate::Settings, u64),
    upstream: Arc<Upstream>,
    known: Option<&Site>,
) -> gate::Settings {
    // A limit that is the gate's own is counted there.
    let own = config.limits.requests_per_second;
    let own = if own == gate.limits.requests_per_second { 0 } else { own };
    let requests = match known {
        Some(known) => known.requests.allowing(own),
        None => Arc::new(AddressRate::new(own)),
    };
    let figures = known.map_or_else(Arc::<SiteFigures>::default, |known| known.figures.clone());
    let name = config.name.clone();
    let gate_limits = gate.limits.clone();
    gate::Settings {
        routes: Routes::new(config.routes.clone()),
        hold: config.hold.clone(),
        limits: config.limits.clone(),
        upstream,
        connect_timeout: config.upstream.connect_timeout,
        read_timeout: config.upstream.read_timeout,
        site: Some(Arc::new(Site { name, gate_limits, requests, figures })),
        sites: None,
        grip: grip_gate(&config.grip),
        mercure: config.mercure.clone().map(|hub| Hub { hub, max_message }),
        pusher: PusherSettings { apps: config.pusher.clone(), sessions: gate.pusher.sessions },
        ..gate.clone()
    }
}

/// What is published of the requests to each upstream.
pub(super) fn captured(config: &Config) -> Vec<(SiteName, publish::Captured)> {
    if config.sites.is_empty() {
        return vec![(SiteName::NONE, config.captured.clone())];
    }
    config.sites.iter().map(|site| (site.name.clone(), site.captured.clone())).collect()
}
