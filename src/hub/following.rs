//! The look of a stream that lacks nothing but the newest message, as nearly all of them do.
//!
//! A message for many streams is looked up, placed and rendered alike for each of them. This look
//! does for one stream only what is not the same for all.

use super::Waiter;
use super::registration::Registration;
use crate::hub::channel::{ChannelName, Following, Renders, Time};
use bytes::Bytes;

/// The one message that was new to a stream.
#[derive(Debug)]
pub struct Rendered {
    /// Its bytes, shared by all.
    pub bytes: Bytes,
    /// When it was published.
    pub published: Time,
}

impl Waiter {
    /// The newest message, if it is the only one that this stream lacks and `find` has its bytes;
    /// the stream's place moves past it, and it stays registered. `None` = nothing has changed, and
    /// [`Waiter::look`] finds what there is.
    pub fn look_for_rendered(
        &mut self,
        now: Time,
        find: impl FnOnce(&Renders) -> Option<Bytes>,
    ) -> Option<Rendered> {
        if !self.follows_all() {
            return None;
        }
        let now = self.hub.time(now);
        let ([registration], [registered]) =
            (self.registrations.as_mut_slice(), self.registered.as_mut_slice())
        else {
            return None;
        };
        let Registration { channel, key, round } = registration;
        let mut state = channel.state.lock();
        if state.forgotten {
            return None;
        }
        let found = self.hub.with_trimmed(&mut state, now, |state| {
            let Following { message, before, renders } =
                state.history.only_after(registered.found.position)?;
            let bytes = find(renders).filter(|bytes| !bytes.is_empty())?;
            let published = message.published;
            let found = &mut registered.found;
            (found.position, found.stamp) = (message.position, message.stamp);
            (found.tag, found.before) = (Some(message.tag), before);
            // In a later round the key may be another waiter's.
            if state.round == *round {
                state.waiters.try_remove(*key);
            }
            (*key, *round) = (state.waiters.insert(self.notifier.clone()), state.round);
            if let Some(feed) = &mut state.feed {
                // A stream does not poll again.
                feed.touch(now);
            }
            Some(Rendered { bytes, published })
        });
        drop(state);
        self.see_drain();
        found
    }

    /// The channel of a stream on one.
    pub fn channel(&self) -> Option<&ChannelName> {
        self.registered.first().map(|update| &update.channel)
    }
}
