//! `[backplane]`: the Redis that shares channels with other gates.

use crate::config::read::section::Section;
use crate::config::read::values;
use crate::server::backplane::{Kind, Settings, TlsFiles};
use std::path::PathBuf;
use std::time::Duration;

/// The default of `backplane.lease`.
const LEASE: Duration = Duration::from_secs(30);

/// `None` = channels are not shared.
pub(in crate::config) fn backplane(section: &mut Section) -> Option<Settings> {
    let redis = section.masked("redis", values::redis);
    let prefix = section.parsed("prefix", "pg".to_owned(), values::prefix);
    let sentinel_password = section.secret("sentinel_password", values::sentinel_password);
    let [ca, cert, key] = ["ca", "cert", "key"].map(|key| {
        let file = section.parsed(key, String::new(), |text| Ok(text.to_owned()));
        (!file.is_empty()).then(|| PathBuf::from(file))
    });
    let lease = section.some_duration("lease", LEASE);
    let unless = |is_wrong: bool, key: &str, message: &str| {
        if is_wrong {
            section.mistake(key, message);
        }
    };
    let lone = "goes with the other of cert and key; name both files or none";
    unless(cert.is_some() && key.is_none(), "cert", lone);
    unless(key.is_some() && cert.is_none(), "key", lone);
    if let Some(redis) = &redis {
        let is_sentinel = matches!(redis.kind(), Kind::Sentinel { .. });
        let message = "is for sentinels, and the URL names none; write Redis' password into it";
        unless(!is_sentinel && !sentinel_password.is_empty(), "sentinel_password", message);
        let message = "is for TLS, which the URL does not ask for; write rediss in place of redis";
        unless(!redis.is_tls() && ca.is_some(), "ca", message);
        unless(!redis.is_tls() && cert.is_some(), "cert", message);
    }
    let files = TlsFiles { ca, identity: cert.zip(key) };
    redis.map(|redis| {
        let settings = Settings::new(redis, prefix);
        Settings { sentinel_password, files, lease, ..settings }
    })
}
