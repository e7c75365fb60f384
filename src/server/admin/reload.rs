//! `POST /reload`.

use crate::protocol::http::Reply;
use serde::Serialize;
use serde_json::json;
use std::future::Future;
use std::pin::Pin;

/// Reads the config again, and puts it in force if it is good.
pub type Reload = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Reloading> + Send>> + Send + Sync>;

/// The result of a reload; an error has all mistakes, and nothing has changed.
pub type Reloading = Result<Reloaded, Vec<Mistake>>;

/// A config that came into force.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Reloaded {
    /// Number of configs that have come into force, the first included.
    pub generation: u64,
    /// The keys that have other values now.
    pub changed: Vec<String>,
    /// The keys with other values in the config that take a restart.
    pub restart: Vec<String>,
}

/// One mistake in a config.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Mistake {
    /// The key, with dots; empty if the file is not even TOML.
    pub key: String,
    /// The line in the file, from 1; `None` for a value from elsewhere.
    pub line: Option<usize>,
    /// The problem, and its remedy.
    pub message: String,
}

/// The response to a reload.
pub(super) fn answer(reloading: Reloading) -> Reply {
    match reloading {
        Ok(reloaded) => Reply::json(200, &reloaded),
        Err(mistakes) => {
            let error = "the config has mistakes; nothing has changed";
            let hint = "mend them and reload again; `pollgate check` tells whether it is good";
            Reply::json(422, &json!({ "error": error, "hint": hint, "mistakes": mistakes }))
        }
    }
}
