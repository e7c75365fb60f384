//! A waiter's registration at one of its channels, and the look into the channel that makes it.

use super::interest::{Index, Interest};
use super::notifier::Notifier;
use super::table::Class;
use super::{Channel, ChannelUpdate, Hub, State, Subscription, TableFull};
use crate::hub::channel::{Cursor, Lookup, Take, Time};
use std::sync::Arc;

/// A cursor that is placed later, where a sequencer gives the positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unresolved {
    pub(super) cursor: Cursor,
    /// Time of the poll.
    pub(super) arrived: Time,
    /// Number of the read after which any cursor can be placed; `None` = no read needed.
    pub(super) read: Option<u64>,
    /// The cursor was looked at after that read and there was just nothing new: a cursor in the
    /// channel's time may be ahead of the newest message here.
    pub(super) quiet: bool,
}

/// A waiter that a look into a channel may register there.
#[derive(Clone, Copy)]
pub(super) struct Hold<'a> {
    pub(super) notifier: &'a Arc<Notifier>,
    /// It waits on several channels.
    pub(super) several: bool,
    /// The messages that it wants; `None` = all.
    pub(super) interest: Option<&'a Arc<Interest>>,
}

/// The registration that a look into a channel leaves there.
#[derive(Clone, Copy)]
pub(super) enum Register<'a> {
    Never,
    /// A poll's: news answers it, and ends it.
    IfQuiet(Hold<'a>),
    /// A stream's: it stays.
    Always(Hold<'a>),
}

impl<'a> Register<'a> {
    /// The waiter to register after `found`.
    pub(super) fn after(self, found: &Lookup) -> Option<Hold<'a>> {
        match self {
            Self::Never => None,
            Self::IfQuiet(hold) => (!found.has_update).then_some(hold),
            Self::Always(hold) => Some(hold),
        }
    }

    /// It wants some of the messages only.
    pub(super) fn is_selective(self) -> bool {
        matches!(self, Self::Always(Hold { interest: Some(_), .. }))
    }

    /// It waits on several channels.
    pub(super) fn on_several(self) -> bool {
        match self {
            Self::Never => false,
            Self::IfQuiet(hold) | Self::Always(hold) => hold.several,
        }
    }

    pub(super) fn is_never(self) -> bool {
        matches!(self, Self::Never)
    }
}

/// The result of a look into one channel.
pub(super) struct Look {
    pub(super) update: ChannelUpdate,
    pub(super) registration: Option<Registration>,
    pub(super) unresolved: Option<Unresolved>,
}

/// A waiter's registration on one channel.
pub(super) struct Registration {
    pub(super) channel: Arc<Channel>,
    pub(super) key: usize,
    pub(super) round: u64,
}

impl Registration {
    /// The round of a registration that has ended.
    const ENDED: u64 = u64::MAX;
    /// The round of one that stays whatever is woken, since it is for some messages only.
    const SELECTIVE: u64 = u64::MAX - 1;

    /// Registers a waiter that was given `found`; `unresolved` = its cursor is not placed yet.
    pub(super) fn new(
        channel: &Arc<Channel>,
        state: &mut State,
        hold: Hold<'_>,
        found: &Lookup,
        unresolved: bool,
    ) -> Self {
        let (key, round) = match hold.interest {
            None => (state.waiters.insert(hold.notifier.clone()), state.round),
            Some(interest) => {
                let here = state.history.position();
                let index = state.selective.get_or_insert_with(|| Box::new(Index::new(here)));
                let key = index.insert(hold.notifier, interest, found.position, unresolved);
                (key, Self::SELECTIVE)
            }
        };
        Self { channel: channel.clone(), key, round }
    }

    pub(super) fn end(&mut self, hub: &Hub) {
        if self.round == Self::ENDED && !self.channel.is_listed_as(Class::Waiting) {
            return;
        }
        let channel = self.channel.clone();
        let mut state = channel.state.lock();
        self.end_locked(&mut state);
        let abandoned = !state.stored && !state.forgotten && state.is_unheld();
        drop(state);
        if abandoned {
            hub.release(&channel.name);
        }
    }

    fn end_locked(&mut self, state: &mut State) {
        // In a later round, or once it has ended, the key may be another waiter's.
        if state.round == self.round {
            state.waiters.try_remove(self.key);
        }
        if self.round == Self::SELECTIVE
            && let Some(index) = &mut state.selective
        {
            index.remove(self.key);
            if index.is_empty() {
                state.selective = None;
            }
        }
        self.round = Self::ENDED;
    }

    /// Looks into the channel for messages after `registered`; registers again where there are
    /// none.
    pub(super) fn look_again(
        &mut self,
        hub: &Hub,
        register: Register<'_>,
        registered: &ChannelUpdate,
        take: Take,
        unresolved: &mut Option<Unresolved>,
        now: Time,
    ) -> Result<ChannelUpdate, TableFull> {
        let place = registered.found.position;
        let mut cursor = match unresolved {
            None => Cursor::At(place),
            Some(unresolved) => unresolved.cursor,
        };
        let channel = self.channel.clone();
        let mut state = channel.state.lock();
        let selective = register.is_selective();
        if !selective || state.forgotten {
            self.end_locked(&mut state);
        }
        if state.forgotten {
            drop(state);
            let channel = registered.channel.clone();
            let subscription = Subscription { channel, cursor };
            let looked = hub.look_at(&subscription, take, register, now)?;
            *unresolved = looked.unresolved;
            if let Some(registration) = looked.registration {
                *self = registration;
            }
            return Ok(looked.update);
        }
        if let (Some(feed), Register::Always(_)) = (&mut state.feed, register) {
            // A stream does not poll again.
            feed.touch(now);
        }
        if selective && unresolved.is_none() {
            let index = state.selective.as_ref();
            match index.and_then(|index| index.to_read(self.key, place)) {
                None => return Ok(registered.clone()),
                Some(position) => cursor = Cursor::At(position),
            }
        }
        let was_unplaced = unresolved.is_some();
        let found = hub.with_trimmed(&mut state, now, |state| match *unresolved {
            // A position from here is good for ever: a history that began anew since then resets
            // it.
            None => {
                let found = state.history.since(cursor, take, state.limits.tick, now);
                match state.feed {
                    None => found,
                    // Messages of before may still be on their way.
                    Some(_) => Lookup { as_of: Time(0), ..found },
                }
            }
            Some(cursor) => {
                let (found, still) = state.place(cursor, take, now);
                *unresolved = still;
                found
            }
        });
        if selective {
            if let Some(index) = &mut state.selective {
                index.give(self.key, &found, unresolved.is_some());
            }
        } else if let Some(hold) = register.after(&found) {
            *self = Self::new(&channel, &mut state, hold, &found, unresolved.is_some());
        }
        if !found.has_update && !was_unplaced {
            let mut quiet = registered.clone();
            quiet.found.as_of = found.as_of;
            return Ok(quiet);
        }
        Ok(ChannelUpdate { channel: registered.channel.clone(), tick: registered.tick, found })
    }
}

impl Unresolved {
    pub(super) fn of(index: usize, all: &mut Vec<(usize, Self)>) -> Option<Self> {
        let at = all.iter().position(|(of, _)| *of == index)?;
        Some(all.swap_remove(at).1)
    }
}
