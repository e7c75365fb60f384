//! The event log and the access log: lines on standard error, as text or JSON.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line is written.
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
    /// How a line is written.
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

/// Begins to log; only the first call has an effect.
pub fn init(settings: &Settings) {
    // The proxy engine tells of every start and stop of its parts; that is for debugging.
    let usual = settings.level.min(LevelFilter::WARN);
    let engine = if settings.level > LevelFilter::INFO { settings.level } else { usual };
    let filter = Targets::new()
        .with_default(engine)
        // Says the same as `gate::upstream` does, with all of a connection's options.
        .with_target("pingora_load_balancing", usual.min(LevelFilter::ERROR))
        .with_target("pollgate", settings.level);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let result = match settings.format {
        Format::Json => registry.with(lines.json()).try_init(),
        Format::Text => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(color)).try_init()
        }
    };
    // A second start in one process (a test) logs as the first one did.
    drop(result);
}
