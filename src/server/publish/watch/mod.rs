//! Watches files that the site's code writes, and publishes them as messages.
//!
//! **One write, one message at the most, and never a torn one.** A file's content is read when its
//! writer has closed it, and thrown away if an event of it comes meanwhile; then the watch waits
//! for the end of that. A writer that never pauses is thus not published until it does; the last
//! state always is. Two processes that write at the same time without a lock tear the file itself.
//!
//! **Nothing is missed for good.** If the kernel's queue ran over, the directory is read and
//! compared with the known state. A directory that does not exist yet, vanishes or is replaced is
//! found again by its path, at the latest after [`Watcher::LOOK`]; so are those that the stars of a
//! path match.
//!
//! **A file that exists at the start** is the first message of its channel, stamped with the time
//! it was modified, as PHP's own poll would see it.
//!
//! All of it runs on one thread of its own, so that a storm of files takes no worker from the
//! polls. Files are remembered up to the number of channels, the least recently written are
//! forgotten first; forgotten ones are watched as well, only a `chmod` may then be taken for a
//! `touch`. Symbolic links, directories and names that are no channels are refused in the log.

mod content;
mod directory;
mod file;
mod inotify;
mod pattern;
mod tree;
mod worker;

pub use pattern::{ChannelOf, ChannelOfError, FilePattern, FilesError};

use super::Publisher;
use crate::hub::channel::SiteName;
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use worker::Worker;

/// One `[[watch]]` rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Selects the files.
    pub files: FilePattern,
    /// Names their channels.
    pub channel: ChannelOf,
    /// The site that those belong to.
    pub site: SiteName,
    /// True if their content is the message; otherwise it is empty.
    pub content: bool,
}

/// Settings of the watcher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The rules; a file may fit several.
    pub rules: Vec<Rule>,
    /// Number of files that each rule remembers.
    pub files: usize,
}

/// Watches files.
pub struct Watcher {
    settings: watch::Sender<Settings>,
    work: Mutex<Option<Worker>>,
}

impl Watcher {
    /// Interval at which the directories are looked up by their paths.
    pub const LOOK: Duration = Duration::from_secs(1);

    /// Begins to watch, and puts existing files on their channels.
    pub fn new(settings: Settings, publisher: Publisher) -> Self {
        let (sender, receiver) = watch::channel(settings);
        let work = Mutex::new(Some(Worker::new(publisher, receiver)));
        Self { settings: sender, work }
    }

    /// Switches to other settings. A rule that was there before goes on undisturbed.
    pub fn reconfigure(&self, settings: Settings) {
        self.settings.send_replace(settings);
    }

    /// Publishes written files, until `stop` ends. Call it once.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let work = self.work.lock().take();
        if let Some(mut work) = work {
            work.run(stop).await;
        }
    }
}
