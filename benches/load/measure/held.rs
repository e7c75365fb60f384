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
        for (figure, pause) in
            [(Figure::Cpu(*level), PAUSE), (Figure::CpuInARow(*level), Duration::ZERO)]
        {
            let cpu = deliver(&mut stage, polls, pause, scale)?;
            sheet.put(figure, stage.name, cpu);
            stage.note_polls(sheet, figure, *level);
        }
    }
    let memory = stage.running.gauge.memory()?;
    sheet.put(Figure::MemoryAfterDeliveries, stage.name, (memory - stage.idle) / held as f64);
    let gauge = &stage.running.gauge;
    let before = (gauge.cpu(), gauge.wakes());
    let seconds = scale.pick(2, 10);
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = (gauge.cpu() - before.0) as f64 / 1e6;
    let wakes = (gauge.wakes() - before.1) as f64;
    sheet.put(Figure::CpuOfHolding, stage.name, spent / seconds as f64);
    sheet.put(Figure::WakesOfHolding, stage.name, wakes / seconds as f64);
    let figures = [Figure::MemoryAfterDeliveries, Figure::CpuOfHolding, Figure::WakesOfHolding];
    for figure in figures {
        stage.note_polls(sheet, figure, scale.most);
    }
    stage.book(sheet);
    Ok(())
}

/// Time between two messages, as a site has it: what was warm in the caches is cold again.
const PAUSE: Duration = Duration::from_millis(500);

/// Publishes to all polls again and again, with a `pause` before each message; microseconds of CPU
/// for each answer and re-poll.
fn deliver(stage: &mut Stage, polls: usize, pause: Duration, scale: &Scale) -> io::Result<f64> {
    let times = match (stage.can.is_slow(), pause.is_zero()) {
        (true, _) => 2,
        (false, true) => (scale.pick(10_000, 30_000) / polls).clamp(2, 20),
        (false, false) => (scale.pick(5_000, 30_000) / polls).clamp(3, 10),
    };
    let mut costs = Vec::new();
    for _ in 0..times {
        std::thread::sleep(pause);
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
    for _ in 0..3 {
        stage.grow(polls, |_| WIDE)?;
        peaks.push(stage.running.gauge.memory()?);
        stage.clear()?;
    }
    // An allocator gives back in its own time.
    std::thread::sleep(Duration::from_secs(10));
    let left = stage.running.gauge.memory()? - stage.idle;
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
