//! Very many held polls or event streams at once: over HTTP/2, since files are what runs out first.

use super::Scale;
use super::stage::{Stage, WIDE};
use crate::multitude::{Multitude, STREAMS};
use crate::sheet::{Figure, Multiplexed, Sheet};
use std::io;
use std::time::{Duration, Instant};

/// The longest that all answers are waited for.
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) fn multitude(
    mut stage: Stage,
    scale: &Scale,
    what: Multiplexed,
    sheet: &mut Sheet,
) -> io::Result<()> {
    let polls = scale.streams;
    let connections = polls / STREAMS;
    let mut crowd = Multitude::connect(stage.running.wire.public(), connections)?;
    stage.quiet(50);
    let connected = stage.running.gauge.memory()?;
    let path = match what {
        Multiplexed::Polls => format!("/comet/c{WIDE}"),
        Multiplexed::EventStreams => format!("/comet/c{WIDE}?transport=sse"),
    };
    crowd.poll(&path)?;
    // A poll that comes after the message waits for the next one, and counts as lost.
    stage.quiet(200);
    // A stream begins with an event of its own.
    crowd.run_for(Duration::from_millis(100))?;
    let held = stage.running.gauge.memory()?;
    let cpu = stage.running.gauge.cpu();
    stage.press.begin(WIDE);
    crowd.wait_for(polls as u64, Instant::now() + PATIENCE)?;
    let last = Instant::now();
    let published = stage.press.wait()?;
    stage.quiet(50);
    let spent = (stage.running.gauge.cpu() - cpu) as f64 / 1e3;
    let since = |moment: Instant| moment.saturating_duration_since(published.began).as_secs_f64();
    let count = polls as f64;
    let rows = [
        (Figure::StreamMemory(what, polls), (held - connected) / count),
        (Figure::ConnectionMemory(what, polls), (connected - stage.idle) / connections as f64),
        (Figure::MultitudeMemory(what, polls), (held - stage.idle) / 1024.0),
        (Figure::MultitudeCall(what, polls), since(published.ended) * 1e3),
        (Figure::MultitudeLast(what, polls), since(last)),
        (Figure::MultitudeCpu(what, polls), spent / count),
    ];
    for (figure, value) in rows {
        sheet.put(figure, stage.name, value);
    }
    sheet.put(Figure::Lost, stage.name, count - crowd.answered as f64);
    sheet.put(Figure::Failed, stage.name, crowd.failed as f64);
    Ok(())
}
