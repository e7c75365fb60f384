//! The measures. Each starts its contestant anew, so that none inherits another's memory.

mod aside;
mod channels;
mod drops;
mod fan_out;
mod forward;
mod held;
mod multitude;
mod stage;
mod streams;

use crate::contestant::{Carrier, Contestant, Settings};
use crate::sheet::{Delivery, Figure, Multiplexed, Sheet};
use std::io;

/// Measures that can run on their own.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Memory per held poll, CPU per delivery and re-poll
    Held,
    /// Memory of connections that come, hold and go, three times over
    Churn,
    /// Memory of kept-alive connections between two polls
    Idle,
    /// Latency of a fan-out, and how long the publish call takes
    FanOut,
    /// A publish to another channel in the middle of a fan-out
    Aside,
    /// Publishes a second to 1,000 channels
    Channels,
    /// Nothing lost while clients drop and come back
    Drops,
    /// CPU per forwarded request
    Forward,
    /// One publish to many event streams: latency, CPU and memory
    Sse,
    /// The same with WebSockets
    Ws,
    /// Very many polls at once, over HTTP/2
    Multitude,
    /// The same with event streams
    EventStreams,
}

impl Measure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Held,
        Self::Churn,
        Self::Idle,
        Self::FanOut,
        Self::Aside,
        Self::Channels,
        Self::Drops,
        Self::Forward,
        Self::Sse,
        Self::Ws,
        Self::Multitude,
        Self::EventStreams,
    ];

    /// Settings of the measure beyond the usual ones.
    fn settings(self, usual: &Settings, scale: &Scale) -> Settings {
        let mut settings = usual.clone();
        if matches!(self, Self::Sse | Self::Ws) {
            // The clients only read, and answer no pings.
            settings.set.push("stream.heartbeat=10m".to_owned());
        }
        if matches!(self, Self::Multitude | Self::EventStreams) {
            settings.set.push(format!("hold.max={}", 2 * scale.streams));
            // A million are not there within a heartbeat.
            settings.set.push("stream.heartbeat=10m".to_owned());
            settings.set.push("stream.max=1h".to_owned());
        }
        settings
    }

    /// The figure that shows that the measure could not be taken.
    fn main_figure(self, scale: &Scale) -> Figure {
        match self {
            Self::Held => Figure::Cpu(scale.levels[0]),
            Self::Churn => Figure::ChurnGrowth,
            Self::Idle => Figure::MemoryIdle,
            Self::FanOut => Figure::Last,
            Self::Aside => Figure::AsideNinetyNine,
            Self::Channels => Figure::Channels,
            Self::Drops => Figure::Lost,
            Self::Forward => Figure::ForwardCpu,
            Self::Sse => Figure::Carried(Carrier::EventStream, Delivery::Last),
            Self::Ws => Figure::Carried(Carrier::WebSocket, Delivery::Last),
            Self::Multitude => Figure::StreamMemory(Multiplexed::Polls, scale.streams),
            Self::EventStreams => Figure::StreamMemory(Multiplexed::EventStreams, scale.streams),
        }
    }
}

/// Size of the measures.
pub(crate) struct Scale {
    /// Numbers of polls, ascending.
    pub(crate) levels: Vec<usize>,
    /// The last of them.
    pub(crate) most: usize,
    /// Polls, or event streams, held at once over HTTP/2.
    pub(crate) streams: usize,
    /// Everything shorter.
    pub(crate) quick: bool,
}

impl Scale {
    /// `quick` or `full`, as asked.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Takes one measure of one contestant; what goes wrong is noted in the table.
pub(crate) fn take(
    measure: Measure,
    contestant: &Contestant,
    settings: &Settings,
    scale: &Scale,
    sheet: &mut Sheet,
) {
    if let Err(error) = try_to_take(measure, contestant, settings, scale, sheet) {
        let why = format!("failed: {error}");
        sheet.note(measure.main_figure(scale), contestant.name, &why);
    }
}

fn try_to_take(
    measure: Measure,
    contestant: &Contestant,
    settings: &Settings,
    scale: &Scale,
    sheet: &mut Sheet,
) -> io::Result<()> {
    let can = contestant.abilities;
    // Fewer clients than the smallest of the crowds would measure something else.
    let crowds = can.polls >= 1000;
    let takes_part = match measure {
        Measure::Held | Measure::FanOut => can.polls > 0,
        Measure::Drops => crowds && can.keeps,
        Measure::Churn | Measure::Idle | Measure::Aside | Measure::Channels => crowds,
        Measure::Forward => can.forwards,
        Measure::Sse | Measure::Ws => can.streams,
        Measure::Multitude | Measure::EventStreams => can.http2,
    };
    let of_variants = matches!(measure, Measure::Held | Measure::Forward);
    if !takes_part || can.is_variant && !of_variants {
        return Ok(());
    }
    let settings = &measure.settings(settings, scale);
    let stage = stage::Stage::open(contestant, settings)?;
    match measure {
        Measure::Held => held::held(stage, scale, sheet),
        Measure::Churn => held::churn(stage, scale, sheet),
        Measure::Idle => held::idle(stage, scale, sheet),
        Measure::FanOut => fan_out::fan_out(stage, scale, sheet),
        Measure::Aside => aside::aside(stage, scale, sheet),
        Measure::Channels => channels::channels(stage, scale, sheet),
        Measure::Drops => drops::drops(stage, scale, sheet),
        Measure::Forward => forward::forward(stage, scale, sheet),
        Measure::Sse => streams::streams(stage, scale, Carrier::EventStream, sheet),
        Measure::Ws => streams::streams(stage, scale, Carrier::WebSocket, sheet),
        Measure::Multitude => multitude::multitude(stage, scale, Multiplexed::Polls, sheet),
        Measure::EventStreams => {
            multitude::multitude(stage, scale, Multiplexed::EventStreams, sheet)
        }
    }
}
