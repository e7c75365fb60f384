//! A watched file: turns the kernel's events into steps, and so decides when it has been written.
//!
//! The ways in which files are written, and the events of each:
//!
//! | write | events |
//! |---|---|
//! | `file_put_contents` | (created,) modified, closed |
//! | `touch` of PHP | attributes; for a new file: created, closed, attributes |
//! | `touch` of the shell | attributes, closed; for a new file: created, attributes, closed |
//! | rename into place | moved in |
//! | hard link into place | created |
//! | `chmod` | attributes |
//!
//! So a closed file is a new message if it was modified before, which does not depend on the clock;
//! with attributes alone the modification time decides; and a file that was created only is checked
//! again a little later.

#[cfg(test)]
mod tests;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// The kernel's event of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A new entry: opened, or linked.
    Created,
    /// Written to, or truncated.
    Modified,
    /// Closed by a process that could write.
    Closed,
    /// Its times, mode or owner were set.
    Attributes,
    /// Renamed into place.
    MovedIn,
    /// Deleted, or renamed away.
    Gone,
}

/// The metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStat {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    /// Modification time, in nanoseconds since 1970.
    pub(super) modified: i128,
    changed: i128,
    mode: u32,
    owner: (u32, u32),
    links: u64,
}

impl FileStat {
    pub(super) fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * NANOS + i128::from(nanos);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            links: meta.nlink(),
        }
    }

    /// True if it is the same file with the same content, as far as metadata can show.
    pub(super) fn is_unchanged(&self, other: &FileStat) -> bool {
        (self.device, self.inode, self.size, self.modified)
            == (other.device, other.inode, other.size, other.modified)
    }

    /// True if it was modified after `time`, or so close to it that clocks cannot decide.
    pub(super) fn is_since(&self, time: SystemTime) -> bool {
        self.modified >= nanos_of(time) - TICK.as_nanos().cast_signed()
    }

    /// A name of this state, the same on every machine that sees it.
    pub(super) fn mark(&self) -> String {
        format!("{} {}", self.modified, self.size)
    }

    /// Time since it was modified.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        let age = nanos_of(now).saturating_sub(self.modified).max(0);
        Duration::from_nanos(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// True if an attributes event means that it was touched. Kernels before 6.13 count time in
    /// ticks: a second touch within one leaves the same times, and differs from a `chmod` by equal
    /// times and all else the same.
    fn is_touched_since(&self, seen: &FileStat, now: SystemTime) -> bool {
        if !self.is_unchanged(seen) {
            return true;
        }
        let same = (self.mode, self.owner, self.links) == (seen.mode, seen.owner, seen.links);
        same && self.modified == self.changed && self.is_since(now)
    }
}

const NANOS: i128 = 1_000_000_000;

fn nanos_of(time: SystemTime) -> i128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().cast_signed()
}

/// Longer than the tick of any kernel's file times.
const TICK: Duration = Duration::from_millis(20);

/// Time to wait for the other half of a `touch`, or for the first bytes of a new file.
const SOON: Duration = Duration::from_millis(20);

/// Time that a file that was found changed, by an unknown writer, has to stay as it is.
const SETTLED: Duration = Duration::from_millis(500);

/// Time that a new file that may still be written has to stay as it is.
const FRESH: Duration = Duration::from_millis(200);

/// Time that a file must have stayed empty before its emptiness is the written state: the event of
/// a truncation comes when it is done, which takes its time with a large file.
const EMPTY: Duration = Duration::from_millis(100);

/// Progress of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// No writer is known.
    #[default]
    Quiet,
    /// It was created, and nothing else is known.
    Created,
    /// It was created and closed, still empty.
    Blank,
    /// It has been written to and is still open; its last known state.
    Writing(Option<FileStat>),
    /// It was found changed, in this state.
    Lookup(FileStat),
}

/// The next step for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// It is written: publish.
    Publish,
    /// It has stayed as it is for long enough: publish, also if it is empty.
    PublishSettled,
    /// Call [`File::is_due`] then.
    Later(Wait),
}

/// Time at which a file must be checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) length: Duration,
    /// Number of this wait; an earlier one is obsolete.
    pub(super) turn: u32,
}

/// State of one file.
#[derive(Debug)]
pub(super) struct File {
    /// True if its content is the message, so that it must be whole.
    content: bool,
    phase: Phase,
    /// Its state when it was last published, or first found.
    seen: Option<FileStat>,
    /// Number of events by then: their changes have been published.
    known_events: u64,
    turn: u32,
    /// It was there when watching began, and other gates may have published it long ago.
    is_old: bool,
    /// The state that was published last, and the number of times before.
    state: Option<(String, u32)>,
}

impl File {
    pub(super) fn new(content: bool) -> Self {
        let phase = Phase::Quiet;
        let is_old = false;
        Self { content, phase, seen: None, known_events: 0, turn: 0, is_old, state: None }
    }

    /// Handles an event, the one after `number` others. `look` reads the file's state; `None` if it
    /// does not exist.
    pub(super) fn on(
        &mut self,
        sign: Sign,
        number: u64,
        look: impl FnOnce() -> Option<FileStat>,
        now: SystemTime,
    ) -> Step {
        let is_known = number < self.known_events;
        match (sign, self.phase) {
            (Sign::Created, _) => self.later(Phase::Created, SOON),
            (Sign::Modified, Phase::Writing(_)) => Step::Nothing,
            (Sign::Modified, _) | (Sign::Attributes, Phase::Created) => self.write(),
            (Sign::Closed | Sign::MovedIn, _) | (Sign::Attributes, Phase::Quiet) if is_known => {
                self.phase = Phase::Quiet;
                Step::Nothing
            }
            (Sign::Closed, Phase::Created) => self.later(Phase::Blank, SOON),
            (Sign::Closed, Phase::Writing(_) | Phase::Lookup(_))
            | (Sign::Attributes, Phase::Blank) => self.publish(Step::Publish),
            (Sign::MovedIn, _) => match look() {
                // Published already, between its move and the event of it.
                Some(look) if self.seen == Some(look) => self.publish(Step::Nothing),
                _ => self.publish(Step::Publish),
            },
            (Sign::Attributes, Phase::Writing(_) | Phase::Lookup(_))
            | (Sign::Closed, Phase::Blank)
            | (Sign::Gone, _) => Step::Nothing,
            (Sign::Closed, Phase::Quiet) => match (look(), &self.seen) {
                (Some(look), Some(seen)) if look.is_unchanged(seen) => Step::Nothing,
                (Some(_), _) => self.publish(Step::Publish),
                (None, _) => Step::Nothing,
            },
            (Sign::Attributes, Phase::Quiet) => match (look(), &self.seen) {
                (Some(look), Some(seen)) if !look.is_touched_since(seen, now) => Step::Nothing,
                (Some(_), _) => self.publish(Step::Publish),
                (None, _) => Step::Nothing,
            },
        }
    }

    /// Handles the end of a [`Step::Later`].
    pub(super) fn is_due(&mut self, turn: u32, look: impl FnOnce() -> Option<FileStat>) -> Step {
        if turn != self.turn {
            return Step::Nothing;
        }
        match self.phase {
            Phase::Quiet => Step::Nothing,
            Phase::Writing(_) if self.content => Step::Nothing,
            // A process keeps it open between writes, or has set its time of modification alone,
            // which causes the same event.
            Phase::Writing(before) => match (look(), before) {
                (None, _) => Step::Nothing,
                (Some(look), Some(before)) if look.is_unchanged(&before) => {
                    if self.seen.is_some_and(|seen| seen.is_unchanged(&look)) {
                        return Step::Nothing;
                    }
                    self.publish(Step::PublishSettled)
                }
                (Some(look), _) => self.later(Phase::Writing(Some(look)), SETTLED),
            },
            Phase::Blank => self.publish(Step::PublishSettled),
            // With bytes in it and no write event, it was linked into place, or a write is under
            // way: its event comes when it is done, which takes its time.
            Phase::Created => match look() {
                Some(look) if look.links > 1 => self.publish(Step::PublishSettled),
                Some(look) if look.size > 0 => self.later(Phase::Lookup(look), FRESH),
                _ => Step::Nothing,
            },
            Phase::Lookup(before) => match look() {
                Some(look) if look.is_unchanged(&before) => self.publish(Step::PublishSettled),
                Some(look) => self.later(Phase::Lookup(look), SETTLED),
                None => Step::Nothing,
            },
        }
    }

    /// Handles a file found in a directory. It is a new message if its state differs from the last
    /// known one, or could have been written again at the very time: after `since`, events were
    /// lost.
    pub(super) fn find(
        &mut self,
        look: FileStat,
        since: Option<SystemTime>,
        now: SystemTime,
    ) -> Step {
        let lost = since.is_some_and(|since| look.is_since(since));
        let half_told = matches!(self.phase, Phase::Created | Phase::Blank | Phase::Writing(_));
        if !lost && !half_told && self.seen.is_some_and(|seen| seen.is_unchanged(&look)) {
            return Step::Nothing;
        }
        self.later(Phase::Lookup(look), SETTLED.saturating_sub(look.age(now)))
    }

    /// It was there when watching began, and is published unless other gates have done so.
    pub(super) fn was_there(&mut self, look: FileStat) -> Step {
        self.is_old = true;
        self.later(Phase::Lookup(look), SETTLED)
    }

    /// True if it was there, and has not been published since.
    pub(super) fn is_old(&self) -> bool {
        self.is_old
    }

    /// Number of times this very state was published: two touches within one tick look the same.
    pub(super) fn times(&self, state: &str) -> u32 {
        self.state.as_ref().map_or(0, |(last, times)| if last == state { *times } else { 0 })
    }

    /// Records that this state was published.
    pub(super) fn published(&mut self, state: String) {
        let times = self.times(&state) + 1;
        self.state = Some((state, times));
    }

    /// Records that it changed while it was read.
    pub(super) fn is_changing(&mut self, look: FileStat) -> Step {
        self.later(Phase::Lookup(look), SETTLED)
    }

    /// Records that it is empty, which may be for a moment only.
    pub(super) fn is_empty(&mut self, look: FileStat) -> Step {
        self.later(Phase::Lookup(look), EMPTY)
    }

    /// Records its state when it was published, after so many events.
    pub(super) fn saw(&mut self, look: FileStat, known_events: u64) {
        self.seen = Some(look);
        self.known_events = known_events;
        self.is_old = false;
    }

    /// Handles a write. A file without content in its message may be published while it is open.
    fn write(&mut self) -> Step {
        if !self.content {
            return self.later(Phase::Writing(None), SETTLED);
        }
        self.phase = Phase::Writing(None);
        Step::Nothing
    }

    fn later(&mut self, phase: Phase, length: Duration) -> Step {
        self.phase = phase;
        self.turn = self.turn.wrapping_add(1);
        Step::Later(Wait { length, turn: self.turn })
    }

    fn publish(&mut self, step: Step) -> Step {
        self.phase = Phase::Quiet;
        step
    }
}

/// True if the content of a file found at the start is old enough to be taken as it is.
pub(super) fn is_settled(look: &FileStat, now: SystemTime) -> bool {
    look.age(now) >= SETTLED
}
