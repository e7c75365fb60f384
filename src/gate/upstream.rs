//! The site behind the gate.

use crate::address::Address;
use std::time::Duration;

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The site's servers.
    pub servers: Vec<Address>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the site may be silent.
    pub read_timeout: Duration,
}
