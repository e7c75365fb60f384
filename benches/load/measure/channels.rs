//! Many channels with one poll each, published to as fast as they take it.

use super::Scale;
use super::stage::Stage;
use crate::press::{Caller, Volley, barrage};
use crate::sheet::{Figure, Sheet};
use std::io;
use std::time::{Duration, Instant};

const CHANNELS: usize = 1000;
const FIRST: u32 = 100;
/// Publishing connections.
const CONNECTIONS: usize = 16;

pub(super) fn channels(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    stage.grow(CHANNELS, |index| FIRST + index as u32)?;
    let total = if stage.can.is_slow() { 1000 } else { scale.pick(10_000, 40_000) };
    let mut publishes: Vec<_> =
        (0..total).map(|index| stage.press.next(FIRST + (index % CHANNELS) as u32)).collect();
    stage.crowd.arrivals = Some(Vec::with_capacity(total));
    let began = Instant::now();
    let volley = std::thread::spawn(move || -> io::Result<Volley> {
        match publishes.first().and_then(|steps| steps.first()) {
            Some(step) if publishes.iter().all(|steps| steps.len() == 1) => {
                let to = step.to;
                barrage(to, CONNECTIONS, total as u64, |number| {
                    publishes[number as usize].pop().map(|step| step.request).unwrap_or_default()
                })
            }
            // Steps that must follow each other are made one after the other.
            _ => {
                let began = Instant::now();
                let mut caller = Caller::default();
                publishes.iter().try_for_each(|steps| caller.publish(steps).map(drop))?;
                Ok(Volley { took: began.elapsed(), failed: 0 })
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    stage.crowd.run_until(deadline, |crowd| {
        // Looking through all clients is expensive; while messages are due the count is enough.
        crowd.tally.messages >= total as u64 || volley.is_finished()
    })?;
    let newest = |channel| stage.press.newest(channel);
    let grace = Instant::now() + Duration::from_secs(10);
    stage.crowd.run_until(grace, |crowd| crowd.all_have(newest))?;
    let last = stage.crowd.arrivals.take().and_then(|arrivals| arrivals.last().copied());
    let took = last.unwrap_or(began) - began;
    let volley = volley.join().map_err(|_| io::Error::other("the publisher failed"))??;
    let took = took.max(volley.took).as_secs_f64();
    sheet.put(Figure::Channels, stage.name, (total as u64 - volley.failed) as f64 / took);
    stage.book(sheet);
    Ok(())
}
