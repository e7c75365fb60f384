//! GRIP: the site's responses say which requests are held, and publishes release them.
//!
//! The request is forwarded as any other. A response that is an instruction is withheld from the
//! client ([`withheld`]); once the site is done with the request, the hold is served on the same
//! connection: a response until an item is one ([`response`]), a stream until either side ends it
//! ([`stream`]). WebSockets become requests, where the config says so ([`socket`]). No PHP, no
//! connection to the site and no thread stay with a hold.
//!
//! A hold's place in its channels is the hub's. Where the site names the last item it knows, the
//! channel's history finds what came after it, and the site is asked again only if the history
//! cannot place that item.

mod hold;
mod items;
pub(in crate::server::gate) mod origin;
mod response;
pub mod socket;
mod stream;
mod subscription;
pub(in crate::server::gate) mod withheld;

pub use hold::Held;

use crate::protocol::grip::FEATURES;
use crate::protocol::grip::sign::Signer;
use crate::protocol::http::path::PathPattern;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// `[grip]`, where it is enabled.
#[derive(Debug)]
pub struct Settings {
    /// Signs what the site gets; `None` = nothing is signed.
    pub signer: Option<Signer>,
    /// The paths whose WebSockets become requests to the site.
    pub websocket: Vec<PathPattern>,
    /// The token in use, and the minute in which it was made.
    token: Mutex<(u64, Arc<str>)>,
    /// Requests of the gate's own at the site.
    asking: Semaphore,
}

/// Requests of the gate's own that are at the site at once.
const AT_ONCE: usize = 16;

impl Settings {
    /// Time that a token is good for, in seconds.
    const TOKEN_TTL: u64 = 3600;

    /// Settings with this signer and these paths.
    pub fn new(signer: Option<Signer>, websocket: Vec<PathPattern>) -> Self {
        let token = Mutex::new((0, Arc::from("")));
        let asking = Semaphore::new(AT_ONCE);
        Self { signer, websocket, token, asking }
    }

    /// The headers by which the site knows the gate.
    pub(in crate::server::gate) fn headers(
        &self,
    ) -> impl Iterator<Item = (&'static str, Arc<str>)> {
        let feature = ("Grip-Feature", Arc::from(FEATURES));
        self.token().map(|token| ("Grip-Sig", token)).into_iter().chain([feature])
    }

    fn token(&self) -> Option<Arc<str>> {
        let signer = self.signer.as_ref()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut token = self.token.lock();
        let minute = now / 60;
        if token.0 != minute {
            *token = (minute, signer.token(now + Self::TOKEN_TTL).into());
        }
        Some(token.1.clone())
    }
}
