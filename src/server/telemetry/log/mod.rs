//! The event log and the access log: lines on standard error, as text or JSON. Logging
//! never waits for the reader.

mod line;
mod queue;
mod recent;

pub use line::Line;
pub use queue::{dropped, flush};
pub use recent::{Recent, recent};

use line::Style;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Format of a line.
    pub format: Format,
    /// The least important level that is logged.
    pub level: LevelFilter,
    /// Query parameters whose values are not logged.
    pub mask: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let mask = vec!["token".to_owned(), "authorization".to_owned()];
        Self { format: Format::Text, level: LevelFilter::INFO, mask }
    }
}

/// The log of this process, whose settings can be changed.
pub struct Log {
    change: Box<dyn Fn(&Settings) + Send + Sync>,
}

/// Begins to log. A second call in one process (a test) logs as the first one does.
pub fn begin(settings: &Settings) -> Log {
    let (layer, handle) = reload::Layer::new(lines(settings));
    if tracing_subscriber::registry().with(layer).try_init().is_err() {
        return Log { change: Box::new(|_| ()) };
    }
    style(settings).set();
    Log {
        change: Box::new(move |settings| {
            // It fails only if the subscriber is gone, and with it the log.
            let _ = handle.reload(lines(settings));
            style(settings).set();
            // Users of the `log` crate, pingora among them, check this level first.
            ::log::set_max_level(most_verbose());
        }),
    }
}

impl Log {
    /// Logs by `settings`, from the next line on.
    pub fn change(&self, settings: &Settings) {
        (self.change)(settings);
    }
}

/// Parts of the engine whose errors show what was in a request or a response.
const REQUEST_DATA: [&str; 4] =
    ["pingora_proxy", "pingora_core::protocols", "pingora_core::apps", "pingora_cache"];

/// Parts of the engine that know of connections and addresses, and nothing of what passes there.
const CONNECTIONS: [&str; 2] = ["pingora_core::connectors", "pingora_pool"];

/// The layer that selects and formats events.
fn lines(settings: &Settings) -> Box<dyn Layer<Registry> + Send + Sync> {
    // Other crates' lines do not know what is secret: for debugging they show whole heads and
    // bodies, and the engine's errors show targets and what could not be parsed. Those are never
    // logged; `gate::proxy` has lines of its own for requests that fail.
    let usual = settings.level.min(LevelFilter::WARN);
    let connections = if settings.level > LevelFilter::INFO { settings.level } else { usual };
    let filter = REQUEST_DATA
        .into_iter()
        .fold(Targets::new(), |targets, target| targets.with_target(target, LevelFilter::OFF))
        .with_targets(CONNECTIONS.map(|target| (target, connections)))
        .with_default(usual)
        // Says the same as `gate::upstream` does, with all of a connection's options.
        .with_target("pingora_load_balancing", usual.min(LevelFilter::ERROR))
        .with_target("pollgate", settings.level);
    let lines = fmt::layer().with_writer(queue::Lines);
    // The filter comes last: callers that check the level before they log, as pingora does many
    // times a request, see that of the last one only.
    match settings.format {
        Format::Json => Box::new(lines.json().and_then(recent::Keep).and_then(filter)),
        Format::Text => {
            let color = style(settings) == Style::Color;
            Box::new(lines.with_ansi(color).and_then(recent::Keep).and_then(filter))
        }
    }
}

/// The look of lines.
fn style(settings: &Settings) -> Style {
    Style::of(settings.format, std::io::IsTerminal::is_terminal(&std::io::stderr()))
}

/// The level of the filter in force, as a level of the `log` crate.
fn most_verbose() -> ::log::LevelFilter {
    match LevelFilter::current() {
        LevelFilter::OFF => ::log::LevelFilter::Off,
        LevelFilter::ERROR => ::log::LevelFilter::Error,
        LevelFilter::WARN => ::log::LevelFilter::Warn,
        LevelFilter::INFO => ::log::LevelFilter::Info,
        LevelFilter::DEBUG => ::log::LevelFilter::Debug,
        _ => ::log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_logged_costs_nobody_more_than_asking_for_the_level() {
        for format in [Format::Text, Format::Json] {
            for level in [LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::DEBUG] {
                let settings = Settings { format, level, ..Settings::default() };
                assert_eq!(lines(&settings).max_level_hint(), Some(level), "{format:?}");
            }
        }
    }
}
