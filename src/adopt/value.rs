//! Values without running the program: their text as far as it is constant, and their origins.

use std::collections::BTreeSet;

/// The part of a request that a parameter is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Get,
    Post,
    /// `$_REQUEST`, or a framework's own reader.
    Either,
    Cookie,
    /// A JSON body.
    Json,
    /// The address: what the N-th `*` of its pattern stands for.
    Path,
}

/// Something that a value was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Parameter(Source, String),
    /// A word that stands for a parameter that is missing: `$_GET['room'] ?? 'home'`.
    Instead(String),
    /// The request itself, as a framework hands it over.
    Request(Source),
    /// A new row of a table, which is not stored yet.
    Entity(String),
    /// When a file was changed last.
    ChangeTime(Place),
    /// Something else about a file: its size, its hash.
    State(Place),
    /// The bytes of a file.
    Content(Place),
    /// The answer of a query; the table, where it could be seen.
    Rows(String),
    /// A statement that changes a table.
    Written(String),
    /// The answer of a cache or queue.
    Cache,
    Clock,
    /// The time that has passed since another.
    Elapsed,
    /// So many seconds later.
    Later(u32),
    /// The request's method.
    Method,
    /// A variable of the environment.
    Environment(String),
    /// Multiplied by 1000.
    Thousandfold,
    /// Made of what is here, but no longer the same bytes.
    Changed,
    /// Cut at its ends.
    Trimmed,
    /// Decoded JSON.
    Decoded,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// A number, `true`, `false` or `null`.
    Bare(String),
    /// A value, as JSON.
    Json(Box<Value>),
    /// A text that is known when it runs.
    Open(BTreeSet<Origin>),
}

/// A value. The default is one of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Value {
    /// It as a text; `None` = not known, or no text.
    pub(super) pieces: Option<Vec<Piece>>,
    pub(super) origins: BTreeSet<Origin>,
    /// The entries of an array with constant keys.
    pub(super) fields: Vec<(String, Value)>,
    /// Its other entries, and their keys.
    pub(super) entry: Option<Box<(Value, Value)>>,
    /// The number of the object that it is.
    pub(super) object: Option<usize>,
    /// The number of the closure that it is.
    pub(super) closure: Option<usize>,
}

/// The path of a file, with a `*` for each part that is known only when it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) path: String,
    /// The origins of the parts behind the stars.
    pub(super) open: Vec<Origin>,
}

/// A value of more parts is cut down to where it comes from.
const LARGEST: usize = 300;

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { pieces: Some(vec![Piece::Text(text.into())]), ..Self::default() }
    }

    pub(super) fn from_origin(origin: Origin) -> Self {
        Self { origins: BTreeSet::from([origin]), ..Self::default() }
    }

    pub(super) fn bare(text: impl Into<String>) -> Self {
        Self { pieces: Some(vec![Piece::Bare(text.into())]), ..Self::default() }
    }

    /// The text, if all of it is constant.
    pub(super) fn constant(&self) -> Option<String> {
        let pieces = self.pieces.as_ref()?;
        let text = |piece: &Piece| match piece {
            Piece::Text(text) | Piece::Bare(text) => Some(text.clone()),
            _ => None,
        };
        pieces.iter().map(text).collect()
    }

    pub(super) fn number(&self) -> Option<f64> {
        self.constant()?.trim().parse().ok()
    }

    /// The parameters of the request that it comes from.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (Source, &str)> {
        self.origins.iter().filter_map(|origin| match origin {
            Origin::Parameter(source, name) => Some((*source, name.as_str())),
            _ => None,
        })
    }

    pub(super) fn has(&self, wanted: impl Fn(&Origin) -> bool) -> bool {
        self.origins.iter().any(wanted)
    }

    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(super) fn set_field(&mut self, name: &str, value: Value) {
        match self.fields.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }

    pub(super) fn with(mut self, origin: Origin) -> Self {
        self.origins.insert(origin);
        self
    }

    /// It as pieces of a longer text.
    pub(super) fn into_pieces(self) -> Vec<Piece> {
        match self.pieces {
            Some(pieces) => pieces,
            None => vec![Piece::Open(self.all_origins())],
        }
    }

    /// The origins of it and of all its entries.
    pub(super) fn all_origins(&self) -> BTreeSet<Origin> {
        let mut all = self.origins.clone();
        for (_, value) in &self.fields {
            all.extend(value.all_origins());
        }
        if let Some(entry) = &self.entry {
            all.extend(entry.1.all_origins());
        }
        for piece in self.pieces.iter().flatten() {
            match piece {
                Piece::Text(_) | Piece::Bare(_) => {}
                Piece::Json(value) => all.extend(value.all_origins()),
                Piece::Open(origins) => all.extend(origins.iter().cloned()),
            }
        }
        all
    }

    /// A value of which no more is known than what went into it.
    pub(super) fn made_of<'a>(parts: impl IntoIterator<Item = &'a Value>) -> Self {
        let origins = parts.into_iter().flat_map(Value::all_origins).collect();
        Self { origins, ..Self::default() }
    }

    /// One text behind the other.
    pub(super) fn join(parts: impl IntoIterator<Item = Value>) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut origins = BTreeSet::new();
        for part in parts {
            origins.extend(part.origins.iter().cloned());
            for piece in part.into_pieces() {
                match (pieces.last_mut(), piece) {
                    (Some(Piece::Text(last)), Piece::Text(text) | Piece::Bare(text)) => {
                        last.push_str(&text);
                    }
                    (_, Piece::Bare(text)) => pieces.push(Piece::Text(text)),
                    (_, piece) => pieces.push(piece),
                }
            }
        }
        Self { pieces: Some(pieces), origins, ..Self::default() }.bounded()
    }

    /// Either of two values: after a branch, or of several returns.
    pub(super) fn or(self, other: Value) -> Self {
        if other == Self::default() || self == other {
            return self;
        }
        if self == Self::default() {
            return other;
        }
        let origins = self.all_origins().into_iter().chain(other.all_origins()).collect();
        let json = |value: &Value| match value.pieces.as_deref() {
            Some([Piece::Json(inside)]) => Some(inside.as_ref().clone()),
            _ => None,
        };
        let pieces = match (json(&self), json(&other)) {
            (Some(one), Some(two)) => Some(vec![Piece::Json(Box::new(one.or(two)))]),
            // An empty text is the word for "nothing there": the other one tells more.
            _ if self.constant().is_some_and(|text| text.is_empty()) => other.pieces,
            // `getenv('X') ?: 'this'`
            _ if self.pieces.is_none() && self.is_from_environment() => other.pieces,
            _ if other.pieces == self.pieces || other.constant().is_some() => self.pieces,
            _ if self.constant().is_some() => other.pieces,
            _ => None,
        };
        let mut fields = self.fields;
        for (name, value) in other.fields {
            match fields.iter_mut().find(|(key, _)| *key == name) {
                Some((_, old)) => *old = std::mem::take(old).or(value),
                None => fields.push((name, value)),
            }
        }
        let entry = self.entry.or(other.entry);
        let object = self.object.or(other.object);
        let closure = self.closure.or(other.closure);
        Self { pieces, origins, fields, entry, object, closure }.bounded()
    }

    fn is_from_environment(&self) -> bool {
        let environment = |origin: &Origin| matches!(origin, Origin::Environment(_));
        !self.origins.is_empty() && self.origins.iter().all(environment)
    }

    /// Itself, or only where it comes from if it has grown too large.
    pub(super) fn bounded(self) -> Self {
        if self.size() <= LARGEST {
            return self;
        }
        Self { origins: self.all_origins().into_iter().take(LARGEST).collect(), ..Self::default() }
    }

    fn size(&self) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::Text(_) | Piece::Bare(_) => 1,
            Piece::Json(value) => 1 + value.size(),
            Piece::Open(origins) => 1 + origins.len(),
        };
        let pieces: usize = self.pieces.iter().flatten().map(piece).sum();
        let fields: usize = self.fields.iter().map(|(_, value)| value.size()).sum();
        let entry = self.entry.as_ref().map_or(0, |entry| entry.0.size() + entry.1.size());
        1 + pieces + fields + entry + self.origins.len()
    }

    /// It as the path of a file; relative ones are seen from `folder`.
    pub(super) fn place(&self, folder: &str) -> Place {
        let mut place = Place { path: String::new(), open: Vec::new() };
        for piece in self.clone().into_pieces() {
            match piece {
                Piece::Text(text) | Piece::Bare(text) => {
                    place.path.push_str(&text.replace('*', "?"));
                }
                Piece::Json(_) => place.path.push('*'),
                Piece::Open(origins) => {
                    place.path.push('*');
                    place.open.extend(origins);
                }
            }
        }
        if !place.path.starts_with(['/', '*']) {
            place.path = format!("{folder}/{}", place.path);
        }
        place.path = folded(&place.path);
        place
    }
}

impl Place {
    /// True if the gate can watch it: an absolute path with at most one star, which is not all of
    /// the file's name, and not the first directory.
    pub(super) fn is_known(&self) -> bool {
        let name = self.name();
        self.path.starts_with('/')
            && !self.path.starts_with("/*")
            && !name.is_empty()
            && name != "*"
            && self.path.matches('*').count() <= 1
    }

    pub(super) fn has_star(&self) -> bool {
        self.path.contains('*')
    }

    /// The last part of its path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// A path without `.`, `..` and `//`.
pub(super) fn folded(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}
