//! Tells whoever supervises the process how far it is: systemd, where `NOTIFY_SOCKET` says so.
//! Without it nothing is told, and nobody misses it.

use sd_notify::NotifyState;

/// The listeners are open: what depends on the gate may start.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The gate is ending, and takes its time over it.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
