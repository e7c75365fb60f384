//! The text form of metrics, version 0.0.4 (Prometheus, "Exposition formats").

use super::metrics::{Counts, Histogram, Label};
use std::fmt::{Display, Write};

/// Kind of a family's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for a restart.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Families of metrics as text.
#[derive(Debug, Default)]
pub struct Text(String);

// Writing to a string cannot fail, so the result is ignored.
impl Text {
    /// Its content type.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// A family of one number.
    pub fn number(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.begin(kind.as_str(), name, help);
        self.sample(name, &[], value);
    }

    /// A family with a number for each value of `label`.
    pub fn numbers<V: Display>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.begin(kind.as_str(), name, help);
        for (word, value) in values {
            self.sample(name, &[(label, word.as_ref())], value);
        }
    }

    /// A family with a number for each pair of values of two labels.
    pub fn by_two<V: Display>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: [&str; 2],
        values: impl IntoIterator<Item = ([impl AsRef<str>; 2], V)>,
    ) {
        self.begin(kind.as_str(), name, help);
        for (words, value) in values {
            let [first, second] = &words;
            self.sample(name, &[(labels[0], first.as_ref()), (labels[1], second.as_ref())], value);
        }
    }

    /// A family of counters.
    pub fn counts<L: Label>(&mut self, name: &str, help: &str, label: &str, counts: &Counts<L>) {
        let values = counts.all().map(|(label, count)| (label.as_str(), count));
        self.numbers(Kind::Counter, name, help, label, values);
    }

    /// A histogram, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.begin("histogram", name, help);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (index, one) in histogram.buckets.iter().enumerate() {
            count += one.load(std::sync::atomic::Ordering::Relaxed);
            let seconds = |micros: &u64| (*micros as f64 / 1e6).to_string();
            let bound = histogram.bounds.get(index).map_or_else(|| "+Inf".to_owned(), seconds);
            self.sample(&bucket, &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], histogram.seconds());
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn begin(&mut self, kind: &str, name: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, word)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{word}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_histogram_is_written_with_growing_buckets_in_seconds() {
        let histogram = Histogram::new(&[500, 1_000_000]);
        for micros in [400, 600_000, 2_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut text = Text::default();
        text.histogram("x_seconds", "How long.", &histogram);
        let wanted = "# HELP x_seconds How long.\n# TYPE x_seconds histogram\n\
                      x_seconds_bucket{le=\"0.0005\"} 1\nx_seconds_bucket{le=\"1\"} 2\n\
                      x_seconds_bucket{le=\"+Inf\"} 3\nx_seconds_sum 2.6004\nx_seconds_count 3\n";
        assert_eq!(text.finish(), wanted);
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut text = Text::default();
        text.numbers(Kind::Gauge, "x", "a\\b", "channel", [("a\"} 1\n\\", 7)]);
        let wanted = "# HELP x a\\\\b\n# TYPE x gauge\nx{channel=\"a\\\"} 1\\n\\\\\"} 7\n";
        assert_eq!(text.finish(), wanted);
    }
}
