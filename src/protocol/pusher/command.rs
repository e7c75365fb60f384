//! What a client sends: one frame, read into a [`Command`].

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The longest event name, in bytes.
pub(super) const MAX_EVENT_NAME: usize = 200;

/// The longest user id, in bytes.
const MAX_USER: usize = 128;

/// What a client asks for.
#[derive(Debug)]
pub enum Command<'a> {
    /// A sign of life.
    Ping,
    /// Nothing: an answer to a sign of life, or a frame of a later version.
    Nothing,
    /// Events of a channel.
    Subscribe {
        /// Its name, unchecked.
        channel: String,
        /// What the site signed.
        auth: Option<String>,
        /// What the site says of the member, as it was signed.
        data: Option<String>,
    },
    /// No more events of a channel.
    Unsubscribe {
        /// Its name.
        channel: String,
    },
    /// To be a user.
    SignIn {
        /// What the site signed.
        auth: String,
        /// What the site says of the user, as it was signed.
        data: String,
    },
    /// An event for the others on a channel.
    Event {
        /// Its name, which begins with `client-`.
        event: Cow<'a, str>,
        /// The channel.
        channel: String,
        /// Its data, as it stands in the frame.
        data: &'a str,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Fields {
    channel: Option<String>,
    auth: Option<String>,
    channel_data: Option<String>,
    user_data: Option<String>,
}

/// Reads a frame; the error is what is wrong with it.
pub fn parse(text: &str) -> Result<Command<'_>, &'static str> {
    let frame: Envelope<'_> =
        serde_json::from_str(text).map_err(|_| "the frame is no JSON object with an \"event\"")?;
    let no_channel = "the frame names no channel";
    match &*frame.event {
        "pusher:ping" => Ok(Command::Ping),
        "pusher:subscribe" => {
            let Fields { channel, auth, channel_data, .. } = fields(frame.data)?;
            let channel = channel.ok_or(no_channel)?;
            Ok(Command::Subscribe { channel, auth, data: channel_data })
        }
        "pusher:unsubscribe" => {
            let channel = fields(frame.data)?.channel.ok_or(no_channel)?;
            Ok(Command::Unsubscribe { channel })
        }
        "pusher:signin" => {
            let Fields { auth, user_data, .. } = fields(frame.data)?;
            let (auth, data) = auth.zip(user_data).ok_or("the sign-in has no signature")?;
            Ok(Command::SignIn { auth, data })
        }
        event if event.starts_with("client-") => {
            if event.len() > MAX_EVENT_NAME {
                return Err("the event's name is longer than 200 bytes");
            }
            let channel = frame.channel.ok_or(no_channel)?;
            let data = frame.data.map_or("null", RawValue::get);
            Ok(Command::Event { event: frame.event, channel, data })
        }
        // An unknown event of the protocol's own may be one of a later version.
        _ => Ok(Command::Nothing),
    }
}

/// The data of a frame: an object, or a string that holds one.
fn fields(data: Option<&RawValue>) -> Result<Fields, &'static str> {
    let wrong = "the data of the frame is no object";
    let Some(data) = data.map(RawValue::get) else { return Err(wrong) };
    if !data.starts_with('"') {
        return serde_json::from_str(data).map_err(|_| wrong);
    }
    let inner: String = serde_json::from_str(data).map_err(|_| wrong)?;
    serde_json::from_str(&inner).map_err(|_| wrong)
}

/// A member of a presence channel, or a user, as the site says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user id: a number is taken as its digits.
    pub id: Box<str>,
    /// What else is known of it, as JSON.
    pub info: Option<Box<str>>,
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Watching<'a> {
    #[serde(borrow, default)]
    watchlist: Vec<&'a RawValue>,
}

/// The users that the user in `user_data` watches, each once. Ids that no user can have are left
/// out.
pub fn watchlist(data: &str) -> Vec<Box<str>> {
    let watching = serde_json::from_str(data).unwrap_or(Watching { watchlist: Vec::new() });
    let mut users: Vec<Box<str>> = Vec::new();
    for id in watching.watchlist {
        let id = Member::new(id, None).map(|member| member.id);
        users.extend(id.filter(|id| !users.contains(id)));
    }
    users
}

impl Member {
    /// The member in `channel_data`; `None` = it names none.
    pub fn of_channel(data: &str) -> Option<Self> {
        let ChannelData { user_id, user_info } = serde_json::from_str(data).ok()?;
        Self::new(user_id, user_info)
    }

    /// The user in `user_data`; `None` = it names none.
    pub fn of_user(data: &str) -> Option<Self> {
        let UserData { id, user_info } = serde_json::from_str(data).ok()?;
        Self::new(id, user_info)
    }

    fn new(id: &RawValue, info: Option<&RawValue>) -> Option<Self> {
        let text = match id.get() {
            text if text.starts_with('"') => serde_json::from_str(text).ok()?,
            number if number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                number.to_owned()
            }
            _ => return None,
        };
        let fits = !text.is_empty() && text.len() <= MAX_USER && !text.contains(char::is_control);
        let info = info.map(|info| info.get().into());
        fits.then(|| Self { id: text.into(), info })
    }
}
