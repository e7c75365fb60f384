//! One publish to very many event streams, or WebSockets, each on a connection of its own.

use super::Scale;
use super::fan_out::Span;
use super::stage::{PATIENCE, Stage, WIDE};
use crate::audience::Audience;
use crate::contestant::Carrier;
use crate::sheet::{Delivery, Figure, Sheet, median};
use std::io;
use std::time::{Duration, Instant};

pub(super) fn streams(
    mut stage: Stage,
    scale: &Scale,
    carrier: Carrier,
    sheet: &mut Sheet,
) -> io::Result<()> {
    let count = stage.most(scale);
    let wire = stage.running.wire.clone();
    let mut audience = Audience::open(&*wire, carrier, WIDE, count, PATIENCE)?;
    if audience.open < count {
        return Err(io::Error::other(format!("only {} streams are open", audience.open)));
    }
    stage.quiet(20);
    let memory = (stage.running.gauge.memory()? - stage.idle) / count as f64;
    let mut spans = Vec::new();
    let mut costs = Vec::new();
    // The first one warms up both sides.
    for round in 0..=scale.pick(4, 9) {
        std::thread::sleep(Duration::from_millis(500));
        let cpu = stage.running.gauge.cpu();
        let due = audience.delivered + count as u64;
        audience.arrivals = Some(Vec::with_capacity(count));
        stage.press.begin(WIDE);
        audience.run_until(Instant::now() + PATIENCE, |audience| audience.delivered >= due)?;
        let published = stage.press.wait()?;
        stage.quiet(10);
        let spent = (stage.running.gauge.cpu() - cpu) as f64 / 1e3;
        let arrivals = audience.arrivals.take().unwrap_or_default();
        if round > 0 {
            costs.push(spent / arrivals.len().max(1) as f64);
            spans.push(Span::of(&arrivals, &published));
        }
    }
    let mut put = |figure, values: &[f64]| {
        sheet.put(figure, stage.name, median(values).unwrap_or(f64::NAN));
    };
    let of = |value: fn(&Span) -> f64| spans.iter().map(value).collect::<Vec<f64>>();
    put(Figure::Carried(carrier, Delivery::First), &of(|span| span.first));
    put(Figure::Carried(carrier, Delivery::Half), &of(|span| span.half));
    put(Figure::Carried(carrier, Delivery::NinetyNine), &of(|span| span.ninety_nine));
    put(Figure::Carried(carrier, Delivery::Last), &of(|span| span.last));
    put(Figure::Carried(carrier, Delivery::Cpu), &costs);
    put(Figure::Carried(carrier, Delivery::Memory), &[memory]);
    let missing = (stage.press.newest(WIDE) * count as u64).saturating_sub(audience.delivered);
    sheet.put(Figure::Lost, stage.name, missing as f64);
    sheet.put(Figure::Duplicated, stage.name, audience.duplicated as f64);
    sheet.put(Figure::Failed, stage.name, audience.failed as f64);
    Ok(())
}
