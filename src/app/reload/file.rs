//! Watches the config file.
//!
//! It watches the folders of the file, not the file itself: editors and deployments put a new file
//! in the place of the old one. An event there only triggers a check.

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

/// The file is checked after no event around it for this long, since it may still be being written.
const QUIET: Duration = Duration::from_millis(250);
/// In folders that are never quiet it is checked after this long.
const MAX_LENGTH: Duration = Duration::from_secs(1);
/// A file that a program keeps open for writing is checked after this long.
const MAX_OPEN: Duration = Duration::from_secs(10);
/// Interval in which the file is compared with what it was: for folders that are replaced
/// themselves, and file systems that report no events.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// See the [module](self).
pub(super) struct ConfigFile {
    path: Option<PathBuf>,
    watched: Option<Watched>,
    /// The file at the latest look, and at the latest check.
    seen: Option<Mark>,
    checked: Option<Mark>,
}

/// Tells a version of a file from others: its real path, device, inode, time and length.
type Mark = (PathBuf, u64, u64, (i64, i64), u64);

fn mark(path: &Path) -> Option<Mark> {
    let real = path.canonicalize().ok()?;
    let file = path.metadata().ok()?;
    Some((real, file.dev(), file.ino(), (file.mtime(), file.mtime_nsec()), file.len()))
}

/// A folder and its inode: another folder may take its place.
type Folder = (PathBuf, u64);

struct Watched {
    folders: Vec<Folder>,
    /// Ends the watching when dropped.
    _watcher: RecommendedWatcher,
    stirred: Arc<Notify>,
    /// A program writes to the file and has not closed it yet.
    open: Arc<AtomicBool>,
    /// When the first event came that was not handled yet.
    unseen: Option<Instant>,
}

impl ConfigFile {
    /// A file that is not watched yet; without a path none can be watched.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        let seen = path.as_deref().and_then(mark);
        Self { path, watched: None, checked: seen.clone(), seen }
    }

    /// Starts or stops watching the file. A change before the start counts too.
    pub(super) fn watch(&mut self, wanted: bool) {
        let Some(path) = self.path.as_ref().filter(|_| wanted) else {
            self.watched = None;
            return;
        };
        let folders = folders(path);
        if self.watched.as_ref().is_none_or(|watched| watched.folders != folders) {
            let watched = Watched::new(path, folders);
            let failed = |error| tracing::error!(%error, "cannot watch the config file");
            self.watched = watched.map_err(failed).ok();
        }
    }

    /// Waits for a reason to check the file; never returns while it is not watched. Cancelling
    /// loses nothing.
    pub(super) async fn stirred(&mut self) {
        let (Some(watched), Some(path)) = (&mut self.watched, &self.path) else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                () = watched.settle() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            // It must be the same at two looks, as it may be half written at one of them.
            let now = mark(path);
            let open = watched.open.load(Ordering::Relaxed);
            if now == self.seen && now != self.checked && !open {
                self.checked = now;
                return;
            }
            self.seen = now;
        }
    }
}

impl Watched {
    fn new(path: &Path, folders: Vec<Folder>) -> notify::Result<Self> {
        let stirred = Arc::new(Notify::new());
        let open = Arc::new(AtomicBool::new(false));
        let stir = stirred.clone();
        let opened = open.clone();
        let real = path.canonicalize().ok();
        let names =
            [Some(path), real.as_deref()].map(|path| path?.file_name().map(OsStr::to_owned));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            let closed = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
            let own = |path: &PathBuf| {
                names.iter().flatten().any(|name| path.file_name() == Some(name.as_os_str()))
            };
            if event.paths.iter().any(own) {
                // A link is whole as soon as it is there, and nothing closes it.
                let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|it| it.is_file());
                let written = match event.kind {
                    EventKind::Create(_) => event.paths.iter().any(is_file),
                    EventKind::Modify(ModifyKind::Data(_)) => true,
                    _ => false,
                };
                // A rename puts a whole file in its place.
                if written || closed || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)))
                {
                    opened.store(written, Ordering::Relaxed);
                }
            }
            // Reading the file is no reason to check it.
            if closed || !event.kind.is_access() {
                stir.notify_one();
            }
        })?;
        for folder in &folders {
            watcher.watch(&folder.0, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { folders, _watcher: watcher, stirred, open, unseen: Some(Instant::now()) })
    }

    /// Waits for an event, and then for the events to stop.
    async fn settle(&mut self) {
        let began = match self.unseen {
            Some(began) => began,
            None => {
                self.stirred.notified().await;
                *self.unseen.insert(Instant::now())
            }
        };
        loop {
            let stirred = timeout_at(Instant::now() + QUIET, self.stirred.notified()).await.is_ok();
            let open = self.open.load(Ordering::Relaxed);
            let longest = began + if open { MAX_OPEN } else { MAX_LENGTH };
            if (!stirred && !open) || Instant::now() >= longest {
                break;
            }
        }
        self.open.store(false, Ordering::Relaxed);
        self.unseen = None;
    }
}

/// The folder of the file, and the folder of its target if it is a link.
fn folders(path: &Path) -> Vec<Folder> {
    let folder = |path: &Path| {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let inode = folder.metadata().map_or(0, |folder| folder.ino());
        (folder, inode)
    };
    let mut folders = vec![folder(path)];
    folders.extend(path.canonicalize().ok().map(|real| folder(&real)));
    folders
}
