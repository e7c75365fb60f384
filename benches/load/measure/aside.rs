//! Quiet channels beside a crowded one: how long their messages take while the crowd is served.
//!
//! Each probe has a channel, a poll and a publishing connection of its own, and publishes at a
//! moment chosen before the fan-out began: one that waits does not keep the next from being sent,
//! so the slow ones count as much as they happen.

use super::Scale;
use super::stage::{PATIENCE, Stage, WIDE};
use crate::contestant::Wire;
use crate::crowd::Cursor;
use crate::http;
use crate::press::Caller;
use crate::sheet::{Figure, Sheet};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const PROBES: u32 = 10;
const FIRST: u32 = 5;

pub(super) fn aside(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let polls = stage.most(scale);
    stage.grow(polls, |_| WIDE)?;
    let probes: Vec<_> = (0..PROBES)
        .map(|number| Probe::start(stage.running.wire.clone(), FIRST + number))
        .collect();
    // Their first messages give them cursors.
    stage.quiet(20);
    send_all(&probes, |_| Instant::now());
    collect(&probes)?;
    let times = if stage.can.is_slow() { 2 } else { scale.pick(10, 15) };
    let mut random = fastrand::Rng::with_seed(1);
    // As long as the first fan-out takes, which has no probes.
    let mut length = Duration::ZERO;
    let mut took = Vec::new();
    let mut late = Vec::new();
    for round in 0..=times {
        stage.quiet(10);
        let began = Instant::now();
        stage.press.begin(WIDE);
        if round > 0 {
            send_all(&probes, |_| began + length.mul_f64(0.02 + 0.9 * random.f64()));
        }
        stage.wait_for(polls)?;
        let ended = Instant::now();
        stage.press.wait()?;
        if round == 0 {
            length = ended - began;
            continue;
        }
        let samples = collect(&probes)?;
        // A sample that was sent only after the crowd had its message does not count.
        for sample in samples.into_iter().filter(|sample| sample.sent < ended) {
            took.push(sample.took.as_secs_f64() * 1e3);
            late.push(sample.late.as_secs_f64() * 1e3);
        }
    }
    let figures = [
        (Figure::AsideHalf, at(&mut took, 0.5)),
        (Figure::AsideNinetyNine, at(&mut took, 0.99)),
        (Figure::AsideLate, at(&mut late, 0.99)),
    ];
    for (figure, value) in figures {
        value.into_iter().for_each(|value| sheet.put(figure, stage.name, value));
    }
    stage.note_polls(sheet, Figure::AsideNinetyNine, scale.most);
    stage.book(sheet);
    Ok(())
}

/// The value that `share` of all do not exceed.
fn at(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let index = values.len().saturating_sub(1) as f64 * share;
    values.get(index.ceil() as usize).copied()
}

struct Sample {
    /// Time of sending the publish.
    sent: Instant,
    /// Delay after the chosen moment: the machine's share, not the server's.
    late: Duration,
    /// Time until its poll had the message.
    took: Duration,
}

struct Probe {
    moments: Sender<Instant>,
    samples: Receiver<io::Result<Sample>>,
}

fn send_all(probes: &[Probe], mut moment: impl FnMut(usize) -> Instant) {
    for (index, probe) in probes.iter().enumerate() {
        // A failed one is reported when it is collected.
        let _ = probe.moments.send(moment(index));
    }
}

fn collect(probes: &[Probe]) -> io::Result<Vec<Sample>> {
    let sample = |probe: &Probe| probe.samples.recv().map_err(io::Error::other)?;
    probes.iter().map(sample).collect()
}

impl Probe {
    /// Polls from now on, and publishes at each moment that it is sent.
    fn start(wire: Arc<dyn Wire>, number: u32) -> Self {
        let (moments, inbox) = channel();
        let (outbox, samples) = channel();
        // Ends when the probe is dropped.
        std::thread::spawn(move || {
            if let Err(error) = serve(&*wire, number, &inbox, &outbox) {
                let _ = outbox.send(Err(error));
            }
        });
        Self { moments, samples }
    }
}

fn serve(
    wire: &dyn Wire,
    number: u32,
    moments: &Receiver<Instant>,
    samples: &Sender<io::Result<Sample>>,
) -> io::Result<()> {
    let mut polling = TcpStream::connect(wire.public())?;
    polling.set_nodelay(true)?;
    polling.set_read_timeout(Some(PATIENCE))?;
    let mut publishing = Caller::default();
    let mut cursor = Cursor::new();
    let mut request = Vec::new();
    for seq in 1.. {
        request.clear();
        wire.poll(number, &cursor, &mut request);
        polling.write_all(&request)?;
        let Ok(moment) = moments.recv() else { break };
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        let began = publishing.publish(&wire.publish(number, seq))?.began;
        let came = receive(wire, &mut polling, &mut cursor)?;
        let sample = Sample {
            sent: began,
            late: began.saturating_duration_since(moment),
            took: came.saturating_duration_since(began),
        };
        if samples.send(Ok(sample)).is_err() {
            break;
        }
    }
    Ok(())
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
