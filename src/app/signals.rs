//! The signals of the process. The gate listens for them before it announces its addresses, so that
//! a signal that comes right then takes effect once the gate runs.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// One stream per signal.
pub(super) struct Signals {
    pub(super) end: EndSignals,
    /// SIGHUP: reload.
    pub(super) hangup: Signal,
    /// SIGUSR2: start the binary again, to take over.
    pub(super) renew: Signal,
}

/// SIGTERM and SIGINT.
pub(super) struct EndSignals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        // Registering needs a runtime, but only for that moment.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        let end = EndSignals::listen()?;
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { end, hangup, renew: signal(SignalKind::user_defined2())? })
    }
}

impl EndSignals {
    /// Listens from now on; call this on a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for either of the two.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
