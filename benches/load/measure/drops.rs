//! Clients that drop their connections at random moments and come back with the cursor they had.

use super::Scale;
use super::stage::Stage;
use crate::sheet::Sheet;
use std::io;
use std::time::{Duration, Instant};

const CHANNELS: usize = 20;
const FIRST: u32 = 20;

pub(super) fn drops(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let slow = stage.can.is_slow();
    let clients = if slow { 100 } else { scale.pick(500, 2000) };
    let interval = Duration::from_millis(if slow { 100 } else { 5 });
    let channel = |index: usize| FIRST + (index % CHANNELS) as u32;
    stage.grow(clients, channel)?;
    // Before its first message a client has no cursor to come back with.
    for index in 0..CHANNELS {
        stage.press.begin(channel(index));
    }
    stage.wait_for(clients)?;
    for _ in 0..CHANNELS {
        stage.press.wait()?;
    }
    let mut random = fastrand::Rng::with_seed(1);
    let end = Instant::now() + Duration::from_secs(scale.pick(2, 4));
    let mut begun = 0;
    while Instant::now() < end {
        stage.press.begin(channel(random.usize(..CHANNELS)));
        begun += 1;
        // Some of them in the very moment of the delivery.
        for _ in 0..clients / 100 {
            let next = Instant::now() + interval / (clients / 100) as u32;
            stage.crowd.run_until(next, |_| false)?;
            stage.crowd.reconnect(random.usize(..stage.crowd.len()))?;
        }
    }
    for _ in 0..begun {
        stage.press.wait()?;
    }
    let newest = |channel| stage.press.newest(channel);
    let grace = Instant::now() + Duration::from_secs(10);
    stage.crowd.run_until(grace, |crowd| crowd.all_have(newest))?;
    stage.book(sheet);
    Ok(())
}
