//! The budget of file descriptors of the public side, so that clients cannot take those that the
//! internal side, the site and the gate itself need.
//!
//! Each connection of a client takes a descriptor, and each request under way to the upstream takes
//! another one. New connections are refused a little before forwarding is, so that existing ones
//! can still be served.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of files that this process may have open now.
pub fn soft_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number up to which this process may raise that.
pub fn hard_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit of open files to the hard one.
pub fn raise_limit() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Counts the files of the public side.
#[derive(Debug)]
pub struct FdBudget {
    /// For connections alone, and for both together.
    connections: usize,
    all: usize,
    used: AtomicUsize,
}

/// Purpose of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FdKind {
    /// A client's connection.
    Connection,
    /// A request to the upstream.
    Site,
}

impl FdBudget {
    /// The public side's share of `limit`, the process's limit of open files. An eighth of it,
    /// within bounds, is reserved for everything else.
    pub fn within(limit: u64) -> Self {
        let (limit, kept) = (usize::try_from(limit).unwrap_or(usize::MAX), kept(limit));
        let all = limit.saturating_sub(kept);
        let connections = all.saturating_sub((limit / 16).min(1024));
        // Under a limit that low the gate uses what it can get.
        Self { connections: connections.max(16), all: all.max(32), used: AtomicUsize::new(0) }
    }

    /// Number of clients that can be connected while nothing is under way to the upstream.
    pub fn connections(&self) -> usize {
        self.connections
    }

    pub(crate) fn open(&self, wanted: FdKind) -> bool {
        let most = match wanted {
            FdKind::Connection => self.connections,
            FdKind::Site => self.all,
        };
        let open = self.used.fetch_add(1, Ordering::Relaxed) < most;
        if !open {
            self.close();
        }
        open
    }

    pub(crate) fn close(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The part of that limit of open files reserved for everything but the public side.
fn kept(limit: u64) -> usize {
    64 + usize::try_from(limit / 8).unwrap_or(usize::MAX).min(4096)
}

/// Upper bound of the internal side's connections under that limit of open files: half of the
/// reserve.
pub fn internal(limit: u64) -> usize {
    kept(limit) / 2
}

/// Idle connections to the upstream that are kept under that limit of open files.
pub fn most_idle(limit: u64) -> usize {
    usize::try_from(limit / 16).unwrap_or(usize::MAX).min(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_site_and_both_for_the_rest() {
        for (limit, connections, all) in
            [(300, 181, 199), (1024, 768, 832), (1 << 20, 1_043_392, 1_044_416)]
        {
            let files = FdBudget::within(limit);
            assert_eq!((files.connections, files.all), (connections, all), "{limit}");
        }
        let files = FdBudget::within(300);
        assert!(
            (0..181).all(|_| files.open(FdKind::Connection)) && !files.open(FdKind::Connection)
        );
        assert!((0..18).all(|_| files.open(FdKind::Site)) && !files.open(FdKind::Site));
        files.close();
        assert!(!files.open(FdKind::Connection) && files.open(FdKind::Site));
    }
}
