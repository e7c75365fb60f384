//! One client of the protocol: its subscriptions, and what it may do.
//!
//! It is the same for all transports. [`Client::handle`] does what a frame asks, and
//! [`Client::collect`] reads what has come on its channels since; both put frames into an
//! [`Outbox`]. Dropping it ends its subscriptions.

use super::PusherApp;
use super::counts::Counting;
use super::notice::Notice;
use super::outbox::{Close, Outbox, Way};
use crate::hub::channel::{ChannelName, Cursor, Take};
use crate::hub::presence::{Membership, companion};
use crate::hub::{Subscription, TableFull, Waiter};
use crate::protocol::pusher::channel::{Kind, USER_PREFIX, is_cache, is_name};
use crate::protocol::pusher::event::{Event, Mark};
use crate::protocol::pusher::{Command, Member, SocketId, code, frame, parse, watchlist};
use crate::server::gate::{Gate, Settings};
use crate::server::limits::permit::Permit;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Client events of one connection in a second, at the most.
const CLIENT_EVENTS: u32 = 10;

/// A frame of a client's may be longer than an event's data by this many bytes.
const ENVELOPE: usize = 4 << 10;

/// See the [module](self).
pub(super) struct Client {
    pub(super) gate: Gate,
    pub(super) app: Arc<PusherApp>,
    pub(super) id: SocketId,
    pub(super) mark: Mark,
    pub(super) way: Way,
    pub(super) waiter: Waiter,
    /// What it subscribes to, in the order of the waiter's channels.
    /// Nearly all clients have one.
    pub(super) channels: SmallVec<[Subscribed; 1]>,
    user: Option<Box<str>>,
    /// The client events of the second that began then.
    sent: (Instant, u32),
    pub(super) greeted: bool,
    _permit: Permit,
}

/// A subscription.
pub(super) struct Subscribed {
    pub(super) channel: ChannelName,
    /// The client knows of it; a signed-in user's own channel is there before.
    pub(super) visible: bool,
    /// The newest event is still to be sent.
    pub(super) awaits_cache: bool,
    /// Its messages are about the users on a presence channel that the client is on.
    pub(super) is_roster: bool,
    /// The user that the client is on a presence channel.
    pub(super) member: Option<Box<Member>>,
    /// It is there for all to see.
    pub(super) membership: Option<Box<Membership>>,
    /// The client gets the number of connections.
    pub(super) counting: Option<Box<Counting>>,
}

impl Subscribed {
    fn new(channel: ChannelName, awaits_cache: bool, member: Option<Box<Member>>) -> Self {
        let (membership, counting) = Default::default();
        let (visible, is_roster) = (false, false);
        Self { channel, visible, awaits_cache, is_roster, member, membership, counting }
    }

    /// The channel of the joins and leaves of another one.
    pub(super) fn roster(companion: ChannelName) -> Self {
        Self { is_roster: true, ..Self::new(companion, false, None) }
    }
}

/// Why a subscription is refused: words, and the status that HTTP would have for it.
pub(super) type Refused = (String, u16);

impl Client {
    pub(super) fn new(
        gate: Gate,
        app: Arc<PusherApp>,
        way: Way,
        permit: Permit,
    ) -> Result<Self, TableFull> {
        let (waiter, _) = gate.shared.hub.subscribe(&[], Take::All, (gate.shared.clock)())?;
        gate.shared.pusher.occupancy.connect(&app.app);
        let id = SocketId::from_random(fastrand::u64(..));
        Ok(Self {
            gate,
            app,
            id,
            mark: id.mark(),
            way,
            waiter,
            channels: SmallVec::new(),
            user: None,
            sent: (Instant::now(), 0),
            greeted: false,
            _permit: permit,
        })
    }

    pub(super) fn app(&self) -> &PusherApp {
        &self.app
    }

    /// The settings of its site in force at this moment; `None` = the site is gone.
    fn settings(&self) -> Option<Arc<Settings>> {
        self.gate.settings().of_site(&self.app.app.site)
    }

    /// The longest frame that the client may send, in bytes.
    pub(super) fn max_frame(&self) -> usize {
        self.app.app.max_event.saturating_add(ENVELOPE)
    }

    /// True if no channel's end would wake it.
    pub(super) fn has_no_channels(&self) -> bool {
        self.channels.is_empty()
    }

    /// Why it has to end now, if it has.
    pub(super) fn is_over(&self) -> Option<Close> {
        self.waiter.is_draining().then(|| Close::new(code::RECONNECT, "the server restarts"))
    }

    /// Does what a frame of the client's asks; an error ends the connection.
    pub(super) async fn handle(&mut self, text: &str, out: &mut Outbox) -> Result<(), Close> {
        // A reload may have changed the app, its secret above all.
        let settings = self.settings();
        let known = settings.as_ref().and_then(|settings| settings.pusher.like(&self.app));
        match known {
            Some(app) if !Arc::ptr_eq(app, &self.app) => self.app = app.clone(),
            Some(_) => {}
            None => return Err(Close::new(code::DISABLED_APP, "this app is gone")),
        }
        let command = match parse(text) {
            Ok(command) => command,
            Err(error) => {
                out.push(&frame::error(None, error));
                return Ok(());
            }
        };
        match command {
            Command::Ping => out.push(&frame::pong()),
            Command::Nothing => {}
            Command::Subscribe { channel, auth, data } => {
                if self.index_of(&channel).is_some() {
                    // What has come on a channel that the client did not know of is not for it.
                    self.collect(out)?;
                }
                let refused = self.subscribe(&channel, (auth, data), out).await;
                if let Err((error, status)) = refused {
                    out.push(&frame::refused(&channel, &error, status));
                }
            }
            Command::Unsubscribe { channel } => self.unsubscribe(&channel),
            Command::SignIn { auth, data } => {
                return Box::pin(self.sign_in(&auth, &data, out)).await;
            }
            Command::Event { event, channel, data } => {
                if let Err(error) = Box::pin(self.send(&event, &channel, data)).await {
                    out.push(&frame::error(Some(code::CLIENT_EVENT), error));
                }
            }
        }
        Ok(())
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        let app = &self.app.app;
        self.channels.iter().position(|one| app.name_of(&one.channel) == Some(name))
    }

    async fn subscribe(
        &mut self,
        name: &str,
        (auth, data): (Option<String>, Option<String>),
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let refused = |error: &str, status| Err((error.to_owned(), status));
        if !is_name(name) {
            return refused("this is no name of a channel", 400);
        }
        let kind = Kind::of(name);
        let auth = auth.unwrap_or_default();
        let signed = |data: Option<&str>| {
            let app = &self.app.app;
            app.signer.verify_channel(&app.key, &auth, self.id, name, data)
        };
        let member = match kind {
            Kind::Public => None,
            Kind::Private if signed(data.as_deref()) => None,
            Kind::Presence if data.as_deref().is_some_and(|data| signed(Some(data))) => {
                match data.as_deref().and_then(Member::of_channel) {
                    Some(member) => Some(Box::new(member)),
                    None => return refused("channel_data names no user_id", 400),
                }
            }
            Kind::Private | Kind::Presence => {
                return refused("the signature for this channel is not that of the app", 401);
            }
            Kind::User if name.strip_prefix(USER_PREFIX) == self.user.as_deref() => None,
            Kind::User => return refused("this is the channel of another user", 401),
        };
        if let Some(index) = self.index_of(name) {
            // Again, or for the first time that the client knows of.
            self.show(index);
            let data = self.roster(index).await?;
            out.push(&frame::succeeded(name, data));
            return Ok(());
        }
        self.has_room(name)?;
        let cursor = if is_cache(name) { Cursor::Oldest } else { Cursor::Now };
        self.add(name, cursor, member).map_err(|error| (error, 503))?;
        let index = self.channels.len() - 1;
        self.show(index);
        let joined = self.join(index).await;
        match joined {
            Ok(data) => out.push(&frame::succeeded(name, data)),
            Err(refused) => {
                self.unsubscribe(name);
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Refuses one channel too many.
    fn has_room(&self, name: &str) -> Result<(), Refused> {
        let Some(settings) = self.settings() else { return Err(("this app is gone".into(), 503)) };
        let limits = &settings.limits;
        let most = limits.channels_per_poll;
        let own = self.channels.iter().filter(|one| !one.is_roster).count();
        if most > 0 && own >= most {
            return Err((format!("a connection has at most {most} channels"), 403));
        }
        let crowded = |channel: &ChannelName| {
            limits.per_channel > 0 && self.gate.shared.hub.held_on(channel) >= limits.per_channel
        };
        match self.app.app.channel(name) {
            Ok(channel) if crowded(&channel) => Err(("this channel is full".to_owned(), 503)),
            _ => Ok(()),
        }
    }

    /// Registers on one more channel, unseen.
    fn add(
        &mut self,
        name: &str,
        cursor: Cursor,
        member: Option<Box<Member>>,
    ) -> Result<(), String> {
        let channel = self.app.app.channel(name).map_err(|error| error.to_string())?;
        let subscription = Subscription { channel, cursor };
        let now = (self.gate.shared.clock)();
        let added = self.waiter.add(&subscription, now).map_err(|full| full.to_string())?;
        // The name as the hub has it, which all clients share.
        let channel = added.channel;
        let awaits_cache = cursor == Cursor::Oldest;
        self.channels.push(Subscribed::new(channel, awaits_cache, member));
        Ok(())
    }

    /// From now on the client gets the events of a channel.
    fn show(&mut self, index: usize) {
        let pusher = &self.gate.shared.pusher;
        if let Some(one) = self.channels.get_mut(index).filter(|one| !one.visible) {
            one.visible = true;
            pusher.occupancy.enter(&one.channel);
            let name = self.app.app.name_of(&one.channel).unwrap_or_default();
            if self.app.subscription_count && Kind::of(name).is_counted() {
                let counting = pusher.counts.enter(&one.channel, self.waiter.wake_handle());
                one.counting = Some(Box::new(counting));
            }
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        let Some(index) = self.index_of(name) else { return };
        if let Some(one) = self.channels.get_mut(index).filter(|one| one.visible) {
            one.visible = false;
            self.gate.shared.pusher.occupancy.leave(&one.channel);
        }
        // A signed-in user is still reached through it.
        if Kind::of(name) == Kind::User {
            return;
        }
        let one = self.remove(index);
        let companion = companion(&one.channel).filter(|_| one.member.is_some());
        let roster = companion.and_then(|companion| {
            self.channels.iter().position(|one| one.is_roster && one.channel == companion)
        });
        if let Some(index) = roster {
            self.remove(index);
        }
        if let Some(membership) = one.membership {
            membership.leave();
        }
    }

    fn remove(&mut self, index: usize) -> Subscribed {
        self.waiter.remove(index);
        self.channels.remove(index)
    }

    async fn sign_in(&mut self, auth: &str, data: &str, out: &mut Outbox) -> Result<(), Close> {
        let refused = |error: &'static str| Err(Close::new(code::UNAUTHORIZED, error));
        let app = &self.app.app;
        if !app.signer.verify_user(&app.key, auth, self.id, data) {
            return refused("the signature of this sign-in is not that of the app");
        }
        let Some(user) = Member::of_user(data) else {
            return refused("user_data names no id");
        };
        match &self.user {
            Some(before) if *before != user.id => {
                return refused("this connection is another user's");
            }
            Some(_) => out.push(&frame::signed_in(data)),
            None => {
                let name = format!("{USER_PREFIX}{}", user.id);
                if !is_name(&name) {
                    return refused("the user's id cannot stand in the name of a channel");
                }
                let added = self.add(&name, Cursor::Now, None);
                added.map_err(|error| Close::new(code::OVER_CAPACITY, error))?;
                self.user = Some(user.id.clone());
                out.push(&frame::signed_in(data));
                if self.app.watchlists {
                    self.watch(&user.id, &watchlist(data), out).await;
                }
            }
        }
        Ok(())
    }

    /// Sends an event to the others on a channel.
    async fn send(&mut self, name: &str, channel: &str, data: &str) -> Result<(), &'static str> {
        let app = self.app.clone();
        if !app.app.client_events {
            return Err("client events are not enabled for this app");
        }
        let takes = Kind::of(channel).takes_client_events();
        if !takes || channel.starts_with("private-encrypted-") {
            return Err("client events are for private and presence channels");
        }
        let subscribed = self.index_of(channel).and_then(|index| self.channels.get(index));
        let Some(subscribed) = subscribed.filter(|one| one.visible) else {
            return Err("client events are for the members of a channel");
        };
        if data.len() > app.app.max_event {
            return Err("the event's data is too long");
        }
        let now = Instant::now();
        if now.duration_since(self.sent.0) >= Duration::from_secs(1) {
            self.sent = (now, 0);
        }
        if self.sent.1 >= CLIENT_EVENTS {
            return Err("a connection may send 10 events a second");
        }
        self.sent.1 += 1;
        let user = subscribed.member.as_ref().map(|member| &*member.id);
        let payload = Event { event: name, data, user, except: Some(self.mark) }.payload();
        let published = (self.gate.shared.event_publish)(subscribed.channel.clone(), payload);
        if !published.await {
            return Err("the event could not be published");
        }
        let notice = Notice::ClientEvent { event: name, data, socket: self.id, user };
        self.gate.shared.pusher.notices.report(&subscribed.channel, notice);
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let pusher = &self.gate.shared.pusher;
        pusher.occupancy.disconnect(&self.app.app);
        for one in self.channels.iter().filter(|one| one.visible) {
            pusher.occupancy.leave(&one.channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_one_channel_takes_no_more_than_a_held_poll() {
        // A class of the allocator. Its first channel is in it.
        assert!(size_of::<Client>() <= 448, "{}", size_of::<Client>());
    }
}
