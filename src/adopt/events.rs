//! The acts of a script, as far as they have to do with waiting, files and answers.

use super::value::{Place, Source, Value};
use std::collections::HashSet;

/// An act of a script, at one place.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Ends the script without a word.
    End,
    /// Leaves a loop, or a `switch`.
    Break,
    /// Sleeps for so many seconds.
    Sleep(Option<f64>),
    /// Forgets what it knows of files.
    Clear,
    /// Looks at a file's change time, or something else about it.
    Look(Place),
    Read(Place),
    Write(Place, Value),
    Touch(Place),
    /// Asks a database; the table, and whether it changes something.
    Query {
        table: String,
        writes: bool,
        /// True if it stores no more than that a client is there.
        presence: bool,
        from: Value,
    },
    /// Asks a cache or a queue; the key, as far as it is constant.
    Cache(String),
    /// Counts by this much.
    Step(f64),
    Echo(Value),
    Html,
    Header(Value),
    Compare(&'static str, Value, Value),
    Session,
    /// Opens a database that is this file.
    Database(Place),
}

/// A property of the request at a place, since a branch asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Guard {
    /// There and not empty, as `if ($_GET['x'])` has it.
    Present(Source, String),
    /// Missing or empty.
    Absent(Source, String),
    /// There, perhaps empty, as `isset` has it.
    Set(Source, String),
    /// Missing.
    Unset(Source, String),
    Is(Source, String, String),
    IsNot(Source, String, String),
    Method(String),
    NotMethod(String),
    /// At least one of these holds.
    Any(Vec<Guard>),
    /// The branch asks for this parameter in a way that no condition of a rule can express.
    Unclear(String),
}

impl Guard {
    /// True if no request can fulfil both.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        use Guard::{Absent, Any, Is, IsNot, Method, NotMethod, Present, Set, Unset};
        match (self, other) {
            (Any(all), one) | (one, Any(all)) => all.iter().all(|any| any.contradicts(one)),
            (Present(_, a) | Set(_, a), Absent(_, b) | Unset(_, b))
            | (Absent(_, a) | Unset(_, a), Present(_, b) | Set(_, b)) => a == b,
            (Is(_, a, x), Is(_, b, y)) => a == b && x != y,
            (Is(_, a, x), IsNot(_, b, y)) | (IsNot(_, a, x), Is(_, b, y)) => a == b && x == y,
            (Is(_, a, _), Absent(_, b) | Unset(_, b))
            | (Absent(_, a) | Unset(_, a), Is(_, b, _)) => a == b,
            (Method(a), Method(b)) => a != b,
            (Method(a), NotMethod(b)) | (NotMethod(a), Method(b)) => a == b,
            _ => false,
        }
    }

    /// The parameter that must be there.
    pub(super) fn required(&self) -> Option<(Source, &str)> {
        match self {
            Self::Present(source, name) | Self::Set(source, name) => Some((*source, name)),
            _ => None,
        }
    }
}

/// Something that a script does, where and when it does it.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) script: usize,
    pub(super) line: u32,
    pub(super) what: What,
    /// The loops around it, outermost first.
    pub(super) loops: Vec<usize>,
    pub(super) guards: Vec<Guard>,
}

impl Event {
    /// The script and the line.
    pub(super) fn at(&self) -> (usize, u32) {
        (self.script, self.line)
    }
}

/// The beginning of a loop.
#[derive(Debug, Clone)]
pub(super) struct Around {
    pub(super) script: usize,
    pub(super) line: u32,
    /// It ends only from within: `while (true)`.
    pub(super) endless: bool,
}

/// All acts of one script.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) events: Vec<Event>,
    pub(super) loops: Vec<Around>,
    /// The scripts it includes.
    pub(super) included: HashSet<usize>,
    /// The functions it goes through, by their place.
    pub(super) functions: HashSet<(usize, u32)>,
    /// True if it is too large to be looked at to its end.
    pub(super) cut: bool,
    /// The steps it took.
    pub(super) steps: u32,
}
