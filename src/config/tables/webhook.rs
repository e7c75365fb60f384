//! `[[webhook]]`: one receiver of events.

use super::auth::{http_url, is_printable, parse_url, secret_key};
use crate::config::read::section::Section;
use crate::config::read::{suggest, values};
use crate::hub::channel::SiteName;
use crate::protocol::auth::Url;
use crate::protocol::auth::secret::Secret;
use crate::server::net::tls_client::TlsClient;
use crate::server::webhook::{EventName, Settings};
use std::path::PathBuf;

/// Reads the webhooks of a site.
pub(in crate::config) fn webhooks(section: &mut Section, site: &SiteName) -> Vec<Settings> {
    section.tables("webhook", |section| webhook(section, site)).into_iter().flatten().collect()
}

/// True if one of them gets events about channels, with presence or not.
pub(in crate::config) fn want_occupancy(webhooks: &[Settings]) -> bool {
    webhooks.iter().flat_map(|one| &one.events).any(|event| event.is_occupancy())
}

/// `None` is a mistake.
fn webhook(section: &mut Section, site: &SiteName) -> Option<Settings> {
    let hint = "write the path of a script of the site, or http[s]://host[:port]/path";
    let url = section.required("url", hint, values::filled);
    let host = section.parsed("host", String::new(), host);
    let all = EventName::NAMES.map(|(_, event)| event).to_vec();
    let mut events = section.list("events", all, |text| suggest::one_of(&EventName::NAMES, text));
    events.dedup();
    if events.is_empty() && section.is_sound("events") {
        section.mistake("events", "must name at least one event");
    }
    let secret = section.secret("secret", |text| match text {
        "" => Ok(Secret::default()),
        text => secret_key(text),
    });
    let (url, tls) = receiver(section, ["url", "ca"], &url?)?;
    if matches!(url, Url::Absolute { .. }) && !host.is_empty() {
        section.mistake("host", "is for a path of the site; the URL has a host of its own");
    }
    Some(Settings { site: site.clone(), url, tls, host, events, secret, pusher: None })
}

/// The receiver at the URL that `keys` begin with; the other key names the authority that signed
/// its certificate. `None` is a mistake.
pub(super) fn receiver(
    section: &mut Section,
    [key, ca]: [&'static str; 2],
    url: &str,
) -> Option<(Url, Option<TlsClient>)> {
    let file = section.parsed(ca, String::new(), |text| Ok(text.to_owned()));
    let file = (!file.is_empty()).then(|| PathBuf::from(file));
    let Some(parsed) = is_printable(url).then(|| http_url(url, "https://", 443)).flatten() else {
        if file.is_some() {
            section.mistake(ca, "is for https://; nothing is encrypted to this URL");
        }
        return match parse_url(url) {
            Ok(url) => Some((url, None)),
            Err(message) => {
                section.mistake(key, message.replace("http://", "http[s]://"));
                None
            }
        };
    };
    match TlsClient::new(file.as_deref(), None) {
        Ok(tls) => Some((parsed, Some(tls))),
        Err(message) => {
            section.mistake(ca, message);
            None
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { values::host(text) }
}
