//! Checks of combinations of keys that must not start.

use super::read::report::Report;
use super::{Config, Site};
use crate::protocol::address::Address;
use crate::protocol::dialect::Dialect;
use crate::protocol::pusher::App;
use crate::server::limits::descriptors::{self, FdBudget};
use crate::server::limits::permit;
use crate::server::net::certificate::{Identity, IdentityError};
use crate::server::net::tls_client::TlsClient;
use std::path::Path;
use std::sync::Arc;

/// Checks the config as a whole. Values that are mistakes already are left out, so that one slip is
/// reported once.
pub(super) fn across(config: &Config, site: Site, report: &Report) {
    let sound = |paths: &[&str]| report.is_sound(paths);
    if sound(&["upstream.servers"]) && site == Site::Configured {
        has_a_site(config, report);
    }
    if sound(&["internal", "publish.token"]) {
        has_a_token(config, report);
    }
    if sound(&["listen"]) {
        has_addresses("listen", &config.listen, report);
    }
    if sound(&["internal"]) {
        has_addresses("internal", &config.internal, report);
    }
    if sound(&["listen", "internal"]) {
        has_a_private_hook(config, report);
    }
    if sound(&["listen", "internal", "tls.redirect"]) {
        redirects_elsewhere(config, report);
    }
    if config.backplane.is_some() && sound(&["backplane.redis", "poll"]) {
        knows_its_channels(config, report);
    }
    if sound(&["pusher", "site"]) {
        has_apps_apart(config, report);
    }
    if sound(&["listen", "internal", "upstream.servers"]) && site == Site::Configured {
        has_another_site(config, report);
    }
}

/// Warns of poll rules that never get a request.
pub(super) fn reachable(config: &mut Config) {
    let mut warnings = Vec::new();
    let of_sites = config.sites.iter().enumerate();
    let of_sites = of_sites.map(|(at, site)| (format!("site[{at}]."), &site.routes));
    for (above, rules) in [(String::new(), &config.routes)].into_iter().chain(of_sites) {
        for (index, rule) in rules.iter().enumerate() {
            let Some(before) = rules[..index].iter().position(|before| before.hides(rule)) else {
                continue;
            };
            let key = format!("{above}poll[{index}].path");
            let line = config.places.of(&key).1;
            let line = line.map_or(String::new(), |line| format!(" (line {line})"));
            warnings.push(format!(
                "{key}{line}: never reached, as poll[{before}] with the path \"{}\" takes all of \
                 its requests; move it up, or give that rule a when or unless",
                rules[before].path
            ));
        }
    }
    config.warnings.extend(warnings);
}

/// Checks the config against the limits of the machine.
pub(super) fn machine(config: &mut Config) {
    bounds_strangers(config);
    // The gate raises its own limit to the hard one when it starts.
    let limit = descriptors::hard_limit();
    let most = FdBudget::within(limit).connections();
    // The default number gets no warning: the descriptor budget limits the connections anyway.
    let asked = config.limits.held != permit::Settings::default().held;
    if asked && config.limits.held > most {
        config.warnings.push(format!(
            "hold.max: {} held polls need as many open files, and the limit of {limit} leaves {most} \
             to clients; raise the limit (LimitNOFILE= in systemd, ulimit -Hn), or lower hold.max",
            config.limits.held
        ));
    }
}

/// Warns of a public listener on which one address may do as much as it likes.
fn bounds_strangers(config: &mut Config) {
    let Some(open) = config.listen.iter().find(|address| !address.is_local()) else { return };
    let limits = &config.limits;
    let none = [
        (limits.per_address == 0, "per_address", "hold all polls (hold.max)"),
        (limits.connections_per_second == 0, "connections_per_second", "take all connections"),
        (limits.requests_per_second == 0, "requests_per_second", "keep the gate and the site busy"),
    ];
    for (_, key, harm) in none.into_iter().filter(|(is_none, ..)| *is_none) {
        config.warnings.push(format!(
            "limits.{key}: 0 lets one address {harm}, and {open} is open to others than this \
             machine; leave it out for the default, or set a number"
        ));
    }
}

/// Reads the files that the config names; their faults are mistakes of the config.
pub(super) fn files(config: &mut Config, report: &Report) {
    if let Some(tls) = &config.tls {
        let files = [("tls.cert", tls.cert.as_path()), ("tls.key", tls.key.as_path())];
        config.identity = identity(files, &mut config.warnings, report);
    }
    if let Some(backplane) = config.backplane.as_mut().filter(|plane| plane.redis.is_tls()) {
        let shown = backplane.files.identity.as_ref().and_then(|(cert, key)| {
            let files = [("backplane.cert", cert.as_path()), ("backplane.key", key.as_path())];
            identity(files, &mut config.warnings, report)
        });
        match TlsClient::new(backplane.files.ca.as_deref(), shown.as_ref()) {
            Ok(tls) => backplane.tls = Some(tls),
            Err(message) => report.mistake("backplane.ca", message),
        }
    }
}

/// The certificate and key in the files that these keys of the config name.
pub(super) fn identity(
    [(cert_key, cert), (key_key, key)]: [(&str, &Path); 2],
    warnings: &mut Vec<String>,
    report: &Report,
) -> Option<Identity> {
    match Identity::read(cert, key) {
        Ok(identity) => {
            if identity.key_is_open {
                warnings.push(format!(
                    "{key_key}: every user of this machine can read {0}; chmod o-r {0}",
                    key.display()
                ));
            }
            Some(identity)
        }
        Err(wrong) => {
            for error in wrong {
                let of = match error {
                    IdentityError::Cert(_) => cert_key,
                    IdentityError::Key(_) => key_key,
                };
                report.mistake(of, error.to_string());
            }
            None
        }
    }
}

/// Refuses two apps of the same id, by which the site's requests name one; or of the same key, by
/// which its visitors do.
fn has_apps_apart(config: &Config, report: &Report) {
    let own = config.pusher.apps.iter().filter(|app| app.app.site.is_none());
    let own = own.enumerate().map(|(index, app)| (format!("pusher[{index}]"), &app.app));
    let of_sites = config.sites.iter().enumerate().flat_map(|(at, site)| {
        let named = move |index| format!("site[{at}].pusher[{index}]");
        site.pusher.iter().enumerate().map(move |(index, app)| (named(index), &app.app))
    });
    let apps: Vec<(String, &Arc<App>)> = own.chain(of_sites).collect();
    for (index, (place, app)) in apps.iter().enumerate() {
        let before = |is_same: &dyn Fn(&App) -> bool| {
            apps[..index].iter().find(|(_, one)| is_same(one)).map(|(place, _)| place)
        };
        let same_id = before(&|one| one.id == app.id);
        let same_key = before(&|one| one.key == app.key && one.site == app.site);
        for (key, same) in [("id", same_id), ("key", same_key)] {
            if let Some(before) = same {
                let message = format!("is that of {before}, too; each app has its own");
                report.mistake(&format!("{place}.{key}"), message);
            }
        }
    }
}

fn has_a_site(config: &Config, report: &Report) {
    if config.upstream.servers.is_empty() && config.sites.is_empty() {
        let message = "missing; name the site behind the gate, such as [\"127.0.0.1:8000\"], or \
                       pass --upstream";
        report.mistake("upstream.servers", message);
    }
}

fn has_a_token(config: &Config, report: &Report) {
    let open = config.internal.iter().find(|address| !address.is_local());
    if let Some(address) = open.filter(|_| config.token.is_empty()) {
        report.mistake(
            "publish.token",
            format!(
                "missing; everyone who can connect to the internal listener {address} could \
                 publish: set a token, or listen on loopback or a unix socket only"
            ),
        );
    }
}

fn has_addresses(key: &str, addresses: &[Address], report: &Report) {
    if addresses.is_empty() {
        report.mistake(key, "must name at least one address");
    }
    has_own_addresses(key, addresses, report);
}

fn has_own_addresses(key: &str, addresses: &[Address], report: &Report) {
    for (index, address) in addresses.iter().enumerate() {
        if is_fixed(address) && addresses[..index].contains(address) {
            report.mistake(&format!("{key}[{index}]"), format!("{address} is there twice"));
        }
    }
}

fn has_a_private_hook(config: &Config, report: &Report) {
    let public = |address: &&Address| is_fixed(address) && config.listen.contains(address);
    for address in config.internal.iter().filter(public) {
        let message = format!("{address} is in listen too; the hook must not be public");
        report.mistake("internal", message);
    }
}

fn redirects_elsewhere(config: &Config, report: &Report) {
    let Some(tls) = &config.tls else { return };
    has_own_addresses("tls.redirect", &tls.redirect, report);
    let taken = |address: &&Address| {
        is_fixed(address) && (config.listen.contains(address) || config.internal.contains(address))
    };
    for address in tls.redirect.iter().filter(taken) {
        let message = format!("{address} is in listen or internal too; plain HTTP needs its own");
        report.mistake("tls.redirect", message);
    }
    let over_tcp = |address: &Address| matches!(address, Address::Tcp { .. });
    if !tls.redirect.is_empty() && !config.listen.iter().any(over_tcp) {
        let message = "leads nowhere: listen names no host:port, and unix sockets have no TLS";
        report.mistake("tls.redirect", message);
    }
}

fn has_another_site(config: &Config, report: &Report) {
    let own =
        |address: &&Address| config.listen.contains(address) || config.internal.contains(address);
    for address in config.upstream.servers.iter().filter(own) {
        let message = format!("{address} is the gate itself; name the site behind it");
        report.mistake("upstream.servers", message);
    }
    for (at, site) in config.sites.iter().enumerate() {
        for address in site.upstream.servers.iter().filter(own) {
            let message = format!("{address} is the gate itself; name the site behind it");
            report.mistake(&format!("site[{at}].upstream.servers"), message);
        }
    }
}

/// A gate that shares its channels knows only those that its own clients wait on.
fn knows_its_channels(config: &Config, report: &Report) {
    for (index, rule) in config.routes.iter().enumerate() {
        if matches!(&rule.dialect, Dialect::Nchan(nchan) if nchan.existing_only) {
            let message = "a gate with a backplane does not know all channels; remove it";
            report.mistake(&format!("poll[{index}].existing_only"), message);
        }
    }
}

/// True if the address is the same each time; port 0 is another one for each listener.
fn is_fixed(address: &Address) -> bool {
    !matches!(address, Address::Tcp { port: 0, .. })
}
