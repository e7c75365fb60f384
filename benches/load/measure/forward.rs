//! Requests that are no polls, on their way to the site and back.

use super::Scale;
use super::stage::Stage;
use crate::press::barrage;
use crate::sheet::{Figure, Sheet};
use std::io;

const CONNECTIONS: usize = 64;
const REQUEST: &[u8] = b"GET /plain?page=1 HTTP/1.1\r\nHost: bench\r\nUser-Agent: load\r\n\
                         Accept: */*\r\nCookie: PHPSESSID=0123456789abcdef\r\n\r\n";

pub(super) fn forward(stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let to = stage.running.wire.public();
    let total = if stage.can.is_slow() { 2000 } else { scale.pick(10_000, 40_000) };
    // Opens the connections to the site, and warms what there is to warm.
    barrage(to, CONNECTIONS, 500, |_| REQUEST.to_vec())?;
    stage.quiet(10);
    let before = stage.running.gauge.cpu();
    let volley = barrage(to, CONNECTIONS, total, |_| REQUEST.to_vec())?;
    stage.quiet(10);
    if volley.failed > 0 {
        return Err(io::Error::other(format!("{} of {total} refused", volley.failed)));
    }
    let spent = (stage.running.gauge.cpu() - before) as f64 / 1e3;
    sheet.put(Figure::ForwardCpu, stage.name, spent / total as f64);
    sheet.put(Figure::ForwardRate, stage.name, total as f64 / volley.took.as_secs_f64());
    // One after the other: nothing shares a wake.
    let total = total / 8;
    let before = stage.running.gauge.cpu();
    barrage(to, 1, total, |_| REQUEST.to_vec())?;
    stage.quiet(10);
    let spent = (stage.running.gauge.cpu() - before) as f64 / 1e3;
    sheet.put(Figure::ForwardCpuAlone, stage.name, spent / total as f64);
    Ok(())
}
