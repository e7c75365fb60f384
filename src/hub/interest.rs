//! Waiters that want some of a channel's messages: each names the topics that it wants, and a
//! message wakes those alone for which it is.
//!
//! A topic that is wanted as it stands is found by its hash; two topics with one hash wake a waiter
//! in vain. A pattern is matched once for a message and topic, whatever the number of waiters that
//! share it. Such a waiter stays registered. What it has to read is known of it, so a message that
//! is not for it costs it nothing, and never counts as a gap.
//!
//! **Bounds.** An index keeps [`MAX_PATTERNS`] of [`MAX_PATTERN_BYTES`] in all; a waiter with
//! another one is woken by every message. Topics and patterns whose match could take more than
//! [`MAX_STEPS`] wake all waiters that have a pattern.

use super::notifier::Notifier;
use crate::hub::channel::{Lookup, Message, Payload, Position};
use slab::Slab;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Patterns of one channel.
const MAX_PATTERNS: usize = 1000;
/// Their texts in all, in bytes.
const MAX_PATTERN_BYTES: usize = 64 << 10;
/// The product of the bytes of topics and of patterns up to which they are matched.
const MAX_STEPS: usize = 8 << 20;

/// A pattern of topics.
pub trait TopicPattern: fmt::Debug + Send + Sync {
    /// Its text, by which it is known.
    fn text(&self) -> &str;

    /// True if it selects `topic`.
    fn matches(&self, topic: &str) -> bool;
}

/// Shows the topics of a message; a message without any is for every waiter.
pub type Topics = fn(&Payload, &mut dyn FnMut(&str));

/// The messages of a channel that a waiter wants.
#[derive(Debug, Clone)]
pub struct Interest {
    /// It wants every message.
    pub all: bool,
    /// Hashes of the topics that it wants as they stand ([`Interest::hash`]).
    pub exact: Box<[u64]>,
    /// Patterns of further ones.
    pub patterns: Box<[Arc<dyn TopicPattern>]>,
    /// The topics of a message; the same for all waiters of a channel.
    pub topics: Topics,
}

impl Interest {
    /// The hash by which a topic is known. It differs from one process to the next.
    pub fn hash(topic: &str) -> u64 {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        HASHER.hash_one(topic)
    }
}

/// The waiters of a channel that want some of its messages.
#[derive(Debug)]
pub(super) struct Index {
    entries: Slab<Entry>,
    exact: BTreeSet<(u64, usize)>,
    patterns: Slab<Known>,
    by_text: HashMap<Box<str>, usize>,
    pattern_bytes: usize,
    by_pattern: BTreeSet<(usize, usize)>,
    every: BTreeSet<usize>,
    /// All messages up to here have woken their subscribers.
    through: Position,
}

#[derive(Debug)]
struct Known {
    pattern: Arc<dyn TopicPattern>,
    waiters: usize,
}

#[derive(Debug)]
struct Entry {
    notifier: Arc<Notifier>,
    interest: Arc<Interest>,
    /// The waiter was given all up to here.
    given: Position,
    /// It has to read from here; `None` = nothing is for it.
    reads: Option<Position>,
    /// Its cursor is not placed yet, so any change is for it.
    unresolved: bool,
}

impl Index {
    /// An empty index of a channel that is at this position.
    pub(super) fn new(through: Position) -> Self {
        Self {
            entries: Slab::new(),
            exact: BTreeSet::new(),
            patterns: Slab::new(),
            by_text: HashMap::new(),
            pattern_bytes: 0,
            by_pattern: BTreeSet::new(),
            every: BTreeSet::new(),
            through,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn through(&self) -> Position {
        self.through
    }

    /// Registers a waiter that was given all up to `given`; returns its key.
    pub(super) fn insert(
        &mut self,
        notifier: &Arc<Notifier>,
        interest: &Arc<Interest>,
        given: Position,
        unresolved: bool,
    ) -> usize {
        let notifier = notifier.clone();
        let interest = interest.clone();
        let entry = Entry { notifier, interest: interest.clone(), given, reads: None, unresolved };
        let key = self.entries.insert(entry);
        self.exact.extend(interest.exact.iter().map(|hash| (*hash, key)));
        let known = interest.patterns.iter().all(|pattern| self.insert_pattern(pattern, key));
        if interest.all || !known {
            self.every.insert(key);
        }
        key
    }

    /// False if there is no room for the pattern.
    fn insert_pattern(&mut self, pattern: &Arc<dyn TopicPattern>, key: usize) -> bool {
        let text = pattern.text();
        let id = match self.by_text.get(text) {
            Some(id) => *id,
            None if self.patterns.len() >= MAX_PATTERNS => return false,
            None if self.pattern_bytes + text.len() > MAX_PATTERN_BYTES => return false,
            None => {
                let id = self.patterns.insert(Known { pattern: pattern.clone(), waiters: 0 });
                self.by_text.insert(text.into(), id);
                self.pattern_bytes += text.len();
                id
            }
        };
        if self.by_pattern.insert((id, key)) {
            self.patterns[id].waiters += 1;
        }
        true
    }

    /// Ends the registration of that key.
    pub(super) fn remove(&mut self, key: usize) {
        let Some(Entry { interest, .. }) = self.entries.try_remove(key) else { return };
        for hash in &interest.exact {
            self.exact.remove(&(*hash, key));
        }
        for pattern in &interest.patterns {
            let Some(id) = self.by_text.get(pattern.text()).copied() else { continue };
            if self.by_pattern.remove(&(id, key)) {
                self.patterns[id].waiters -= 1;
                if self.patterns[id].waiters == 0 {
                    self.patterns.remove(id);
                    self.by_text.remove(pattern.text());
                    self.pattern_bytes -= pattern.text().len();
                }
            }
        }
        self.every.remove(&key);
    }

    /// The position from which a waiter at `place` has to read; `None` = there is nothing for it.
    pub(super) fn to_read(&self, key: usize, place: Position) -> Option<Position> {
        let entry = self.entries.get(key)?;
        // It has not sent all that it was given.
        if place != entry.given || entry.unresolved { Some(place) } else { entry.reads }
    }

    /// A waiter was given what `found` has.
    pub(super) fn give(&mut self, key: usize, found: &Lookup, unresolved: bool) {
        if let Some(entry) = self.entries.get_mut(key) {
            (entry.given, entry.reads, entry.unresolved) = (found.position, None, unresolved);
        }
    }

    /// Adds the waiters to `notifiers` that `message`, the newest one, is for.
    pub(super) fn wake_for(&mut self, message: &Message, notifiers: &mut Vec<Arc<Notifier>>) {
        let Position { epoch, seq } = message.position;
        let before = Position { epoch, seq: seq.saturating_sub(1) };
        for key in self.wanting(&message.payload) {
            if let Some(entry) = self.entries.get_mut(key)
                && entry.reads.is_none()
            {
                entry.reads = Some(before);
                notifiers.push(entry.notifier.clone());
            }
        }
        self.through = message.position;
    }

    /// Adds the waiters to `notifiers` that what `found` has after [`Index::through`] is for.
    pub(super) fn wake_for_all(&mut self, found: &Lookup, notifiers: &mut Vec<Arc<Notifier>>) {
        if found.reset || found.has_update && found.messages.is_empty() {
            self.wake(notifiers);
        } else {
            for message in found.messages.iter() {
                self.wake_for(message, notifiers);
            }
            let unresolved = self.entries.iter().filter(|(_, entry)| entry.unresolved);
            notifiers.extend(unresolved.map(|(_, entry)| entry.notifier.clone()));
        }
        self.through = found.position;
    }

    /// Adds all waiters to `notifiers`: any of them may miss something from now on.
    pub(super) fn wake(&mut self, notifiers: &mut Vec<Arc<Notifier>>) {
        for (_, entry) in &mut self.entries {
            let later = entry.given.epoch == self.through.epoch && entry.given.covers(self.through);
            let known = if later { entry.given } else { self.through };
            entry.reads.get_or_insert(known);
            notifiers.push(entry.notifier.clone());
        }
    }

    /// The keys of the waiters that want a message, perhaps some of them twice.
    fn wanting(&self, payload: &Payload) -> Vec<usize> {
        let Some((_, first)) = self.entries.iter().next() else { return Vec::new() };
        let mut keys: Vec<usize> = self.every.iter().copied().collect();
        let mut topics = 0;
        let mut bytes = 0;
        (first.interest.topics)(payload, &mut |topic| {
            (topics, bytes) = (topics + 1, bytes + topic.len());
            let hash = Interest::hash(topic);
            let wanting = self.exact.range((hash, 0)..=(hash, usize::MAX));
            keys.extend(wanting.map(|(_, key)| *key));
        });
        if topics == 0 {
            return self.entries.iter().map(|(key, _)| key).collect();
        }
        if self.pattern_bytes.saturating_mul(bytes) > MAX_STEPS {
            keys.extend(self.by_pattern.iter().map(|(_, key)| *key));
            return keys;
        }
        (first.interest.topics)(payload, &mut |topic| {
            for (id, known) in &self.patterns {
                if known.pattern.matches(topic) {
                    let sharing = self.by_pattern.range((id, 0)..=(id, usize::MAX));
                    keys.extend(sharing.map(|(_, key)| *key));
                }
            }
        });
        keys
    }
}
