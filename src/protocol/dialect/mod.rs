//! The wire formats of polls: each parses a request into a [`Poll`] and renders an [`Answer`].
//!
//! Pure translation: nothing here waits or knows a connection. If an answer is the same for every
//! client (one channel, its newest message), it is rendered once and shared
//! ([`crate::hub::channel::Renders`]).

mod json;
pub mod native;
mod native_cursor;
pub mod nchan;
pub mod novcomet;
pub mod presence;
pub mod replay;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod timestamp;

use crate::hub::channel::{
    ChannelName, Cursor, NameError, RenderKey, Renders, SiteName, Take, Tick,
};
use crate::hub::{Answer, ChannelUpdate, Subscription};
use crate::protocol::http::query::Query;
use crate::protocol::http::{self, Headers, Reply};
use crate::protocol::template::Field;
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;
use std::time::Duration;
use stream::Transport;

/// The parts of a poll request that the dialects read.
pub struct Request<'a> {
    /// The parts that the `*`s of the rule's path matched, as they stand in the target (still
    /// escaped).
    pub stars: &'a [&'a str],
    /// The parameters behind the `?`.
    pub query: &'a Query<'a>,
    /// The parameters of the form in the body of a POST; `None` without one.
    pub form: Option<&'a Query<'a>>,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The way that it wants to be answered.
    pub transport: Transport,
    /// The site of its channels.
    pub site: &'a SiteName,
}

impl<'a> Request<'a> {
    /// The channel `name` of its site.
    fn channel(&self, name: &str) -> Result<ChannelName, NameError> {
        ChannelName::of_site(self.site, name)
    }

    /// A scalar parameter: from the form if it is there, else from the query.
    fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.form.and_then(|form| form.text(name)).or_else(|| self.query.text(name))
    }

    /// Where a stream left off: the first there is of the `Last-Event-ID` header and the names that
    /// clients give it in the query. Nothing for a poll, whose dialect has a place of its own.
    fn resumed(&self) -> Option<Cow<'a, str>> {
        if self.transport == Transport::Poll {
            return None;
        }
        self.cursor().filter(|cursor| !cursor.is_empty())
    }

    /// The same for a dialect with a `cursor` parameter, which polls have too.
    fn cursor(&self) -> Option<Cow<'a, str>> {
        let header = || self.headers.get("last-event-id").filter(|id| !id.is_empty());
        let filled = |name: &&str| self.query.text(name).filter(|id| !id.is_empty());
        let named = || stream::RESUME_NAMES.iter().find_map(filled);
        let cursor = || self.query.text("cursor");
        if self.transport == Transport::Poll {
            return cursor();
        }
        header().map(|id| Cow::Owned(id.to_owned())).or_else(named).or_else(cursor)
    }

    /// The value of a template's field.
    pub fn field(&self, field: &Field) -> Option<Cow<'a, str>> {
        match field {
            Field::Query(name) => self.query.text(name),
            Field::Form(name) => self.form?.text(name),
            Field::Header(name) => self.headers.get(name).map(|v| Cow::Owned(v.to_owned())),
            Field::Cookie(name) => {
                http::text_cookie(self.headers, name).map(|v| Cow::Owned(v.to_owned()))
            }
            Field::Path(n) => {
                let star = self.stars.get(n.checked_sub(1)?)?;
                let decoded = crate::protocol::http::query::decode_strictly(star)?;
                Some(Cow::Owned(String::from_utf8(decoded.into_owned()).ok()?))
            }
            Field::Json(_) | Field::ResponseBody => None,
        }
    }
}

/// A parsed poll.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The channels and the cursor in each.
    pub subscriptions: SmallVec<[Subscription; 1]>,
    /// Selects among the waiting messages.
    pub take: Take,
    /// The client's own maximum hold; it only shortens the rule's.
    pub timeout: Option<Duration>,
    /// The function that a JSONP answer calls.
    pub callback: Option<Box<str>>,
}

impl Poll {
    /// A poll on `channel` for its next messages.
    pub fn on(channel: ChannelName) -> Self {
        let subscriptions = smallvec![Subscription { channel, cursor: Cursor::Now }];
        Self { subscriptions, take: Take::Newest, timeout: None, callback: None }
    }
}

/// The outcome of parsing a request that a rule has matched.
#[derive(Debug)]
pub enum Parsed {
    /// A poll.
    Poll(Poll),
    /// The request cannot fill the rule's templates, so the rule does not apply.
    OtherRule,
    /// The rule says that the request is no poll, whatever later rules say.
    NoPoll,
    /// A request that cannot be parsed, with the response to it.
    Refused(Reply),
}

/// One wire format with its settings.
#[derive(Debug, Clone)]
pub enum Dialect {
    /// pollgate's own.
    Native(native::Native),
    /// The NovComet family.
    NovComet(novcomet::NovComet),
    /// The `backend.php` family.
    Timestamp(timestamp::Timestamp),
    /// What clients of nginx with Nchan speak.
    Nchan(nchan::Nchan),
    /// Answered by the upstream.
    Replay(replay::Replay),
    /// None: the request is no poll, and goes to the upstream.
    None,
}

impl Dialect {
    /// Parses a request; `tick` returns the unit of a channel's stamps.
    pub fn parse(&self, request: &Request<'_>, tick: &dyn Fn(&ChannelName) -> Tick) -> Parsed {
        match self {
            Self::Native(native) => native.parse(request),
            Self::NovComet(novcomet) => novcomet.parse(request, tick),
            Self::Timestamp(timestamp) => timestamp.parse(request, tick),
            Self::Nchan(nchan) => nchan.parse(request),
            Self::Replay(replay) => replay.parse(request),
            Self::None => Parsed::NoPoll,
        }
    }

    /// An upper bound of the channels that a request names: counted, not parsed, so that a limit
    /// comes before the work.
    pub fn count_channels(&self, request: &Request<'_>) -> usize {
        match self {
            Self::Native(native) if native.channel.is_none() => {
                let rest = request.stars.last().copied().unwrap_or_default();
                1 + memchr::memchr_iter(b',', rest.as_bytes()).count()
            }
            Self::NovComet(_) => {
                let of = |query: &Query<'_>| query.count("subscribed");
                request.form.map_or(0, of).max(of(request.query))
            }
            Self::Nchan(nchan) => nchan.count_channels(request),
            Self::Native(_) | Self::Timestamp(_) | Self::Replay(_) | Self::None => 1,
        }
    }

    /// The response, with an update or quiet; `callback` is that of the [`Poll`].
    pub fn render(&self, answer: &Answer, callback: Option<&str>) -> Reply {
        match self {
            Self::Native(native) => native.render(answer, callback),
            Self::NovComet(novcomet) => novcomet.render(answer),
            Self::Timestamp(timestamp) => timestamp.render(answer, callback),
            Self::Nchan(nchan) => nchan.render(answer, false),
            // The upstream has the response; this one is empty.
            Self::Replay(_) | Self::None => Reply::new(204, "", ""),
        }
    }

    /// The response together with the list of users, which is JSON. Only the native dialect has a
    /// place for it.
    pub fn render_with_presence(
        &self,
        answer: &Answer,
        callback: Option<&str>,
        presence: &str,
    ) -> Reply {
        match self {
            Self::Native(native) => native.render_with_presence(answer, callback, presence),
            _ => self.render(answer, callback),
        }
    }

    /// Bytes that rendering an answer takes at the least, apart from what is shared with other
    /// clients: a limit on them stands before the rendering.
    pub fn least_length(&self, answer: &Answer, callback: Option<&str>) -> usize {
        let renders = match self {
            Self::Native(_) => callback.is_some() || shared(answer).is_none(),
            Self::Timestamp(timestamp) => timestamp.copies(answer, callback),
            Self::Nchan(nchan) => nchan.copies(answer),
            Self::NovComet(_) | Self::Replay(_) | Self::None => false,
        };
        if !renders {
            return 0;
        }
        let messages = answer.iter().flat_map(|update| &update.found.messages);
        messages.fold(0, |sum, message| sum.saturating_add(message.payload.body.len()))
    }

    /// The response to a poll that was held until now.
    pub fn render_held(&self, answer: &Answer, callback: Option<&str>) -> Reply {
        match self {
            Self::Nchan(nchan) => nchan.render(answer, true),
            _ => self.render(answer, callback),
        }
    }

    /// True if a query parameter changes with each poll of one client: its position, its timeout,
    /// the name of its callback.
    pub fn moves(&self, parameter: &str) -> bool {
        // jQuery adds this one against caches, in all dialects.
        parameter == "_"
            || stream::RESUME_NAMES.contains(&parameter)
            || match self {
                Self::Native(native) => {
                    matches!(parameter, "cursor" | "timeout" | "presence" | "leave")
                        || native.callback.as_deref() == Some(parameter)
                }
                Self::NovComet(_) => parameter == "subscribed",
                Self::Timestamp(timestamp) => {
                    parameter == timestamp.cursor_field
                        || timestamp.callback.as_deref() == Some(parameter)
                }
                Self::Replay(replay) => replay.cursor.as_deref() == Some(parameter),
                Self::Nchan(_) | Self::None => false,
            }
    }

    /// True if the path behind the rule's stem consists of the poll's channels only.
    pub fn has_channels_in_path(&self) -> bool {
        match self {
            Self::Native(native) => native.channel.is_none(),
            Self::Nchan(nchan) => nchan.channel.is_none(),
            _ => false,
        }
    }

    /// True if a poll at its timeout gets the newest message again.
    pub fn repeats_latest(&self) -> bool {
        let latest = timestamp::OnTimeout::Latest;
        matches!(self, Self::Timestamp(timestamp) if timestamp.on_timeout == latest)
    }

    /// True if its requests are no polls.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Its name in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Native(_) => "native",
            Self::NovComet(_) => "novcomet",
            Self::Timestamp(_) => "timestamp",
            Self::Nchan(_) => "nchan",
            Self::Replay(_) => "replay",
            Self::None => "none",
        }
    }
}

/// The content type PHP sends by default.
pub const PHP_CONTENT_TYPE: &str = "text/html; charset=UTF-8";

/// The function that `request` wants to be called, in the parameter `name`.
fn callback(name: Option<&str>, request: &Request<'_>) -> Result<Option<Box<str>>, Reply> {
    let Some(name) = name.and_then(|name| request.parameter(name)) else { return Ok(None) };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$');
    if name.is_empty() || !name.bytes().all(allowed) {
        let error = "the callback is not one name of A-Z a-z 0-9 _ . $\n";
        return Err(Reply::new(400, "text/plain; charset=UTF-8", error));
    }
    Ok(Some(name.into()))
}

/// The response to a malformed request, in a dialect without a form for errors.
fn refused(error: NameError) -> Parsed {
    Parsed::Refused(Reply::new(400, "text/plain; charset=UTF-8", format!("{error}\n")))
}

/// Renders under `key` once for all clients if `answer` is just its channel's newest message.
fn rendered_once(answer: &Answer, key: RenderKey, render: impl FnOnce() -> Bytes) -> Bytes {
    match shared(answer) {
        Some(renders) => renders.get_or_render(key, render),
        None => render(),
    }
}

/// The renderings of such an answer.
fn shared(answer: &Answer) -> Option<&Renders> {
    match answer.as_slice() {
        [ChannelUpdate { found, .. }] if !found.reset && found.messages.len() == 1 => {
            found.renders.as_deref()
        }
        _ => None,
    }
}
