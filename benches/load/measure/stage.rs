//! A contestant that runs, with its crowd and its press.

use super::Scale;
use crate::contestant::{Abilities, Contestant, Running, Settings};
use crate::crowd::{Again, Crowd};
use crate::press::Press;
use crate::sheet::{Figure, Sheet};
use std::io;
use std::time::{Duration, Instant};

/// The channel of all wide fan-outs.
pub(super) const WIDE: u32 = 1;
const WARM: u32 = 3;

/// The longest that a fan-out is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) can: Abilities,
    pub(super) crowd: Crowd,
    pub(super) press: Press,
    /// Memory before the first client, in KiB.
    pub(super) idle: f64,
    pub(super) running: Running,
}

impl Stage {
    /// Starts a contestant and has it deliver one message, so that what it sets up only once is
    /// not taken for a part of the first poll.
    pub(super) fn open(contestant: &Contestant, settings: &Settings) -> io::Result<Self> {
        let running = contestant.start(settings)?;
        let crowd = Crowd::new(running.wire.clone())?;
        let press = Press::new(running.wire.clone());
        let name = contestant.name;
        let can = contestant.abilities;
        let mut stage = Self { name, can, crowd, press, idle: 0.0, running };
        if can.polls > 0 {
            // A PHP worker does not notice that its client has gone, so nothing is left held.
            stage.crowd.again = Again::Later;
            stage.grow(1, |_| WARM)?;
            stage.warm()?;
        }
        stage.clear()?;
        stage.idle = stage.running.gauge.memory()?;
        Ok(stage)
    }

    /// Delivers one message; not all deliver the very first one.
    fn warm(&mut self) -> io::Result<()> {
        for _ in 0..3 {
            self.press.publish(WARM)?;
            let end = Instant::now() + Duration::from_secs(5);
            if self.crowd.run_until(end, |crowd| crowd.tally.answered > 0)? {
                return Ok(());
            }
        }
        Err(io::Error::other("not even one message was delivered"))
    }

    /// Sends the clients away and forgets what they have seen.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.crowd = Crowd::new(self.running.wire.clone())?;
        self.quiet(20);
        Ok(())
    }

    pub(super) fn grow(&mut self, count: usize, channel: impl Fn(usize) -> u32) -> io::Result<()> {
        self.crowd.grow(count, self.can.pace, channel)?;
        self.quiet(20);
        Ok(())
    }

    /// Waits until the contestant has done what there is to do.
    pub(super) fn quiet(&self, window_ms: u64) {
        if self.can.restless {
            std::thread::sleep(Duration::from_millis(100));
        } else {
            self.running.gauge.wait_quiet(Duration::from_millis(window_ms), PATIENCE);
        }
        if self.can.is_slow() {
            // Its processes wait for each other, so that a quiet moment proves little.
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Serves the crowd until `count` more answers with messages came; true if they did.
    pub(super) fn wait_for(&mut self, count: usize) -> io::Result<bool> {
        let due = self.crowd.tally.answered + count as u64;
        self.crowd.run_until(Instant::now() + PATIENCE, |crowd| crowd.tally.answered >= due)
    }

    /// Number of polls to hold where `wanted` are asked for.
    pub(super) fn polls(&self, wanted: usize) -> usize {
        wanted.min(self.can.polls)
    }

    /// Books what the crowd has seen.
    pub(super) fn book(&self, sheet: &mut Sheet) {
        let missing = self.crowd.missing(|channel| self.press.newest(channel));
        let tally = self.crowd.tally;
        let counts = [
            (Figure::Lost, tally.lost + missing),
            (Figure::Duplicated, tally.duplicated),
            (Figure::Misordered, tally.misordered),
            (Figure::Failed, tally.failed),
        ];
        for (figure, count) in counts {
            sheet.put(figure, self.name, count as f64);
        }
    }

    /// Adds a note to a figure that was measured with fewer polls than its row states.
    pub(super) fn note_polls(&self, sheet: &mut Sheet, figure: Figure, wanted: usize) {
        if self.can.polls < wanted {
            let note = format!("{} polls, bound by {}", self.can.polls, self.can.bound);
            sheet.note(figure, self.name, &note);
        }
    }

    /// Number of polls that the crowds of a scale have here.
    pub(super) fn most(&self, scale: &Scale) -> usize {
        self.polls(scale.most)
    }
}
