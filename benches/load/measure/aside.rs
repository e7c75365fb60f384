//! A quiet channel beside a crowded one: how long its own message takes while the crowd is served.

use super::Scale;
use super::stage::{ASIDE, Stage, WIDE};
use crate::contestant::Wire;
use crate::crowd::Cursor;
use crate::http;
use crate::press::Caller;
use crate::sheet::{Figure, Sheet};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) fn aside(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let polls = stage.most(scale);
    stage.grow(polls, |_| WIDE)?;
    let stop = Arc::new(AtomicBool::new(false));
    let samples = {
        let (wire, stop) = (stage.running.wire.clone(), stop.clone());
        std::thread::spawn(move || probe(&*wire, &stop))
    };
    // Wide fan-outs one after the other, so that nearly every sample falls into one.
    let times = match stage.can.is_slow() {
        true => 3,
        false => (scale.pick(30_000, 120_000) / polls).clamp(5, 60),
    };
    let mut spans = Vec::new();
    for _ in 0..times {
        stage.press.begin(WIDE);
        stage.wait_for(polls)?;
        let began = stage.press.wait()?.began;
        spans.push((began, Instant::now()));
    }
    stop.store(true, Ordering::Relaxed);
    let samples = samples.join().map_err(|_| io::Error::other("the probe failed"))??;
    let amid = |moment: Instant| spans.iter().any(|(from, to)| (*from..*to).contains(&moment));
    let mut took: Vec<f64> = samples
        .into_iter()
        .filter(|(began, _)| amid(*began))
        .map(|(_, took)| took.as_secs_f64() * 1e3)
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get((took.len().saturating_sub(1) as f64 * share).ceil() as usize);
    if let (Some(half), Some(most)) = (at(0.5), at(0.99)) {
        sheet.put(Figure::AsideHalf, stage.name, *half);
        sheet.put(Figure::AsideNinetyNine, stage.name, *most);
    }
    stage.note_polls(sheet, Figure::AsideNinetyNine, scale.most);
    stage.book(sheet);
    Ok(())
}

/// Polls and publishes in turn; when each publish was sent, and how long until its poll had it.
fn probe(wire: &dyn Wire, stop: &AtomicBool) -> io::Result<Vec<(Instant, Duration)>> {
    let mut polling = TcpStream::connect(wire.public())?;
    polling.set_nodelay(true)?;
    polling.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut publishing = Caller::default();
    let mut cursor = Cursor::new();
    let mut samples = Vec::new();
    let mut request = Vec::new();
    for seq in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        request.clear();
        wire.poll(ASIDE, &cursor, &mut request);
        polling.write_all(&request)?;
        // The first one has no cursor and must be held before its message comes.
        let pause = if seq == 1 { Duration::from_millis(500) } else { Duration::from_millis(3) };
        std::thread::sleep(pause);
        let began = publishing.publish(&wire.publish(ASIDE, seq))?.began;
        let came = receive(wire, &mut polling, &mut cursor)?;
        samples.push((began, came.saturating_duration_since(began)));
    }
    Ok(samples)
}

/// Reads one answer; when it had come.
fn receive(wire: &dyn Wire, stream: &mut TcpStream, cursor: &mut Cursor) -> io::Result<Instant> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..length]);
        if let Some(answer) = http::parse(&bytes)? {
            wire.cursor(&answer, cursor);
            return Ok(Instant::now());
        }
    }
}
