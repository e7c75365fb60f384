//! Time from one publish to the last of all clients.

use super::Scale;
use super::stage::{Stage, WIDE};
use crate::crowd::Again;
use crate::press::Published;
use crate::sheet::{Figure, Sheet, median};
use std::io;
use std::time::Instant;

pub(super) fn fan_out(mut stage: Stage, scale: &Scale, sheet: &mut Sheet) -> io::Result<()> {
    let polls = stage.most(scale);
    stage.grow(polls, |_| WIDE)?;
    let times = scale.pick(3, 4);
    let mut spans = Vec::new();
    let mut lasts = Vec::new();
    for _ in 0..times {
        stage.crowd.again = Again::Later;
        spans.push(one(&mut stage, polls)?);
        stage.crowd.poll_again()?;
        stage.quiet(10);
        stage.crowd.again = Again::AtOnce;
        lasts.push(one(&mut stage, polls)?.last);
        stage.quiet(10);
    }
    let rows: [(Figure, ValueOf); 5] = [
        (Figure::First, |span| span.first),
        (Figure::Half, |span| span.half),
        (Figure::NinetyNine, |span| span.ninety_nine),
        (Figure::Last, |span| span.last),
        (Figure::PublishCall, |span| span.call),
    ];
    for (figure, value) in rows {
        let values: Vec<f64> = spans.iter().map(value).collect();
        sheet.put(figure, stage.name, median(&values).unwrap_or(0.0));
    }
    sheet.put(Figure::LastAgain, stage.name, median(&lasts).unwrap_or(0.0));
    stage.note_polls(sheet, Figure::Last, scale.most);
    stage.book(sheet);
    Ok(())
}

type ValueOf = fn(&Span) -> f64;

/// Milliseconds from when the publish was sent.
pub(super) struct Span {
    pub(super) first: f64,
    pub(super) half: f64,
    pub(super) ninety_nine: f64,
    pub(super) last: f64,
    call: f64,
}

impl Span {
    /// The span of a publish and the arrivals of its message, in their order.
    pub(super) fn of(arrivals: &[Instant], published: &Published) -> Self {
        let after =
            |moment: Instant| moment.saturating_duration_since(published.began).as_secs_f64() * 1e3;
        let at = |share: f64| {
            let index = (arrivals.len().saturating_sub(1)) as f64 * share;
            arrivals.get(index as usize).map_or(f64::NAN, |moment| after(*moment))
        };
        Self {
            first: at(0.0),
            half: at(0.5),
            ninety_nine: at(0.99),
            last: at(1.0),
            call: after(published.ended),
        }
    }
}

fn one(stage: &mut Stage, polls: usize) -> io::Result<Span> {
    stage.crowd.arrivals = Some(Vec::with_capacity(polls));
    stage.press.begin(WIDE);
    stage.wait_for(polls)?;
    let published = stage.press.wait()?;
    let arrivals = stage.crowd.arrivals.take().unwrap_or_default();
    Ok(Span::of(&arrivals, &published))
}
