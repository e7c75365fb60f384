//! Measurements: values by figure and contestant.

use crate::contestant::Carrier;
use std::collections::BTreeMap;

/// What is held on the connections of the multitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Multiplexed {
    Polls,
    EventStreams,
}

impl Multiplexed {
    fn name(self) -> &'static str {
        match self {
            Self::Polls => "polls",
            Self::EventStreams => "event streams",
        }
    }
}

/// What is measured of a publish to many streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Delivery {
    First,
    Half,
    NinetyNine,
    Last,
    Cpu,
    Memory,
}

impl Delivery {
    fn name(self) -> &'static str {
        match self {
            Self::First => "first delivered (ms)",
            Self::Half => "half delivered (ms)",
            Self::NinetyNine => "99 % delivered (ms)",
            Self::Last => "last delivered (ms)",
            Self::Cpu => "CPU per delivery (µs)",
            Self::Memory => "memory of each (KiB)",
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// KiB, at so many polls.
    Memory(usize),
    MemoryAfterDeliveries,
    MemoryIdle,
    ChurnGrowth,
    ChurnLeft,
    /// Microseconds, at so many polls, with pauses between the messages.
    Cpu(usize),
    /// The same with one message right behind the other.
    CpuInARow(usize),
    CpuOfHolding,
    WakesOfHolding,
    First,
    Half,
    NinetyNine,
    Last,
    LastAgain,
    PublishCall,
    AsideHalf,
    AsideNinetyNine,
    AsideLate,
    Channels,
    ForwardCpu,
    ForwardCpuAlone,
    ForwardRate,
    /// A figure of many streams on connections of their own.
    Carried(Carrier, Delivery),
    /// KiB, with so many over HTTP/2.
    StreamMemory(Multiplexed, usize),
    /// KiB.
    ConnectionMemory(Multiplexed, usize),
    /// MiB.
    MultitudeMemory(Multiplexed, usize),
    MultitudeCall(Multiplexed, usize),
    MultitudeLast(Multiplexed, usize),
    MultitudeCpu(Multiplexed, usize),
    Lost,
    Duplicated,
    Misordered,
    Failed,
}

impl Figure {
    pub(crate) fn title(self) -> String {
        let text = match self {
            Self::Memory(polls) => {
                return format!("memory per held poll, {} held (KiB)", thousands(polls as f64));
            }
            Self::Cpu(polls) => {
                return format!("CPU per delivery and re-poll, {} (µs)", thousands(polls as f64));
            }
            Self::CpuInARow(polls) => {
                return format!("the same without pauses, {} (µs)", thousands(polls as f64));
            }
            Self::Carried(carrier, figure) => {
                return format!("{}: {}", carrier.name(), figure.name());
            }
            Self::StreamMemory(what, polls)
            | Self::ConnectionMemory(what, polls)
            | Self::MultitudeMemory(what, polls)
            | Self::MultitudeCall(what, polls)
            | Self::MultitudeLast(what, polls)
            | Self::MultitudeCpu(what, polls) => {
                return format!(
                    "HTTP/2, {} {}: {}",
                    thousands(polls as f64),
                    what.name(),
                    self.of_multitude()
                );
            }
            Self::MemoryAfterDeliveries => "memory per held poll after all deliveries (KiB)",
            Self::MemoryIdle => "memory per kept-alive connection between polls (KiB)",
            Self::ChurnGrowth => "memory held, 3rd round of connect-hold-drop against the 1st (%)",
            Self::ChurnLeft => "memory left 10 s after all have gone (MiB above idle)",
            Self::CpuOfHolding => "CPU while all are held and nothing is published (ms a second)",
            Self::WakesOfHolding => "wake-ups a second meanwhile",
            Self::First => "fan-out: first delivered (ms)",
            Self::Half => "fan-out: half delivered (ms)",
            Self::NinetyNine => "fan-out: 99 % delivered (ms)",
            Self::Last => "fan-out: last delivered (ms)",
            Self::LastAgain => "fan-out: last delivered, clients re-polling at once (ms)",
            Self::PublishCall => "fan-out: the publish call answered after (ms)",
            Self::AsideHalf => "another channel amid a fan-out: publish to answer, p50 (ms)",
            Self::AsideNinetyNine => "another channel amid a fan-out: publish to answer, p99 (ms)",
            Self::AsideLate => "the bench itself was late with that publish by, p99 (ms)",
            Self::Channels => "publishes/s, 1,000 channels with a poll each",
            Self::ForwardCpu => "CPU per forwarded request (µs)",
            Self::ForwardCpuAlone => "CPU per forwarded request, one connection (µs)",
            Self::ForwardRate => "forwarded requests/s",
            Self::Lost => "messages lost",
            Self::Duplicated => "messages duplicated",
            Self::Misordered => "messages misordered",
            Self::Failed => "polls refused or cut off",
        };
        text.to_owned()
    }

    fn of_multitude(self) -> &'static str {
        match self {
            Self::StreamMemory(..) => "memory of each (KiB)",
            Self::ConnectionMemory(..) => "memory per connection beside them (KiB)",
            Self::MultitudeMemory(..) => "memory in all (MiB)",
            Self::MultitudeCall(..) => "the publish call answered after (ms)",
            Self::MultitudeLast(..) => "last delivered (s)",
            _ => "CPU per delivery (µs)",
        }
    }

    /// True if the rounds' values add up instead of having a median.
    pub(crate) fn adds_up(self) -> bool {
        matches!(self, Self::Lost | Self::Duplicated | Self::Misordered | Self::Failed)
    }

    /// The value as the table shows it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Channels | Self::ForwardRate => thousands(value),
            figure if figure.adds_up() => thousands(value),
            Self::ChurnGrowth => format!("{value:+.1}"),
            _ if value.abs() < 1.0 => format!("{value:.2}"),
            _ if value.abs() >= 100.0 => thousands(value),
            _ => format!("{value:.1}"),
        }
    }
}

/// The value of each round, and its notes.
#[derive(Default, Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) values: Vec<f64>,
    pub(crate) note: Option<String>,
}

#[derive(Default)]
pub(crate) struct Sheet {
    cells: BTreeMap<(Figure, &'static str), Cell>,
}

impl Sheet {
    pub(crate) fn put(&mut self, figure: Figure, contestant: &'static str, value: f64) {
        self.cells.entry((figure, contestant)).or_default().values.push(value);
    }

    pub(crate) fn note(&mut self, figure: Figure, contestant: &'static str, note: &str) {
        self.cells.entry((figure, contestant)).or_default().note = Some(note.to_owned());
    }

    pub(crate) fn cell(&self, figure: Figure, contestant: &'static str) -> Option<&Cell> {
        self.cells.get(&(figure, contestant))
    }

    /// The median of all rounds, or their sum where they add up.
    pub(crate) fn value(&self, figure: Figure, contestant: &'static str) -> Option<f64> {
        let values = &self.cell(figure, contestant)?.values;
        if figure.adds_up() && !values.is_empty() {
            return Some(values.iter().sum());
        }
        median(values)
    }

    /// All figures that any contestant has a value or a note for, in the order of the table.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let mut figures: Vec<Figure> = self.cells.keys().map(|(figure, _)| *figure).collect();
        figures.dedup();
        figures
    }
}

/// The middle value; `None` of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// A whole number with commas.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value <= -0.5 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
