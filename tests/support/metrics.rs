//! A strict reader of the text form of metrics: whatever it does not expect is a panic.

use std::collections::{BTreeMap, HashSet};

/// Content of `/metrics` at one moment.
#[derive(Debug)]
pub struct Metrics {
    /// By series: `name{label="value"}` as it was written.
    samples: BTreeMap<String, f64>,
    /// Families and their types.
    pub families: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads the whole text.
    pub fn parse(text: &str) -> Metrics {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut metrics = Metrics { samples: BTreeMap::new(), families: BTreeMap::new() };
        let mut family = String::new();
        let mut helped = HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(helped.insert(name.to_owned()), "{name} has two helps");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(helped.contains(name), "{name} has no help before its type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let known = metrics.families.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{name} stands there twice");
                family = name.to_owned();
            } else {
                metrics.sample(line, &family);
            }
        }
        metrics.check_histograms();
        metrics
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, labels)) => {
                (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line:?}")))
            }
        };
        assert!(is_name(name), "{line}");
        check_labels(labels);
        let histogram = self.families.get(family).is_some_and(|kind| kind == "histogram");
        let ends = if histogram { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        let belongs = ends.iter().any(|end| name == format!("{family}{end}"));
        assert!(belongs, "{name} stands below {family}");
        let known = self.samples.insert(series.to_owned(), value);
        assert_eq!(known, None, "{series} stands there twice");
    }

    fn check_histograms(&self) {
        for (name, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let of_bucket = |series: &str| {
                let bound = series.strip_prefix(&format!("{name}_bucket{{le=\""))?;
                bound.strip_suffix("\"}")?.parse::<f64>().ok()
            };
            let mut buckets: Vec<(f64, f64)> =
                self.samples.iter().filter_map(|(s, v)| Some((of_bucket(s)?, *v))).collect();
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let last = *buckets.last().unwrap_or_else(|| panic!("{name} has no buckets"));
            assert_eq!(last, (f64::INFINITY, self.value(&format!("{name}_count"))), "{name}");
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
            self.value(&format!("{name}_sum"));
        }
    }

    /// The number of a series, written as it stands in the text; panics if there is none.
    pub fn value(&self, series: &str) -> f64 {
        let value = self.samples.get(series).copied();
        value.unwrap_or_else(|| panic!("there is no {series} in {:#?}", self.samples))
    }

    /// All series, as they were written.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }

    /// True if there is such a series.
    pub fn has(&self, series: &str) -> bool {
        self.samples.contains_key(series)
    }

    /// All series that are not zero and begin so.
    pub fn nonzero(&self, start: &str) -> Vec<(&str, f64)> {
        let samples = self.samples.iter().filter(|(s, v)| s.starts_with(start) && **v != 0.0);
        samples.map(|(series, value)| (series.as_str(), *value)).collect()
    }
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next().unwrap_or(b'0');
    !first.is_ascii_digit() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `a="b",c="d"` with `\\`, `\"` and `\n` as the only escapes.
fn check_labels(mut labels: &str) {
    while !labels.is_empty() {
        let (name, rest) = labels.split_once("=\"").unwrap_or_else(|| panic!("{labels:?}"));
        assert!(is_name(name), "{labels:?}");
        let mut bytes = rest.bytes().enumerate();
        let end = loop {
            match bytes.next() {
                Some((at, b'"')) => break at,
                Some((_, b'\\')) => match bytes.next() {
                    Some((_, b'\\' | b'"' | b'n')) => {}
                    other => panic!("escape {other:?} in {labels:?}"),
                },
                Some((_, b'\n')) | None => panic!("no end of the value in {labels:?}"),
                Some(_) => {}
            }
        };
        let rest = &rest[end + 1..];
        labels = rest.strip_prefix(',').unwrap_or(rest);
        assert!(rest.is_empty() || rest.starts_with(',') && !labels.is_empty(), "{rest:?}");
    }
}
