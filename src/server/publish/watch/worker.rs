//! The watching thread's work: all directory watches over one queue.

use super::directory::{DirectoryWatch, Later, Reason};
use super::inotify::{Queue, WatchEvent, Wd};
use super::{Settings, Watcher};
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
    next_feed: u64,
    timers: BinaryHeap<Reverse<(Instant, u64, u32, OsString)>>,
    /// Time to read directories again because events were lost, and the time of that loss.
    rescan: Option<(Instant, SystemTime)>,
    looked: Instant,
}

impl Worker {
    /// Events that come faster than they are handled are lost again and again; reading the
    /// directories has to end before it begins anew.
    const RESCAN: Duration = Duration::from_millis(100);

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
            next_feed: 0,
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
                () = told(readable.as_ref()) => {}
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
        let Some(queue) = &self.queue else { return };
        let mut old = std::mem::take(&mut self.feeds);
        let mut timers = Vec::new();
        for rule in settings.rules {
            let place = old.iter().position(|(_, feed)| feed.rule == rule);
            if let Some(place) = place {
                self.feeds.push(old.swap_remove(place));
                continue;
            }
            let mut feed = DirectoryWatch::new(rule, self.publisher.clone(), settings.files);
            let mut later = Vec::new();
            feed.settle(queue, Reason::Start, &mut later);
            timers.push((self.next_feed, later));
            self.feeds.push((self.next_feed, feed));
            self.next_feed += 1;
        }
        for (id, later) in timers {
            self.remember(id, later);
        }
        for wd in old.iter().filter_map(|(_, feed)| feed.wd()) {
            self.release(wd);
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
        look.min(timer).min(rescan)
    }

    /// Handles fetched events, and checks that are due.
    async fn deal(&mut self) {
        let Some(mut queue) = self.queue.take() else { return };
        queue.fetch();
        for _ in 0..Self::BATCH {
            let Some(told) = queue.next() else { break };
            self.hear(told, &mut queue).await;
        }
        self.queue = Some(queue);
        self.deal_with_due(Instant::now()).await;
    }

    async fn hear(&mut self, told: WatchEvent, queue: &mut Queue) {
        match told {
            WatchEvent::Entry { wd, name, sign, number } => {
                for index in 0..self.feeds.len() {
                    let mut later = Vec::new();
                    let (id, feed) = &mut self.feeds[index];
                    let before = feed.wd();
                    if feed.hear(wd, &name, (sign, number), queue, &mut later).await {
                        feed.settle(queue, Reason::Appeared, &mut later);
                    }
                    let (id, after) = (*id, feed.wd());
                    self.remember(id, later);
                    self.release_unless(before, after, queue);
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
        if let Some((_, since)) = self.rescan.take_if(|(at, _)| *at <= now) {
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
        for index in 0..self.feeds.len() {
            let mut later = Vec::new();
            let (id, feed) = &mut self.feeds[index];
            let before = feed.wd();
            feed.settle(queue, Reason::Appeared, &mut later);
            let (id, after) = (*id, feed.wd());
            self.remember(id, later);
            self.release_unless(before, after, queue);
        }
    }

    fn release(&self, wd: Wd) {
        if let Some(queue) = &self.queue {
            self.release_unless(Some(wd), None, queue);
        }
    }

    /// Ends the watch `before`, unless it is `after` as well or any other rule still uses it.
    fn release_unless(&self, before: Option<Wd>, after: Option<Wd>, queue: &Queue) {
        let Some(before) = before.filter(|_| before != after) else { return };
        if !self.feeds.iter().any(|(_, feed)| feed.wd() == Some(before)) {
            queue.unwatch(before);
        }
    }
}

/// Waits until the queue has something.
async fn told(readable: Option<&AsyncFd<OwnedFd>>) {
    let Some(readable) = readable else { return std::future::pending().await };
    if let Ok(mut guard) = readable.readable().await {
        guard.clear_ready();
    }
}
