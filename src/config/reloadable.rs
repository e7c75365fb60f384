//! The keys that a running gate can reload, and those that need a restart.

use super::read::report::Report;
use super::{Config, Mistakes, Site, checks};
use toml_edit::{Item, Table};

/// Carries the value of one key over, from the second config into the first.
type Carry = fn(&mut Config, &Config);

/// The keys that need a restart. All others change while the gate runs.
const FIXED: &[(&str, Carry)] = &[
    ("listen", |config, running| config.listen.clone_from(&running.listen)),
    ("internal", |config, running| config.internal.clone_from(&running.internal)),
    ("threads", |config, running| config.threads = running.threads),
    ("history.snapshot", |config, running| config.snapshot.file.clone_from(&running.snapshot.file)),
    ("backplane.redis", |config, running| config.backplane.clone_from(&running.backplane)),
    ("backplane.prefix", |config, running| config.backplane.clone_from(&running.backplane)),
    ("backplane.sentinel_password", |config, running| {
        config.backplane.clone_from(&running.backplane);
    }),
    ("backplane.ca", |config, running| config.backplane.clone_from(&running.backplane)),
    ("backplane.lease", |config, running| config.backplane.clone_from(&running.backplane)),
    ("backplane.cert", |config, running| config.backplane.clone_from(&running.backplane)),
    ("backplane.key", |config, running| config.backplane.clone_from(&running.backplane)),
    ("tls.redirect", |config, running| {
        if let (Some(tls), Some(running)) = (&mut config.tls, &running.tls) {
            tls.redirect.clone_from(&running.redirect);
        }
    }),
    ("upgrade.socket", |config, running| config.upgrade.clone_from(&running.upgrade)),
];

impl Config {
    /// Merges this config into a gate that runs with `running`: keys that need a restart keep their
    /// value there. Also returns those of them whose values differ here.
    ///
    /// The mixture is checked as a whole, since two valid configs can make an invalid one: a token
    /// may fit only the listener that it was for.
    pub fn taken_on_by(mut self, running: &Self, site: Site) -> Result<Live, Mistakes> {
        let mut restart = self.changes(running);
        restart.retain(|key| FIXED.iter().any(|(fixed, _)| key == fixed));
        if self.tls.is_some() != running.tls.is_some() {
            restart.retain(|key| !key.starts_with("tls."));
            restart.push("tls".to_owned());
            restart.sort();
            self.tls.clone_from(&running.tls);
            self.identity.clone_from(&running.identity);
            put(&mut self.effective, running.effective.get("tls"), "tls");
        }
        for (key, carry) in FIXED {
            carry(&mut self, running);
            carry_shown(&mut self.effective, &running.effective, key);
        }
        let report = Report::new(self.places.clone(), Vec::new());
        checks::across(&self, site, &report);
        if !report.is_empty() {
            let message = "takes a restart; what it is until then does not go with the rest";
            restart.iter().for_each(|key| report.mistake(key, message));
        }
        report.finish().map_or(Ok(Live { config: self, restart }), Err)
    }
}

/// See [`Config::taken_on_by`].
#[derive(Debug)]
pub struct Live {
    /// The config to activate.
    pub config: Config,
    /// The keys whose values differ in the file and need a restart; sorted.
    pub restart: Vec<String>,
}

/// Shows `key` with its value in `running`, for a key of the top or of a section.
fn carry_shown(shown: &mut Table, running: &Table, key: &str) {
    match key.split_once('.') {
        None => put(shown, running.get(key), key),
        Some((section, key)) => {
            let value = running.get(section).and_then(|section| section.get(key));
            if let Some(section) = shown.get_mut(section).and_then(Item::as_table_mut) {
                put(section, value, key);
            }
        }
    }
}

fn put(table: &mut Table, value: Option<&Item>, key: &str) {
    match value {
        Some(value) => table.insert(key, value.clone()),
        None => table.remove(key),
    };
}
