//! The watching thread's work: all directory watches over one queue.

use super::directory::{DirectoryWatch, Later, Reason};
use super::inotify::{Queue, WatchEvent, Wd};
use super::tree::{MAX_FOLDERS, Tree};
use super::{Rule, Settings, Watcher};
use crate::server::publish::Publisher;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

pub(super) struct Worker {
    publisher: Publisher,
    settings: watch::Receiver<Settings>,
    /// Made with the first rule; a gate without one takes nothing from the system.
    queue: Option<Queue>,
    /// Each with a number of its own, which its timers know.
    feeds: Vec<(u64, DirectoryWatch)>,
    /// The rules whose path has stars in its directories.
    trees: Vec<Tree>,
    /// Time to look for a directory that may have appeared.
    new_folder: Option<Instant>,
    next_feed: u64,
    /// Files that each rule remembers.
    files: usize,
    timers: BinaryHeap<Reverse<(Instant, u64, u32, OsString)>>,
    /// Time to read directories again because events were lost, and the time of that loss.
    rescan: Option<(Instant, SystemTime)>,
    looked: Instant,
}

impl Worker {
    /// Events that come faster than they are handled are lost again and again; reading the
    /// directories has to end before it begins anew.
    const RESCAN: Duration = Duration::from_millis(100);

    /// Entries may appear as fast as files are written; their directory is read no more often.
    const FOLDERS: Duration = Duration::from_millis(20);

    /// Sleep of a gate that watches nothing.
    const IDLE: Duration = Duration::from_secs(3600);

    /// Events handled before other work continues.
    const BATCH: usize = 1024;

    pub(super) fn new(publisher: Publisher, settings: watch::Receiver<Settings>) -> Self {
        let mut work = Self {
            publisher,
            settings,
            queue: None,
            feeds: Vec::new(),
            trees: Vec::new(),
            new_folder: None,
            next_feed: 0,
            files: 0,
            timers: BinaryHeap::new(),
            rescan: None,
            looked: Instant::now(),
        };
        work.configure();
        work
    }

    pub(super) async fn run(&mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut readable = None;
        loop {
            if readable.is_none() {
                readable = self.readable();
            }
            let wake = tokio::time::Instant::from_std(self.next_wake());
            tokio::select! {
                () = &mut stop => return,
                changed = self.settings.changed() => match changed {
                    Ok(()) => self.configure(),
                    Err(_) => return,
                },
                () = wait_readable(readable.as_ref()) => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            self.deal().await;
            // A storm of events is handled in batches, so that a stop need not wait.
            tokio::task::yield_now().await;
        }
    }

    /// The queue as something to wait for.
    fn readable(&self) -> Option<AsyncFd<OwnedFd>> {
        let descriptor = self.queue.as_ref()?.descriptor().ok()?;
        // Deprecated for owners that may answer with another descriptor each time; an `OwnedFd`
        // does not, and what takes its place is `unsafe`.
        #[allow(deprecated)]
        AsyncFd::with_interest(descriptor, Interest::READABLE).ok()
    }

    /// Applies the rules in force.
    fn configure(&mut self) {
        let settings = self.settings.borrow_and_update().clone();
        if self.queue.is_none() && !settings.rules.is_empty() {
            match Queue::new() {
                Ok(queue) => self.queue = Some(queue),
                Err(error) => {
                    let hint = "raise the sysctl fs.inotify.max_user_instances";
                    tracing::error!("cannot watch files: {}; {hint}", std::io::Error::from(error));
                    return;
                }
            }
        }
        let Some(queue) = self.queue.take() else { return };
        let old = std::mem::take(&mut self.trees);
        let (patterns, mut rules): (Vec<Rule>, Vec<Rule>) =
            settings.rules.into_iter().partition(|rule| rule.files.has_folders());
        self.files = settings.files;
        let mut unused: Vec<Wd> = Vec::new();
        for rule in patterns {
            if self.trees.iter().any(|tree| tree.rule == rule) {
                continue;
            }
            let known = old.iter().position(|tree| tree.rule == rule);
            let mut tree = Tree::new(rule, known.and_then(|at| old.get(at)));
            let (found, gone) = tree.look(&queue);
            rules.extend(found);
            unused.extend(gone);
            self.trees.push(tree);
        }
        unused.extend(old.iter().flat_map(Tree::parents));
        self.watch(rules, &queue, Reason::Start);
        for wd in unused {
            self.release_unless(Some(wd), None, &queue);
        }
        self.queue = Some(queue);
    }

    /// Watches by these rules; one that was there before goes on.
    fn watch(&mut self, rules: Vec<Rule>, queue: &Queue, reason: Reason) {
        let mut old = std::mem::take(&mut self.feeds);
        let mut timers = Vec::new();
        for rule in rules {
            let place = old.iter().position(|(_, feed)| feed.rule == rule);
            if let Some(place) = place {
                self.feeds.push(old.swap_remove(place));
                continue;
            }
            // The bound is one for each rule, whatever the number of its directories.
            let files =
                if rule.files.is_branch() { self.files.div_ceil(MAX_FOLDERS) } else { self.files };
            let mut feed = DirectoryWatch::new(rule, self.publisher.clone(), files);
            let mut later = Vec::new();
            feed.settle(queue, reason, &mut later);
            timers.push((self.next_feed, later));
            self.feeds.push((self.next_feed, feed));
            self.next_feed += 1;
        }
        for (id, later) in timers {
            self.remember(id, later);
        }
        for wd in old.iter().filter_map(|(_, feed)| feed.wd()) {
            self.release_unless(Some(wd), None, queue);
        }
    }

    /// Checks which directories fit the rules with stars in them.
    fn look_for_folders(&mut self, queue: &Queue) {
        self.new_folder = None;
        if self.trees.is_empty() {
            return;
        }
        let mut rules: Vec<Rule> = Vec::new();
        let mut unused = Vec::new();
        for tree in &mut self.trees {
            let (found, gone) = tree.look(queue);
            rules.extend(found);
            unused.extend(gone);
        }
        let single = self.feeds.iter().map(|(_, feed)| &feed.rule);
        let single = single.filter(|rule| !rule.files.is_branch()).cloned();
        rules.splice(0..0, single.collect::<Vec<_>>());
        self.watch(rules, queue, Reason::Appeared);
        for wd in unused {
            self.release_unless(Some(wd), None, queue);
        }
    }

    fn remember(&mut self, feed: u64, later: Vec<Later>) {
        let now = Instant::now();
        for (name, wait) in later {
            self.timers.push(Reverse((now + wait.length, feed, wait.turn, name)));
        }
    }

    fn next_wake(&self) -> Instant {
        if self.queue.as_ref().is_some_and(Queue::has_fetched) {
            return Instant::now();
        }
        let idle = if self.feeds.is_empty() { Self::IDLE } else { Watcher::LOOK };
        let look = self.looked + idle;
        let timer = self.timers.peek().map_or(look, |Reverse((at, ..))| *at);
        let rescan = self.rescan.map_or(look, |(at, _)| at);
        look.min(timer).min(rescan).min(self.new_folder.unwrap_or(look))
    }

    /// Handles fetched events, and checks that are due.
    async fn deal(&mut self) {
        let Some(mut queue) = self.queue.take() else { return };
        queue.fetch();
        for _ in 0..Self::BATCH {
            let Some(event) = queue.next() else { break };
            self.on_event(event, &mut queue).await;
        }
        self.queue = Some(queue);
        self.deal_with_due(Instant::now()).await;
    }

    async fn on_event(&mut self, event: WatchEvent, queue: &mut Queue) {
        match event {
            WatchEvent::Entry { wd, name, sign, number } => {
                for index in 0..self.feeds.len() {
                    let mut later = Vec::new();
                    let (id, feed) = &mut self.feeds[index];
                    let before = feed.wd();
                    if feed.on_event(wd, &name, (sign, number), queue, &mut later).await {
                        feed.settle(queue, Reason::Appeared, &mut later);
                    }
                    let id = *id;
                    let after = feed.wd();
                    self.remember(id, later);
                    self.release_unless(before, after, queue);
                }
                if self.trees.iter().any(|tree| tree.has_parent(wd)) {
                    self.new_folder.get_or_insert_with(|| Instant::now() + Self::FOLDERS);
                }
            }
            WatchEvent::Folder(wd) => {
                let mut lost = false;
                for index in 0..self.feeds.len() {
                    let mut later = Vec::new();
                    let (id, feed) = &mut self.feeds[index];
                    if feed.lose(wd) {
                        lost = true;
                        feed.settle(queue, Reason::Appeared, &mut later);
                    }
                    let id = *id;
                    self.remember(id, later);
                }
                if lost {
                    self.release_unless(Some(wd), None, queue);
                }
            }
            WatchEvent::Lost { since } => {
                let at = Instant::now() + Self::RESCAN;
                if self.rescan.is_none() {
                    tracing::warn!(
                        "files were written faster than they could be told of; reading the \
                         watched directories (fs.inotify.max_queued_events)"
                    );
                    self.rescan = Some((at, since));
                }
            }
        }
    }

    async fn deal_with_due(&mut self, now: Instant) {
        let Some(mut queue) = self.queue.take() else { return };
        if now >= self.looked + Watcher::LOOK {
            self.looked = now;
            self.look(&mut queue);
        }
        if self.new_folder.is_some_and(|at| at <= now) {
            self.look_for_folders(&queue);
        }
        if let Some((_, since)) = self.rescan.take_if(|(at, _)| *at <= now) {
            self.look_for_folders(&queue);
            for index in 0..self.feeds.len() {
                let mut later = Vec::new();
                let (id, feed) = &mut self.feeds[index];
                feed.scan(Reason::Lost(since), &mut later);
                let id = *id;
                self.remember(id, later);
            }
        }
        for _ in 0..Self::BATCH {
            if self.timers.peek().is_none_or(|Reverse((at, ..))| *at > now) {
                break;
            }
            let Some(Reverse((_, id, turn, name))) = self.timers.pop() else { break };
            let Some((_, feed)) = self.feeds.iter_mut().find(|(known, _)| *known == id) else {
                continue;
            };
            let mut later = Vec::new();
            feed.is_due(&name, turn, &mut queue, &mut later).await;
            self.remember(id, later);
        }
        self.queue = Some(queue);
    }

    /// Checks that the directories are still those at their paths.
    fn look(&mut self, queue: &mut Queue) {
        self.look_for_folders(queue);
        for index in 0..self.feeds.len() {
            let mut later = Vec::new();
            let (id, feed) = &mut self.feeds[index];
            let before = feed.wd();
            feed.settle(queue, Reason::Appeared, &mut later);
            let id = *id;
            let after = feed.wd();
            self.remember(id, later);
            self.release_unless(before, after, queue);
        }
    }

    /// Ends the watch `before`, unless it is `after` as well or any other rule still uses it.
    fn release_unless(&self, before: Option<Wd>, after: Option<Wd>, queue: &Queue) {
        let Some(before) = before.filter(|_| before != after) else { return };
        let used = self.feeds.iter().any(|(_, feed)| feed.wd() == Some(before))
            || self.trees.iter().any(|tree| tree.has_parent(before));
        if !used {
            queue.unwatch(before);
        }
    }
}

/// Waits until the queue has something.
async fn wait_readable(readable: Option<&AsyncFd<OwnedFd>>) {
    let Some(readable) = readable else { return std::future::pending().await };
    if let Ok(mut guard) = readable.readable().await {
        guard.clear_ready();
    }
}
