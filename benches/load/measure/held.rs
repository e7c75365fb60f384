//! Memory and CPU of held polls.

use super::Scale;
use super::stage::{Stage, WIDE};
use crate::crowd::Again;
use crate::sheet::{Figure, Sheet, median};
use std::io;
use std::time::Duration;

/// Memory and CPU at each level, one after the other in one process.
pub(super) fn held(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let mut held = 0;
    for level in &scale.levels {
        let polls = stage.polls(*level);
        if polls == held {
            break;
        }
        held = polls;
        stage.grow(polls, |_| WIDE)?;
        let memory = stage.running.gauge.memory()?;
        sheet.put(Figure::Memory(*level), stage.name, (memory - stage.idle) / polls as f64);
        stage.note_polls(sheet, Figure::Memory(*level), *level);
        let cpu = deliver(&mut stage, polls, scale)?;
        sheet.put(Figure::Cpu(*level), stage.name, cpu);
        stage.note_polls(sheet, Figure::Cpu(*level), *level);
    }
    let memory = stage.running.gauge.memory()?;
    sheet.put(Figure::MemoryAfterDeliveries, stage.name, (memory - stage.idle) / held as f64);
    let before = stage.running.gauge.cpu();
    let time = Duration::from_secs(1);
    std::thread::sleep(time);
    let spent = (stage.running.gauge.cpu() - before) as f64 / 1e6;
    sheet.put(Figure::CpuOfHolding, stage.name, spent / time.as_secs_f64());
    for figure in [Figure::MemoryAfterDeliveries, Figure::CpuOfHolding] {
        stage.note_polls(sheet, figure, scale.most);
    }
    stage.book(sheet);
    Ok(())
}

/// Publishes to all polls again and again; microseconds of CPU for each answer and re-poll.
fn deliver(stage: &mut Stage, polls: usize, scale: &Scale) -> io::Result<f64> {
    let times = match stage.can.is_slow() {
        true => 2,
        false => (scale.pick(10_000, 30_000) / polls).clamp(2, 20),
    };
    let mut costs = Vec::new();
    for _ in 0..times {
        let cpu = stage.running.gauge.cpu();
        let answered = stage.crowd.tally.answered;
        stage.press.begin(WIDE);
        stage.wait_for(polls)?;
        stage.press.wait()?;
        stage.quiet(10);
        let answered = stage.crowd.tally.answered - answered;
        let spent = stage.running.gauge.cpu() - cpu;
        costs.push(spent as f64 / 1e3 / answered.max(1) as f64);
    }
    median(&costs).ok_or_else(|| io::Error::other("nothing was delivered"))
}

/// Three rounds of all connecting, holding and dropping.
pub(super) fn churn(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let polls = stage.most(scale);
    let mut peaks = Vec::new();
    let mut left = 0.0;
    for _ in 0..3 {
        stage.grow(polls, |_| WIDE)?;
        peaks.push(stage.running.gauge.memory()?);
        stage.clear()?;
        left = stage.running.gauge.memory()? - stage.idle;
    }
    sheet.put(Figure::ChurnGrowth, stage.name, (peaks[2] / peaks[0] - 1.0) * 100.0);
    sheet.put(Figure::ChurnLeft, stage.name, left / 1024.0);
    stage.note_polls(sheet, Figure::ChurnGrowth, scale.most);
    Ok(())
}

/// Connections that have been answered and are idle.
pub(super) fn idle(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let polls = stage.polls(scale.most.min(5000));
    stage.crowd.again = Again::Later;
    stage.grow(polls, |_| WIDE)?;
    stage.press.begin(WIDE);
    stage.wait_for(polls)?;
    stage.press.wait()?;
    stage.quiet(20);
    let memory = stage.running.gauge.memory()?;
    sheet.put(Figure::MemoryIdle, stage.name, (memory - stage.idle) / polls as f64);
    stage.note_polls(sheet, Figure::MemoryIdle, scale.most.min(5000));
    stage.book(sheet);
    Ok(())
}
