//! What single keys cannot tell: combinations that must not start.

use super::report::Report;
use super::{Config, Site};
use crate::address::Address;

/// Looks at the whole. Values that are mistakes already are left out, so that one slip is told
/// once.
pub(super) fn across(config: &Config, site: Site, report: &Report) {
    let sound = |paths: &[&str]| report.is_sound(paths);
    if sound(&["upstream.servers"]) && site == Site::Configured {
        has_a_site(config, report);
    }
    if sound(&["internal", "publish.token"]) {
        has_a_token(config, report);
    }
    if sound(&["listen"]) {
        has_own_addresses("listen", &config.listen, report);
    }
    if sound(&["internal"]) {
        has_own_addresses("internal", &config.internal, report);
    }
    if sound(&["listen", "internal"]) {
        has_a_private_hook(config, report);
    }
    if sound(&["listen", "internal", "upstream.servers"]) && site == Site::Configured {
        has_another_site(config, report);
    }
}

fn has_a_site(config: &Config, report: &Report) {
    if config.upstream.servers.is_empty() {
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
                "missing; whoever reaches the internal listener {address} could publish: set a \
                 token, or listen on loopback or a unix socket only"
            ),
        );
    }
}

fn has_own_addresses(key: &str, addresses: &[Address], report: &Report) {
    if addresses.is_empty() {
        report.mistake(key, "must name at least one address");
    }
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

fn has_another_site(config: &Config, report: &Report) {
    let own =
        |address: &&Address| config.listen.contains(address) || config.internal.contains(address);
    for address in config.upstream.servers.iter().filter(own) {
        let message = format!("{address} is the gate itself; name the site behind it");
        report.mistake("upstream.servers", message);
    }
}

/// Whether the address is the same each time; port 0 is another one for each listener.
fn is_fixed(address: &Address) -> bool {
    !matches!(address, Address::Tcp { port: 0, .. })
}
