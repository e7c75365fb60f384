//! Tells whoever supervises the process how far it is: systemd, where `NOTIFY_SOCKET` says so.
//! Without it nothing is told, and nobody misses it.

use sd_notify::NotifyState;

/// The listeners are open: what depends on the gate may start.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The config is being read again; [`ready`] says that this is over, however it came out.
pub(super) fn reloading() {
    // Of some versions of systemd the time is asked, too.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Another process is the gate from now on. To be said by this one, which is believed, and before
/// it ends, so that its end is not taken for the gate's.
pub(super) fn moved_to(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
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
