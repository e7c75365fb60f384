//! A config as TOML again: every key with the value that is in effect.

use super::{Config, SiteConfig};
use std::collections::BTreeMap;
use toml_edit::{DocumentMut, Item, Table};

impl Config {
    /// The whole config as TOML, secrets as `"***"`. Reading it again gives the same config, except
    /// that a masked token is refused; set it in the environment then.
    pub fn to_toml(&self) -> String {
        let mut document = DocumentMut::new();
        *document.as_table_mut() = self.effective.clone();
        let mut text = document.to_string();
        if self.routes.is_empty() && self.sites.is_empty() {
            text.push_str(
                "\n# No [[poll]]: polls are /comet/* (native), /comet?subscribed[...] (novcomet)\n\
                 # and /comet?channel=...&timestamp=... (timestamp).\n",
            );
        }
        text
    }

    /// The keys whose values differ in `other`, sorted: `hold.timeout`; for a list only its name,
    /// `poll`.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let ours = flat(&self.effective);
        let theirs = flat(&other.effective);
        let keys = ours.keys().chain(theirs.keys());
        let mut changed: Vec<String> =
            keys.filter(|key| ours.get(*key) != theirs.get(*key)).cloned().collect();
        let auth = |config: &Self| -> Vec<_> {
            config.routes.iter().map(|rule| rule.auth.clone()).collect()
        };
        // Secrets are masked in the table, so they are compared here.
        if auth(self) != auth(other) {
            changed.push("poll".to_owned());
        }
        if self.site_secrets() != other.site_secrets() {
            changed.push("site".to_owned());
        }
        if self.token != other.token {
            changed.push("publish.token".to_owned());
        }
        if self.backplane != other.backplane {
            changed.push("backplane.redis".to_owned());
        }
        let grip = [
            ("grip.key", &self.grip.key, &other.grip.key),
            ("grip.control_key", &self.grip.control_key, &other.grip.control_key),
        ];
        let grip = grip.into_iter().filter(|(_, ours, theirs)| ours != theirs);
        changed.extend(grip.map(|(key, ..)| key.to_owned()));
        // The same files may hold another certificate now.
        if self.identity != other.identity && self.tls == other.tls {
            changed.push("tls.cert".to_owned());
        }
        changed.sort();
        changed.dedup();
        changed
    }
}

impl Config {
    /// What of the sites is masked in the table, or in files that may hold something else now.
    fn site_secrets(&self) -> Vec<impl PartialEq> {
        let of = |site: &SiteConfig| {
            let auth: Vec<_> = site.routes.iter().map(|rule| rule.auth.clone()).collect();
            let hooks = (site.webhooks.clone(), site.pusher.clone(), site.mercure.clone());
            let hooks = (hooks, site.grip.clone());
            (site.token.clone(), site.identity.clone(), auth, hooks)
        };
        self.sites.iter().map(of).collect()
    }
}

/// Keys with dots and their values as TOML.
fn flat(root: &Table) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (name, item) in root {
        match item {
            Item::Table(section) => values.extend(
                section.iter().map(|(key, item)| (format!("{name}.{key}"), item.to_string())),
            ),
            Item::ArrayOfTables(tables) => {
                let shown = tables.iter().map(|table| format!("[]\n{table}")).collect();
                values.insert(name.to_owned(), shown);
            }
            item => {
                values.insert(name.to_owned(), item.to_string());
            }
        }
    }
    values
}
