//! Location of a watch: its directory, or the nearest one above it until it exists.

use super::{DirectoryWatch, Later, Reason};
use crate::server::publish::watch::inotify::{Queue, Wd};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Location of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Unwatched,
    /// The directory itself.
    Folder(Wd),
    /// The directory does not exist; the nearest above it that does, waiting for this name.
    Above(Wd, OsString),
}

impl DirectoryWatch {
    /// The inotify watch in use.
    pub(in crate::server::publish::watch) fn wd(&self) -> Option<Wd> {
        match self.place {
            Location::Unwatched => None,
            Location::Folder(wd) | Location::Above(wd, _) => Some(wd),
        }
    }

    /// Watches the directory that is at its path now. The contents of one that has not been watched
    /// yet are read for `reason`.
    pub(in crate::server::publish::watch) fn settle(
        &mut self,
        queue: &Queue,
        reason: Reason,
        later: &mut Vec<Later>,
    ) {
        let folder = self.rule.files.folder().to_owned();
        // It may appear between the check and the watch, so check again; it may vanish again, too,
        // so not for ever. The next check comes soon.
        for _ in 0..4 {
            match queue.watch(&folder) {
                Ok(wd) => {
                    self.complaint = None;
                    if self.place != Location::Folder(wd) {
                        self.place = Location::Folder(wd);
                        self.scan(reason, later);
                    }
                    return;
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return self.complain(error),
            }
            match nearest(queue, &folder) {
                Ok((wd, name)) => {
                    let above = Location::Above(wd, name);
                    if self.place == above {
                        return;
                    }
                    if !matches!(self.place, Location::Above(..)) {
                        let folder = folder.display();
                        tracing::info!(%folder, "the watched directory is not there; waiting for it");
                    }
                    self.place = above;
                }
                Err(error) => return self.complain(error),
            }
        }
    }

    fn complain(&mut self, error: Errno) {
        self.place = Location::Unwatched;
        let hint = match error {
            Errno::NOSPC => "; raise the sysctl fs.inotify.max_user_watches",
            Errno::ACCESS => "; let the gate's user read the directory",
            _ => "",
        };
        let complaint = format!("{}{hint}", io::Error::from(error));
        if self.complaint.as_ref() != Some(&complaint) {
            let folder = self.rule.files.folder().display();
            tracing::error!(%folder, "cannot watch the directory: {complaint}");
            self.complaint = Some(complaint);
        }
    }

    /// The watched directory is gone, or belongs to another path now.
    pub(in crate::server::publish::watch) fn lose(&mut self, wd: Wd) -> bool {
        let lost = self.wd() == Some(wd);
        if lost {
            self.place = Location::Unwatched;
        }
        lost
    }
}

/// Watches the nearest directory above `folder`; returns the name to wait for.
fn nearest(queue: &Queue, folder: &Path) -> Result<(Wd, OsString), Errno> {
    let mut error = Errno::NOENT;
    for above in folder.ancestors().skip(1) {
        let name = folder.strip_prefix(above).ok().and_then(|rest| rest.iter().next());
        match queue.watch_for_entries(above) {
            Ok(wd) => return Ok((wd, name.unwrap_or_default().to_owned())),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(other) => {
                error = other;
                break;
            }
        }
    }
    Err(error)
}
