//! The kernel's queue of signs (inotify(7)).
//!
//! `nix` is used for it as it is at hand already (the proxy engine stands on it) and hands the
//! kernel's own events through: which of them a write causes is what this module is about, and a
//! library over several systems folds them together.

use super::file::Sign;
use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

pub(super) type Wd = WatchDescriptor;

/// What came out of the queue.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// Of the entry `name` of a watched directory; how many had been told of before.
    Entry { wd: Wd, name: OsString, sign: Sign, number: u64 },
    /// The watched directory itself was moved, deleted or unmounted.
    Folder(Wd),
    /// The queue ran over some time after `since`; signs are lost.
    Lost { since: SystemTime },
}

pub(super) struct Queue {
    inotify: Inotify,
    fetched: VecDeque<InotifyEvent>,
    /// How many have been taken out of `fetched`.
    taken: u64,
    /// How often a fetched event says of an entry that its content is not what it was.
    ahead: HashMap<(Wd, OsString), u32>,
    /// When the queue was last seen empty.
    drained: SystemTime,
}

impl Queue {
    /// Events fetched at the most. What is beyond stays with the kernel, which has a bound of
    /// its own (fs.inotify.max_queued_events) and says when that was not enough.
    const MAX: usize = 32 * 1024;

    pub(super) fn new() -> Result<Self, Errno> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (fetched, ahead) = Default::default();
        Ok(Self { inotify, fetched, taken: 0, ahead, drained: SystemTime::now() })
    }

    /// A descriptor to wait for.
    pub(super) fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// Watches the directory that is at `folder` now; the same directory gets the same answer.
    pub(super) fn watch(&self, folder: &Path) -> Result<Wd, Errno> {
        use AddWatchFlags as F;
        let signs = F::IN_CREATE
            | F::IN_MODIFY
            | F::IN_CLOSE_WRITE
            | F::IN_ATTRIB
            | F::IN_MOVED_TO
            | F::IN_MOVED_FROM
            | F::IN_DELETE
            | F::IN_DELETE_SELF
            | F::IN_MOVE_SELF;
        self.add(folder, signs)
    }

    /// Watches a directory for what appears in it.
    pub(super) fn watch_for_entries(&self, folder: &Path) -> Result<Wd, Errno> {
        self.add(folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
    }

    fn add(&self, folder: &Path, signs: AddWatchFlags) -> Result<Wd, Errno> {
        // A directory may be watched for two reasons, so signs are only added. What is deleted
        // and still open elsewhere is no longer what its name stands for.
        let how = libc::IN_MASK_ADD | libc::IN_EXCL_UNLINK | libc::IN_ONLYDIR;
        self.inotify.add_watch(folder, signs | AddWatchFlags::from_bits_retain(how))
    }

    pub(super) fn unwatch(&self, wd: Wd) {
        // The kernel may have removed it by itself.
        let _ = self.inotify.rm_watch(wd);
    }

    /// Fetches what has been told so far; whether that is all of it.
    pub(super) fn fetch(&mut self) -> bool {
        while self.fetched.len() < Self::MAX {
            let now = SystemTime::now();
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        self.note(&event, 1);
                        self.fetched.push_back(event);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => {
                    // EAGAIN; nothing else is known to happen.
                    if self.fetched.is_empty() {
                        self.drained = now;
                    }
                    return true;
                }
            }
        }
        false
    }

    /// How many were fetched so far: what a file looks like now is the outcome of all of these.
    pub(super) fn known(&self) -> u64 {
        self.taken + self.fetched.len() as u64
    }

    /// Whether something was fetched and not yet dealt with.
    pub(super) fn has_fetched(&self) -> bool {
        !self.fetched.is_empty()
    }

    /// The oldest that was fetched.
    pub(super) fn next(&mut self) -> Option<WatchEvent> {
        loop {
            let event = self.fetched.pop_front()?;
            self.note(&event, -1);
            let number = self.taken;
            self.taken += 1;
            if let Some(told) = self.told(event, number) {
                return Some(told);
            }
        }
    }

    /// Whether what was fetched says of an entry that its content is not what it was.
    pub(super) fn is_ahead(&self, wd: Wd, name: &OsStr) -> bool {
        !self.ahead.is_empty() && self.ahead.contains_key(&(wd, name.to_owned()))
    }

    fn note(&mut self, event: &InotifyEvent, change: i32) {
        use AddWatchFlags as F;
        let content =
            F::IN_MODIFY | F::IN_CREATE | F::IN_MOVED_TO | F::IN_MOVED_FROM | F::IN_DELETE;
        let Some(name) = event.name.as_ref().filter(|_| event.mask.intersects(content)) else {
            return;
        };
        let key = (event.wd, name.clone());
        let count = self.ahead.entry(key).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.ahead.remove(&(event.wd, name.clone()));
        }
    }

    fn told(&self, event: InotifyEvent, number: u64) -> Option<WatchEvent> {
        use AddWatchFlags as F;
        let (wd, mask) = (event.wd, event.mask);
        if mask.contains(F::IN_Q_OVERFLOW) {
            return Some(WatchEvent::Lost { since: self.drained });
        }
        let Some(name) = event.name else {
            let ended = F::IN_DELETE_SELF | F::IN_MOVE_SELF | F::IN_UNMOUNT | F::IN_IGNORED;
            return mask.intersects(ended).then_some(WatchEvent::Folder(wd));
        };
        let sign = match mask {
            _ if mask.contains(F::IN_CREATE) => Sign::Created,
            _ if mask.contains(F::IN_MOVED_TO) => Sign::MovedIn,
            _ if mask.contains(F::IN_MODIFY) => Sign::Modified,
            _ if mask.contains(F::IN_CLOSE_WRITE) => Sign::Closed,
            _ if mask.contains(F::IN_ATTRIB) => Sign::Attributes,
            _ if mask.intersects(F::IN_DELETE | F::IN_MOVED_FROM) => Sign::Gone,
            _ => return None,
        };
        Some(WatchEvent::Entry { wd, name, sign, number })
    }
}
