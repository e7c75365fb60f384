//! `[[webhook]]`: one receiver of events.

use super::auth::{parse_url, secret_key};
use crate::config::read::section::Section;
use crate::config::read::{suggest, values};
use crate::protocol::auth::Url;
use crate::protocol::auth::secret::Secret;
use crate::server::webhook::{EventName, Settings};

/// Reads a webhook; `None` is a mistake.
pub(in crate::config) fn webhook(section: &mut Section) -> Option<Settings> {
    let hint = "write the path of a script of the site, or http://host[:port]/path";
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
    let url = match parse_url(&url?) {
        Ok(url) => url,
        Err(message) => {
            section.mistake("url", message);
            return None;
        }
    };
    if matches!(url, Url::Absolute { .. }) && !host.is_empty() {
        section.mistake("host", "is for a path of the site; the URL has a host of its own");
    }
    Some(Settings { url, host, events, secret, pusher: None })
}

fn host(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { values::host(text) }
}
