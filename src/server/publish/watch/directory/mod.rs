//! A directory watch: one `[[watch]]` rule at work, with its files and their messages.

mod location;

use super::Rule;
use super::content::{self, Content};
use super::file::{self, File, FileStat, Sign, Step, Wait};
use super::inotify::{Queue, Wd};
use crate::hub::channel::{ChannelName, Payload, Time};
use crate::server::publish::idempotency::TTL;
use crate::server::publish::{Idempotency, PublishError, Publisher, Source, payload};
use location::Location;
use lru::LruCache;
use ring::digest::{Context, SHA256};
use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::SystemTime;

pub(super) struct DirectoryWatch {
    pub(super) rule: Rule,
    publisher: Publisher,
    place: Location,
    files: LruCache<OsString, File>,
    /// Reported reasons why entries cannot be watched, so that each is logged once.
    reported: LruCache<OsString, String>,
    /// The reported error of the directory.
    complaint: Option<String>,
}

/// Reason why a directory is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    /// Watching begins: the files are states that have been true since they were written.
    Start,
    /// The directory has appeared, or is another one than before: its files are new messages.
    Appeared,
    /// Events were lost after this time.
    Lost(SystemTime),
}

/// A file to check again.
pub(super) type Later = (OsString, Wait);

impl DirectoryWatch {
    /// Entries whose refusal is remembered.
    const REPORTED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

    /// A watch that remembers so many files.
    pub(super) fn new(rule: Rule, publisher: Publisher, files: usize) -> Self {
        let files = LruCache::new(NonZeroUsize::new(files).unwrap_or(NonZeroUsize::MIN));
        let reported = LruCache::new(Self::REPORTED);
        Self { rule, publisher, place: Location::Unwatched, files, reported, complaint: None }
    }

    /// Handles an event. Returns true if the directory's path has to be checked again.
    pub(super) async fn on_event(
        &mut self,
        wd: Wd,
        name: &OsStr,
        (sign, number): (Sign, u64),
        queue: &mut Queue,
        later: &mut Vec<Later>,
    ) -> bool {
        match &self.place {
            Location::Above(above, awaited) => *above == wd && awaited == name,
            Location::Folder(folder) if *folder == wd => {
                if let Some(star) = self.rule.files.star(name) {
                    let star = star.to_owned();
                    self.hear_of_file(name, &star, (sign, number), queue, later).await;
                }
                false
            }
            _ => false,
        }
    }

    async fn hear_of_file(
        &mut self,
        name: &OsStr,
        star: &OsStr,
        (sign, number): (Sign, u64),
        queue: &mut Queue,
        later: &mut Vec<Later>,
    ) {
        if sign == Sign::Gone {
            self.files.pop(name);
            self.reported.pop(name);
            return;
        }
        let path = self.path(name);
        let look = || content::inspect(&path).ok().flatten();
        let step = self.file(name).on(sign, number, look, SystemTime::now());
        self.take(step, name, star, queue, later).await;
    }

    /// Checks a file whose wait is over.
    pub(super) async fn is_due(
        &mut self,
        name: &OsStr,
        turn: u32,
        queue: &mut Queue,
        later: &mut Vec<Later>,
    ) {
        let Some(star) = self.rule.files.star(name).map(OsStr::to_owned) else { return };
        let path = self.path(name);
        let found = content::inspect(&path);
        if let Err(why) = &found {
            self.refuse(name, why);
        }
        let Some(file) = self.files.get_mut(name) else { return };
        let step = file.is_due(turn, || found.ok().flatten());
        self.take(step, name, &star, queue, later).await;
    }

    async fn take(
        &mut self,
        step: Step,
        name: &OsStr,
        star: &OsStr,
        queue: &mut Queue,
        later: &mut Vec<Later>,
    ) {
        let next = match step {
            Step::Nothing => return,
            Step::Later(wait) => Some(wait),
            Step::Publish => self.publish(name, star, false, queue).await,
            Step::PublishSettled => self.publish(name, star, true, queue).await,
        };
        later.extend(next.map(|wait| (name.to_owned(), wait)));
    }

    /// Publishes the current state of a file; returns the time of the next check if it is not
    /// certain.
    async fn publish(
        &mut self,
        name: &OsStr,
        star: &OsStr,
        settled: bool,
        queue: &mut Queue,
    ) -> Option<Wait> {
        let channel = self.channel(name, star)?;
        // The state seen from here on is the outcome of all events so far.
        queue.fetch();
        let known = queue.known();
        let (payload, look) = if self.rule.content {
            let wd = self.wd()?;
            // A change under way ends with an event of its own, when all is written.
            if queue.is_ahead(wd, name) {
                return None;
            }
            match content::read(&self.path(name), self.publisher.longest_message()) {
                Content::Whole(bytes, look) => {
                    let all = queue.fetch();
                    if queue.is_ahead(wd, name) {
                        return None;
                    }
                    if !all {
                        return wait_of(self.file(name).is_changing(look));
                    }
                    if bytes.is_empty() && !settled {
                        return wait_of(self.file(name).is_empty(look));
                    }
                    (text(bytes), look)
                }
                Content::Changing(look) => return wait_of(self.file(name).is_changing(look)),
                other => {
                    self.refuse_content(name, other, known);
                    return None;
                }
            }
        } else {
            match content::inspect(&self.path(name)) {
                Ok(Some(look)) => (Payload::empty(), look),
                Ok(None) => return None,
                Err(why) => {
                    self.refuse(name, &why);
                    return None;
                }
            }
        };
        let shared = self.publisher.is_shared();
        if shared && self.file(name).is_old() && self.is_known(&channel, &look).await {
            self.file(name).saw(look, known);
            return None;
        }
        // Other gates may see the same file.
        let state = shared.then(|| self.state(name, &look, &payload));
        let key = state.as_ref().map(|state| format!("{state}.{}", self.file(name).times(state)));
        let once = key.as_ref().map(|key| Idempotency { key, kept: TTL });
        let posts = vec![(channel.clone(), payload)];
        match self.publisher.publish_once(posts, Source::Watch, once).await {
            Ok(_) => {
                let file = self.file(name);
                state.into_iter().for_each(|state| file.published(state));
                file.saw(look, known);
                self.reported.pop(name);
                if self.rule.content {
                    self.publisher.hub().keep_newest(&channel);
                }
                None
            }
            Err(PublishError::Ended) => None,
            Err(error) => {
                self.refuse(name, &error.to_string());
                // It is still the last state of the file, so it is tried again.
                wait_of(self.file(name).is_changing(look))
            }
        }
    }

    /// True if the channel, which other gates share, has had a message since the file was modified.
    async fn is_known(&self, channel: &ChannelName, look: &FileStat) -> bool {
        self.publisher.refresh(channel).await;
        let info = self.publisher.hub().info(channel, self.publisher.now());
        let newest = info.and_then(|info| Some((info.newest?.1, info.tick)));
        newest.is_some_and(|(newest, tick)| newest >= tick.at_or_after(time_of(look)))
    }

    /// A name of a file's state, the same in all gates that see it, so that it is published once.
    fn state(&self, name: &OsStr, look: &FileStat, payload: &Payload) -> String {
        let mut all = Context::new(&SHA256);
        all.update(self.path(name).as_os_str().as_encoded_bytes());
        all.update(format!("\0{}\0", look.mark()).as_bytes());
        all.update(&payload.body);
        let digest = all.finish();
        let half = digest.as_ref().iter().take(16);
        half.map(|byte| format!("{byte:02x}")).collect()
    }

    fn refuse_content(&mut self, name: &OsStr, content: Content, known: u64) {
        match content {
            Content::TooLong(look) => {
                let most = self.publisher.longest_message();
                let size = look.size;
                self.file(name).saw(look, known);
                self.refuse(
                    name,
                    &format!("it has {size} bytes, more than {most} (history.max_message)"),
                );
            }
            Content::Refused(why) => self.refuse(name, &why),
            // Gone in the meantime, or dealt with by the caller.
            Content::Gone | Content::Whole(..) | Content::Changing(_) => {}
        }
    }

    /// Logs once why a file is not published.
    fn refuse(&mut self, name: &OsStr, why: &str) {
        if self.reported.get(name).is_some_and(|reported| reported == why) {
            return;
        }
        let path = self.path(name);
        tracing::warn!(file = ?path, "a watched file is not published: {why}");
        self.reported.put(name.to_owned(), why.to_owned());
    }

    fn channel(&mut self, name: &OsStr, star: &OsStr) -> Option<ChannelName> {
        let filled = self.rule.channel.fill(star).map(|channel| channel.in_site(&self.rule.site));
        filled.map_err(|error| self.refuse(name, &error.to_string())).ok()
    }

    /// Reads the directory's entries.
    pub(super) fn scan(&mut self, reason: Reason, later: &mut Vec<Later>) {
        if !matches!(self.place, Location::Folder(_)) {
            return;
        }
        if let Some(name) = self.rule.files.only() {
            return self.come_upon(&name, reason, later);
        }
        let folder = self.rule.files.folder();
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                let folder = folder.display();
                return tracing::error!(%folder, %error, "cannot read the watched directory");
            }
        };
        for entry in entries.flatten() {
            self.come_upon(&entry.file_name(), reason, later);
        }
    }

    fn come_upon(&mut self, name: &OsStr, reason: Reason, later: &mut Vec<Later>) {
        let Some(star) = self.rule.files.star(name).map(OsStr::to_owned) else { return };
        let look = match content::inspect(&self.path(name)) {
            Ok(Some(look)) => look,
            Ok(None) => return,
            Err(why) => return self.refuse(name, &why),
        };
        let now = SystemTime::now();
        if matches!(reason, Reason::Start) && self.begin(name, &star, look, now, later) {
            return;
        }
        let lost = if let Reason::Lost(since) = reason { Some(since) } else { None };
        if let Step::Later(wait) = self.file(name).find(look, lost, now) {
            later.push((name.to_owned(), wait));
        }
    }

    /// Takes a file as a state that has been true since it was written. Returns true if that could
    /// be done.
    fn begin(
        &mut self,
        name: &OsStr,
        star: &OsStr,
        look: FileStat,
        now: SystemTime,
        later: &mut Vec<Later>,
    ) -> bool {
        let Some(channel) = self.channel(name, star) else { return true };
        if self.publisher.is_shared() && self.rule.content {
            // Other gates may see the file, too, and the sequencer cannot be reached yet.
            let wait = wait_of(self.file(name).was_there(look));
            later.extend(wait.map(|wait| (name.to_owned(), wait)));
            return true;
        }
        let (payload, look) = if self.rule.content {
            if !file::is_settled(&look, now) {
                return false;
            }
            match content::read(&self.path(name), self.publisher.longest_message()) {
                Content::Whole(bytes, look) => (text(bytes), look),
                Content::Changing(_) => return false,
                other => {
                    self.refuse_content(name, other, 0);
                    return true;
                }
            }
        } else {
            (Payload::empty(), look)
        };
        self.file(name).saw(look, 0);
        let at = time_of(&look);
        let keep = self.rule.content;
        if let Err(error) = self.publisher.seed(&channel, payload, at, keep, Source::Watch) {
            self.refuse(name, &error.to_string());
        }
        true
    }

    fn file(&mut self, name: &OsStr) -> &mut File {
        let content = self.rule.content;
        self.files.get_or_insert_mut(name.to_owned(), || File::new(content))
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.rule.files.folder().join(name)
    }
}

fn wait_of(step: Step) -> Option<Wait> {
    if let Step::Later(wait) = step { Some(wait) } else { None }
}

/// Modification time of a file, rounded up to the microsecond.
fn time_of(look: &FileStat) -> Time {
    let micros = look.modified.max(0).unsigned_abs().div_ceil(1_000);
    Time(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The bytes of a file as a message. Without a content type nothing can be invalid.
fn text(bytes: bytes::Bytes) -> Payload {
    payload(None, bytes).unwrap_or_else(|_| Payload::empty())
}
