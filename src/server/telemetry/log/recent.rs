//! The newest events, kept for the admin page: a bounded ring beside the log.
//!
//! Its events have been logged, so it holds no secret. The access log is not made of events.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Number of events kept.
const MAX: usize = 40;
/// Bytes kept of each, roughly.
const MAX_LENGTH: usize = 400;

static RECENT: Mutex<VecDeque<Recent>> = Mutex::new(VecDeque::new());

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// Time at which it was logged.
    pub time: SystemTime,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: &'static str,
    /// Its message, and its values behind that.
    pub text: String,
}

/// The newest events of this process, the oldest of them first.
pub fn recent() -> Vec<Recent> {
    RECENT.lock().iter().cloned().collect()
}

/// Keeps the events that pass.
pub(super) struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let about = event.metadata();
        if *about.level() > Level::INFO {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = about.level().as_str();
        let mut recent = RECENT.lock();
        if recent.len() >= MAX {
            recent.pop_front();
        }
        recent.push_back(Recent { time: SystemTime::now(), level, text: text.0 });
    }
}

/// An event as one line.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = format!("{value:?}");
        let end = (0..=MAX_LENGTH.min(shown.len())).rev().find(|end| shown.is_char_boundary(*end));
        let shown = &shown[..end.unwrap_or_default()];
        if self.0.len() + shown.len() > 2 * MAX_LENGTH {
            return;
        }
        // Writing to a string cannot fail. The message comes first, wherever it stands.
        match field.name() {
            "message" => self.0.insert_str(0, shown),
            name if name.starts_with("log.") => {}
            name => drop(write!(self.0, " {name}={shown}")),
        }
    }
}
