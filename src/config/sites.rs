//! Checks of the sites against each other, and of their certificates.

use super::read::report::Report;
use super::{Config, checks};
use crate::hub::channel::SiteName;
use crate::server::gate::sites::HostPattern;
use crate::server::gate::tls::is_named;
use std::collections::HashMap;

/// Checks what must not be the same in two sites, and what sites need of the gate.
pub(super) fn across(config: &Config, report: &Report) {
    if config.sites.is_empty() {
        return;
    }
    for (key, is_there) in [
        ("poll", !config.routes.is_empty()),
        ("channel", !config.hub.overrides.is_empty()),
        ("watch", config.watch.iter().any(|rule| rule.site.is_none())),
        ("capture", !config.captured.capture.is_empty()),
        ("webhook", config.webhooks.iter().any(|one| one.site.is_none() && one.pusher.is_none())),
        ("grip", config.grip.enabled),
        ("mercure", config.mercure.is_some()),
        ("nchan", config.nchan.iter().any(|rule| rule.site.is_none())),
        ("pusher", config.pusher.apps.iter().any(|one| one.app.site.is_none())),
    ] {
        if is_there {
            let message = "belongs to a site, where there are sites; move it below [[site]]";
            report.mistake(key, message);
        }
    }
    if !config.upstream.servers.is_empty() && report.is_sound(&["upstream.servers"]) {
        let message = "belongs to a site, where there are sites; move it to [site.upstream]";
        report.mistake("upstream.servers", message);
    }
    if config.captured.may_publish {
        let message = "belongs to a site, where there are sites; move it to [site.upstream]";
        report.mistake("upstream.may_publish", message);
    }
    for (index, channel) in config.watched.iter().enumerate() {
        if !config.sites.iter().any(|site| channel.is_of(&site.name)) {
            let message = format!("there is no site \"{}\"", channel.site());
            report.mistake(&format!("metrics.channels[{index}]"), message);
        }
    }
    let grips = config.sites.iter().map(|site| &site.grip).filter(|grip| grip.enabled);
    let (with_key, without): (Vec<_>, Vec<_>) = grips.partition(|it| !it.control_key.is_empty());
    if !with_key.is_empty() && !without.is_empty() {
        for (at, site) in config.sites.iter().enumerate() {
            if site.grip.enabled && site.grip.control_key.is_empty() {
                let message = "missing; another site's programs sign their tokens, and then those \
                               of each site have to";
                report.mistake(&format!("site[{at}].grip.control_key"), message);
            }
        }
    }
    names(config, report);
    hosts(config, report);
    tokens(config, report);
    if report.is_sound(&["tls", "site"]) {
        listeners(config, report);
    }
}

fn names(config: &Config, report: &Report) {
    let mut seen: HashMap<&SiteName, usize> = HashMap::new();
    for (at, site) in config.sites.iter().enumerate() {
        if let Some(before) = seen.insert(&site.name, at) {
            let message = format!("\"{}\" is the name of site[{before}] too", site.name);
            report.mistake(&format!("site[{at}].name"), message);
        }
    }
    let defaults = config.sites.iter().enumerate().filter(|(_, site)| site.default);
    for (at, _) in defaults.skip(1) {
        let message = "another site is the default already; one can have the rest of the hosts";
        report.mistake(&format!("site[{at}].default"), message);
    }
}

fn hosts(config: &Config, report: &Report) {
    let mut seen: HashMap<&HostPattern, &SiteName> = HashMap::new();
    for (at, site) in config.sites.iter().enumerate() {
        for (index, host) in site.hosts.iter().enumerate() {
            if let Some(before) = seen.insert(host, &site.name) {
                let message = match *before == site.name {
                    true => format!("{host} is there twice"),
                    false => format!("{host} is a host of the site \"{before}\" too"),
                };
                report.mistake(&format!("site[{at}].hosts[{index}]"), message);
            }
        }
    }
}

fn tokens(config: &Config, report: &Report) {
    let has_own = config.sites.iter().any(|site| !site.token.is_empty());
    if config.token.is_empty() && report.is_sound(&["publish.token"]) {
        if config.sites.len() > 1 {
            let message = "missing; with several sites the gate's own requests need a token, so \
                           that no site is taken for the gate";
            report.mistake("publish.token", message);
        } else if has_own {
            let message = "missing; without it the site's own token keeps nobody out";
            report.mistake("publish.token", message);
        }
    }
    for (at, site) in config.sites.iter().enumerate().filter(|(_, site)| !site.token.is_empty()) {
        let key = format!("site[{at}].publish.token");
        if site.token == config.token {
            report.mistake(&key, "is the gate's own token; a site's reaches that site alone");
        }
        let same = config.sites[..at].iter().find(|before| before.token == site.token);
        if let Some(same) = same {
            let message = format!("is the token of the site \"{}\" too", same.name);
            report.mistake(&key, message);
        }
    }
}

/// One listener speaks TLS with all sites, or with none.
fn listeners(config: &Config, report: &Report) {
    if !config.is_tls() || config.tls.is_some() {
        return;
    }
    for (at, _) in config.sites.iter().enumerate().filter(|(_, site)| site.tls.is_none()) {
        let message = "missing; the listener speaks TLS as other sites have certificates: give \
                       this one its own, or the gate one for all others ([tls])";
        report.mistake(&format!("site[{at}].tls"), message);
    }
}

/// Reads the sites' certificates, and checks that each names its hosts.
pub(super) fn files(config: &mut Config, report: &Report) {
    for (at, site) in config.sites.iter_mut().enumerate() {
        let cert_key = format!("site[{at}].tls.cert");
        let key_key = format!("site[{at}].tls.key");
        if let Some((cert, key)) = &site.tls {
            let files = [(cert_key.as_str(), cert.as_path()), (key_key.as_str(), key.as_path())];
            site.identity = checks::identity(files, &mut config.warnings, report);
        }
        let (key, identity) = match (&site.tls, &site.identity) {
            (Some(_), identity) => (cert_key, identity.as_ref()),
            (None, _) => (format!("site[{at}].hosts"), config.identity.as_ref()),
        };
        let Some(identity) = identity else { continue };
        for host in site.hosts.iter().filter(|host| !is_named(identity, &host.example())) {
            let message = match site.tls {
                Some(_) => format!("does not name {host}, a host of the site"),
                None => format!("{host} is not named by the gate's certificate (tls.cert)"),
            };
            report.mistake(&key, message);
        }
    }
}
