//! Names of channels: their prefix says who may subscribe, and what they do besides.

/// The longest name, in bytes.
pub const MAX_NAME: usize = 164;

/// The beginning of a signed-in user's own channel.
pub const USER_PREFIX: &str = "#server-to-user-";

/// Who may subscribe to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All.
    Public,
    /// It needs the site's signature; encrypted ones, too, whose events are opaque here.
    Private,
    /// The same, and each sees who the others are.
    Presence,
    /// The signed-in user.
    User,
}

impl Kind {
    /// The kind that a name says.
    pub fn of(name: &str) -> Self {
        if name.starts_with("private-") {
            Self::Private
        } else if name.starts_with("presence-") {
            Self::Presence
        } else if name.starts_with(USER_PREFIX) {
            Self::User
        } else {
            Self::Public
        }
    }

    /// True if the site decides who may subscribe.
    pub fn is_guarded(self) -> bool {
        self != Self::Public
    }

    /// True if its subscribers may see how many they are: of a presence channel they know more.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::Public | Self::Private)
    }

    /// True if its members may send events to each other.
    pub fn takes_client_events(self) -> bool {
        matches!(self, Self::Private | Self::Presence)
    }
}

/// True if subscribers get the newest event at once.
pub fn is_cache(name: &str) -> bool {
    ["cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// True if a text is a channel's name.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'@' | b',' | b'.' | b';')
    };
    let rest = text.strip_prefix('#').unwrap_or(text);
    let known = rest.len() == text.len() || text.starts_with(USER_PREFIX);
    known && !rest.is_empty() && text.len() <= MAX_NAME && rest.bytes().all(allowed)
}
