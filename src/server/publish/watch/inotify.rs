//! The kernel's queue of file events (inotify(7)).
//!
//! The kernel's own events are read, through `rustix`: this module is about which of them a write
//! causes, and a library over several systems folds them together.

use super::file::Sign;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// The kernel's number for a watched directory.
pub(super) type Wd = i32;

/// One event as the kernel reports it.
struct InotifyEvent {
    wd: Wd,
    mask: ReadFlags,
    name: Option<OsString>,
}

/// An event out of the queue.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// An event of the entry `name` of a watched directory; `number` events came before it.
    Entry { wd: Wd, name: OsString, sign: Sign, number: u64 },
    /// The watched directory itself was moved, deleted or unmounted.
    Folder(Wd),
    /// The queue ran over some time after `since`; events are lost.
    Lost { since: SystemTime },
}

pub(super) struct Queue {
    inotify: OwnedFd,
    fetched: VecDeque<InotifyEvent>,
    /// Number of events taken out of `fetched`.
    taken: u64,
    /// Number of fetched events by which an entry's content has changed.
    ahead: HashMap<(Wd, OsString), u32>,
    /// Time at which the queue was last seen empty.
    drained: SystemTime,
}

impl Queue {
    /// Upper bound of fetched events. More stay with the kernel, which has a bound of its own
    /// (fs.inotify.max_queued_events) and reports when that was not enough.
    const MAX: usize = 32 * 1024;

    pub(super) fn new() -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let (fetched, ahead) = Default::default();
        Ok(Self { inotify, fetched, taken: 0, ahead, drained: SystemTime::now() })
    }

    /// A descriptor to wait for.
    pub(super) fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.inotify.try_clone()
    }

    /// Watches the directory that is at `folder` now; the same directory gets the same descriptor.
    pub(super) fn watch(&self, folder: &Path) -> Result<Wd, Errno> {
        use WatchFlags as F;
        let signs = F::CREATE
            | F::MODIFY
            | F::CLOSE_WRITE
            | F::ATTRIB
            | F::MOVED_TO
            | F::MOVED_FROM
            | F::DELETE
            | F::DELETE_SELF
            | F::MOVE_SELF;
        self.add(folder, signs)
    }

    /// Watches a directory for new entries.
    pub(super) fn watch_for_entries(&self, folder: &Path) -> Result<Wd, Errno> {
        self.add(folder, WatchFlags::CREATE | WatchFlags::MOVED_TO)
    }

    fn add(&self, folder: &Path, signs: WatchFlags) -> Result<Wd, Errno> {
        // A directory may be watched for two reasons, so signs are only added. What is deleted
        // and still open elsewhere is no longer what its name stands for.
        let how = WatchFlags::MASK_ADD | WatchFlags::EXCL_UNLINK | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.inotify, folder, signs | how)
    }

    pub(super) fn unwatch(&self, wd: Wd) {
        // The kernel may have removed it by itself.
        let _ = inotify::remove_watch(&self.inotify, wd);
    }

    /// Fetches the events so far. Returns true if those are all.
    pub(super) fn fetch(&mut self) -> bool {
        while self.fetched.len() < Self::MAX {
            let now = SystemTime::now();
            match self.read() {
                Ok(()) | Err(Errno::INTR) => {}
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

    /// Reads as many events as fit one buffer.
    fn read(&mut self) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            let event = reader.next()?;
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            events.push(InotifyEvent { wd: event.wd(), mask: event.events(), name });
            if reader.is_buffer_empty() {
                break;
            }
        }
        for event in events {
            self.note(&event, 1);
            self.fetched.push_back(event);
        }
        Ok(())
    }

    /// Number of events fetched so far: a file's current state is the outcome of all of these.
    pub(super) fn known(&self) -> u64 {
        self.taken + self.fetched.len() as u64
    }

    /// True if fetched events are still to be handled.
    pub(super) fn has_fetched(&self) -> bool {
        !self.fetched.is_empty()
    }

    /// The oldest fetched event.
    pub(super) fn next(&mut self) -> Option<WatchEvent> {
        loop {
            let event = self.fetched.pop_front()?;
            self.note(&event, -1);
            let number = self.taken;
            self.taken += 1;
            if let Some(event) = self.watch_event(event, number) {
                return Some(event);
            }
        }
    }

    /// True if a fetched event has changed an entry's content.
    pub(super) fn is_ahead(&self, wd: Wd, name: &OsStr) -> bool {
        !self.ahead.is_empty() && self.ahead.contains_key(&(wd, name.to_owned()))
    }

    fn note(&mut self, event: &InotifyEvent, change: i32) {
        use ReadFlags as F;
        let content = F::MODIFY | F::CREATE | F::MOVED_TO | F::MOVED_FROM | F::DELETE;
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

    fn watch_event(&self, event: InotifyEvent, number: u64) -> Option<WatchEvent> {
        use ReadFlags as F;
        let wd = event.wd;
        let mask = event.mask;
        if mask.contains(F::QUEUE_OVERFLOW) {
            return Some(WatchEvent::Lost { since: self.drained });
        }
        let Some(name) = event.name else {
            let ended = F::DELETE_SELF | F::MOVE_SELF | F::UNMOUNT | F::IGNORED;
            return mask.intersects(ended).then_some(WatchEvent::Folder(wd));
        };
        let sign = match mask {
            _ if mask.contains(F::CREATE) => Sign::Created,
            _ if mask.contains(F::MOVED_TO) => Sign::MovedIn,
            _ if mask.contains(F::MODIFY) => Sign::Modified,
            _ if mask.contains(F::CLOSE_WRITE) => Sign::Closed,
            _ if mask.contains(F::ATTRIB) => Sign::Attributes,
            _ if mask.intersects(F::DELETE | F::MOVED_FROM) => Sign::Gone,
            _ => return None,
        };
        Some(WatchEvent::Entry { wd, name, sign, number })
    }
}
