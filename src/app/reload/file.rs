//! Watches the config file.
//!
//! It watches the folders of the file, not the file itself: editors and deployments put a new file
//! in the place of the old one. An event there only triggers a check.

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The file is checked after no event around it for this long, since it may still be being written.
const QUIET: Duration = Duration::from_millis(100);
/// In folders that are never quiet it is checked after this long.
const MAX_LENGTH: Duration = Duration::from_secs(1);

/// See the [module](self).
pub(super) struct ConfigFile {
    path: Option<PathBuf>,
    watched: Option<Watched>,
}

struct Watched {
    folders: Vec<PathBuf>,
    /// Ends the watching when dropped.
    _watcher: RecommendedWatcher,
    stirred: Arc<Notify>,
    /// An event has come and was not handled yet.
    unseen: bool,
}

impl ConfigFile {
    /// A file that is not watched yet; without a path none can be watched.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, watched: None }
    }

    /// Starts or stops watching the file. A change before the start counts too.
    pub(super) fn watch(&mut self, wanted: bool) {
        let Some(path) = self.path.as_ref().filter(|_| wanted) else {
            self.watched = None;
            return;
        };
        let folders = folders(path);
        if self.watched.as_ref().is_none_or(|watched| watched.folders != folders) {
            let watched = Watched::new(folders);
            let failed = |error| tracing::error!(%error, "cannot watch the config file");
            self.watched = watched.map_err(failed).ok();
        }
    }

    /// Waits for a reason to check the file; never returns while it is not watched. Cancelling
    /// loses nothing.
    pub(super) async fn stirred(&mut self) {
        match &mut self.watched {
            Some(watched) => watched.settle().await,
            None => std::future::pending().await,
        }
    }
}

impl Watched {
    fn new(folders: Vec<PathBuf>) -> notify::Result<Self> {
        let stirred = Arc::new(Notify::new());
        let stir = stirred.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading the file is no reason to check it.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                stir.notify_one();
            }
        })?;
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { folders, _watcher: watcher, stirred, unseen: true })
    }

    /// Waits for an event, and then for the events to stop.
    async fn settle(&mut self) {
        if !self.unseen {
            self.stirred.notified().await;
            self.unseen = true;
        }
        let longest = Instant::now() + MAX_LENGTH;
        while Instant::now() < longest {
            let quiet = (Instant::now() + QUIET).min(longest);
            if timeout_at(quiet, self.stirred.notified()).await.is_err() {
                break;
            }
        }
        self.unseen = false;
    }
}

/// The folder of the file, and the folder of its target if it is a link.
fn folders(path: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![folder(path)];
    folders.extend(path.canonicalize().ok().map(|real| folder(&real)));
    folders
}
