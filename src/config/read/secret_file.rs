//! Secrets in files of their own: `token = { file = "/run/secrets/token" }`.
//!
//! The file is read whenever the config is, so a reload takes a new secret. A line end behind the
//! text is no part of it. No error shows what is in it.

use super::raw::{Raw, name};
use ::config::ValueKind;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

/// The longest file, in bytes; a public key in PEM has less than a tenth of it.
const MAX_BYTES: u64 = 64 << 10;

/// A secret, and what ought to be said of the file that it stands in.
pub(in crate::config) struct Found {
    pub(in crate::config) text: String,
    pub(in crate::config) warning: Option<String>,
}

/// The text of a secret, as it stands or in the file that is named.
pub(in crate::config) fn read(raw: Raw) -> Result<Found, String> {
    match raw.kind {
        ValueKind::String(text) => Ok(Found { text, warning: None }),
        ValueKind::Table(mut table) => {
            let file = table.remove("file").map(|value| value.kind);
            match (file, table.is_empty()) {
                (Some(ValueKind::String(path)), true) if !path.is_empty() => from_file(&path),
                _ => Err("must be text in quotes, or { file = \"/path/to/file\" }".to_owned()),
            }
        }
        other => Err(format!(
            "must be text in quotes, or {{ file = \"/path/to/file\" }}, not {}",
            name(&other)
        )),
    }
}

fn from_file(path: &str) -> Result<Found, String> {
    let wrong = |error: io::Error| format!("{path} cannot be read: {error}");
    let file = File::open(path).map_err(wrong)?;
    let about = file.metadata().map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{path} is longer than 64 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{path} is no UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() {
        return Err(format!("{path} is empty"));
    }
    let warning = (about.mode() & 0o004 != 0)
        .then(|| format!("every user of this machine can read {path}; chmod o-r {path}"));
    Ok(Found { text, warning })
}
