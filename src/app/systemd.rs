//! Notifies systemd of the gate's state, if `NOTIFY_SOCKET` is set. Without it nothing is sent.

use sd_notify::NotifyState;

/// The listeners are open: services that depend on the gate may start.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it, after a success or a failure.
pub(super) fn reloading() {
    // Some versions of systemd also require the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Another process is the gate from now on. This process must send it, because systemd accepts it
/// only from here, and before it ends, so that its end does not count as the gate's.
pub(super) fn moved_to(pid: u32) {
    notify(&[NotifyState::MainPid(pid)]);
}

/// The gate is shutting down, which may take a while.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
