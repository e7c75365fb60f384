//! What a script does, as far as it has to do with waiting, files and answers.

use super::value::{Place, Source, Value};
use std::collections::HashSet;

/// What a script does, at one place.
#[derive(Debug, Clone)]
pub(super) enum What {
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

/// What is known of a request at a place, since a branch asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Guard {
    Present(Source, String),
    Absent(Source, String),
    Is(String, String),
    IsNot(String, String),
    Method(String),
    NotMethod(String),
}

impl Guard {
    /// True if no request can be known by both.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        use Guard::{Absent, Is, IsNot, Method, NotMethod, Present};
        match (self, other) {
            (Present(_, a), Absent(_, b)) | (Absent(_, a), Present(_, b)) => a == b,
            (Is(a, x), Is(b, y)) => a == b && x != y,
            (Is(a, x), IsNot(b, y)) | (IsNot(a, x), Is(b, y)) => a == b && x == y,
            (Is(a, _), Absent(_, b)) | (Absent(_, a), Is(b, _)) => a == b,
            (Method(a), Method(b)) => a != b,
            (Method(a), NotMethod(b)) | (NotMethod(a), Method(b)) => a == b,
            _ => false,
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

/// Where a loop begins.
#[derive(Debug, Clone)]
pub(super) struct Around {
    pub(super) script: usize,
    pub(super) line: u32,
}

/// What one script does.
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
