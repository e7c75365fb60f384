//! `[[pusher]]`: one app.

use super::webhook::receiver;
use crate::config::read::section::Section;
use crate::config::read::{suggest, values};
use crate::hub::channel::{Pattern, SiteName};
use crate::hub::presence::Rules;
use crate::protocol::auth::secret::Secret;
use crate::protocol::pusher::channel::USER_PREFIX;
use crate::protocol::pusher::{App, Signer};
use crate::server::gate::pusher::PusherApp;
use crate::server::webhook::{EventName, Settings as Webhook};
use std::sync::Arc;
use std::time::Duration;

/// Reads the apps of a site, and their webhooks.
pub(in crate::config) fn apps(
    section: &mut Section,
    site: &SiteName,
) -> (Vec<Arc<PusherApp>>, Vec<Webhook>) {
    let read = section.tables("pusher", |section| app(section, site));
    let (apps, webhooks): (Vec<_>, Vec<_>) = read.into_iter().flatten().unzip();
    (apps, webhooks.into_iter().flatten().collect())
}

/// Reads an app, and its webhook if it has one; `None` is a mistake.
fn app(section: &mut Section, site: &SiteName) -> Option<(Arc<PusherApp>, Option<Webhook>)> {
    let hint = "write the app's id, PUSHER_APP_ID of the site";
    let id = section.required("id", hint, |text| word(text, App::MAX_ID));
    let hint = "write the app's key, PUSHER_APP_KEY of the site";
    let key = section.required("key", hint, |text| word(text, 128));
    let secret = section.secret("secret", secret);
    if secret.is_empty() && section.is_sound("secret") {
        section.mistake("secret", "missing; write the app's secret, PUSHER_APP_SECRET of the site");
    }
    let client_events = section.flag("client_events", false);
    let origins = section.list("origins", vec!["*".to_owned()], values::origin);
    let max_event = section.size("max_event", 10 << 10, 1);
    let activity_timeout = section.duration("activity_timeout", Duration::from_secs(30));
    let ping = section.duration("ping", Duration::from_secs(60));
    for (name, duration) in [("activity_timeout", activity_timeout), ("ping", ping)] {
        if duration.is_zero() {
            section.mistake(name, "must not be 0: it is how a dead connection is found");
        }
    }
    let webhook = section.parsed("webhook", String::new(), |text| Ok(text.to_owned()));
    let usual = EventName::NAMES.map(|(_, event)| event).to_vec();
    let known = &EventName::OF_PUSHER;
    let mut events = section.list("webhook_events", usual, |text| suggest::one_of(known, text));
    events.dedup();
    if events.is_empty() && section.is_sound("webhook_events") {
        section.mistake("webhook_events", "must name at least one event");
    }
    let subscription_count = section.flag("subscription_count", false);
    if events.contains(&EventName::SubscriptionCount) && !subscription_count {
        let error = "subscription_count needs subscription_count = true in the same app";
        section.mistake("webhook_events", error);
    }
    let watchlists = section.flag("watchlists", false);
    let keys = ["webhook", "webhook_ca"];
    // An empty one, too, so that its keys are known.
    let webhook = match webhook.is_empty() {
        true => receiver(section, keys, "/").and(None),
        false => receiver(section, keys, &webhook),
    };
    let app = App {
        site: site.clone(),
        id: id?.into(),
        key: key?.into(),
        signer: Signer::new(secret),
        client_events,
        origins,
        max_event: usize::try_from(max_event).unwrap_or(usize::MAX),
    };
    let app = Arc::new(app);
    let webhook = webhook.map(|(url, tls)| Webhook {
        site: site.clone(),
        url,
        tls,
        host: String::new(),
        events,
        secret: Secret::default(),
        pusher: Some(app.clone()),
    });
    let app = PusherApp { app, activity_timeout, ping, subscription_count, watchlists };
    Some((Arc::new(app), webhook))
}

/// The presence of the apps' channels: on where the protocol has it, with the settings of the first
/// of the config's own rules that would have been for them.
pub(in crate::config) fn presence(apps: &[Arc<PusherApp>], rules: &mut Rules) {
    let of = |(app, beginning): (&Arc<PusherApp>, &str)| {
        let name = format!("{}/{beginning}", app.app.id);
        let found =
            rules.channels.iter().find(|(pattern, one)| one.is_some() && pattern.matches(&name));
        let settings = found.and_then(|(_, one)| one.clone()).unwrap_or_default();
        Some((Pattern::new(&format!("{name}*"))?, Some(settings)))
    };
    let rooms = apps.iter().map(|app| (app, "presence-"));
    let users = apps.iter().filter(|app| app.watchlists).map(|app| (app, USER_PREFIX));
    let own: Vec<_> = rooms.chain(users).filter_map(of).collect();
    rules.channels.splice(0..0, own);
}

/// What can stand in a path as it is.
fn word(text: &str, most: usize) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > most || !text.bytes().all(known) {
        return Err(format!("\"{text}\" must be 1 to {most} of A-Z a-z 0-9 - _ ."));
    }
    Ok(text.to_owned())
}

/// An app's secret. Errors do not show it.
fn secret(text: &str) -> Result<Secret, String> {
    if text == values::MASK {
        return Err(format!(
            "\"{}\" is what `pollgate check` shows in place of a secret; write the secret",
            values::MASK
        ));
    }
    Ok(Secret::new(text))
}
