//! The table, the targets and the raw values.

use crate::contestant::Contestant;
use crate::sheet::{Figure, Sheet};
use std::fmt::Write;

/// Everything as Markdown.
pub(crate) fn markdown(sheet: &Sheet, contestants: &[Contestant], rounds: usize) -> String {
    let mut text = table(sheet, contestants);
    let _ = writeln!(text, "\nMedians of {rounds} rounds in turn; counts are sums.\n");
    for contestant in contestants {
        match &contestant.missing {
            Some(why) => {
                let _ = writeln!(text, "- **{}**: MISSING, {why}", contestant.name);
            }
            None => {
                let _ = writeln!(text, "- **{}**: {}", contestant.name, contestant.about);
            }
        }
    }
    text.push_str(&targets(sheet));
    text
}

fn table(sheet: &Sheet, contestants: &[Contestant]) -> String {
    let mut text = String::from("| |");
    for contestant in contestants {
        let _ = write!(text, " {} |", contestant.name);
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(contestants.len()));
    text.push('\n');
    let mut notes: Vec<String> = Vec::new();
    for figure in sheet.figures() {
        let _ = write!(text, "| {} |", figure.title());
        for contestant in contestants {
            let shown = if contestant.missing.is_some() {
                "missing".to_owned()
            } else {
                let value = sheet.value(figure, contestant.name);
                value.map_or_else(|| "–".to_owned(), |value| figure.show(value))
            };
            let _ = write!(text, " {shown}");
            if let Some(note) = sheet.cell(figure, contestant.name).and_then(|c| c.note.clone()) {
                let note = format!("{}: {note}", contestant.name);
                let number = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
                    notes.push(note);
                    notes.len() - 1
                });
                let _ = write!(text, " ({})", number + 1);
            }
            text.push_str(" |");
        }
        text.push('\n');
    }
    for (index, note) in notes.iter().enumerate() {
        let _ = write!(text, "\n({}) {note}", index + 1);
    }
    text.push('\n');
    text
}

/// The targets, as ratios of this very run.
fn targets(sheet: &Sheet) -> String {
    let figures = sheet.figures();
    let levels = |level: fn(Figure) -> Option<usize>| -> Vec<usize> {
        figures.iter().filter_map(|figure| level(*figure)).collect()
    };
    let memory = levels(|figure| match figure {
        Figure::Memory(level) => Some(level),
        _ => None,
    });
    let cpu = levels(|figure| match figure {
        Figure::Cpu(level) => Some(level),
        _ => None,
    });
    let in_a_row = levels(|figure| match figure {
        Figure::CpuInARow(level) => Some(level),
        _ => None,
    });
    let ratio = |figure, other| {
        Some(sheet.value(figure, "pollgate")? / sheet.value(figure, other)?)
            .filter(|r| r.is_finite())
    };
    let mut rows: Vec<(String, Option<f64>, f64, bool)> = Vec::new();
    for level in memory {
        let figure = Figure::Memory(level);
        rows.push((format!("{} / nchan", figure.title()), ratio(figure, "nchan"), 0.5, true));
    }
    let in_a_row = in_a_row.into_iter().map(Figure::CpuInARow);
    for figure in cpu.iter().copied().map(Figure::Cpu).chain(in_a_row) {
        rows.push((format!("{} / nchan", figure.title()), ratio(figure, "nchan"), 0.85, true));
        rows.push((format!("{} / floor", figure.title()), ratio(figure, "floor"), 1.6, true));
    }
    // What a line of the access log adds to a delivery.
    for level in &cpu {
        let figure = Figure::Cpu(*level);
        let value = |name| sheet.value(figure, name);
        let line =
            value("pollgate-log").zip(value("pollgate")).map(|(with, without)| with - without);
        rows.push((format!("{}: of it the access log", figure.title()), line, 1.5, true));
    }
    if let (Some(first), Some(last)) = (cpu.first(), cpu.last()).to_owned() {
        let value = |level: &usize| sheet.value(Figure::Cpu(*level), "pollgate");
        let flat = value(last).zip(value(first)).map(|(last, first)| last / first);
        rows.push((format!("CPU at {last} / at {first}"), flat, 1.15, true));
    }
    let others = [
        (Figure::Last, "nchan", 1.0, true),
        (Figure::LastAgain, "nchan", 1.0, true),
        (Figure::Channels, "nchan", 1.0, false),
        (Figure::ForwardCpu, "nginx", 1.3, true),
        (Figure::ForwardCpuAlone, "nginx", 1.3, true),
    ];
    for (figure, other, bound, below) in others {
        rows.push((format!("{} / {other}", figure.title()), ratio(figure, other), bound, below));
    }
    let absolute = [
        (Figure::AsideNinetyNine, 10.0),
        (Figure::ChurnGrowth, 10.0),
        (Figure::ChurnLeft, 10.0),
        (Figure::CpuOfHolding, 0.5),
        (Figure::WakesOfHolding, 10.0),
        (Figure::Lost, 0.0),
        (Figure::Duplicated, 0.0),
        (Figure::Misordered, 0.0),
    ];
    for (figure, bound) in absolute {
        rows.push((figure.title(), sheet.value(figure, "pollgate"), bound, true));
    }
    rows.retain(|(_, value, _, _)| value.is_some());
    if rows.is_empty() {
        return String::new();
    }
    let mut text =
        String::from("\n| pollgate, to reach | measured | bound | |\n|---|--:|--:|---|\n");
    for (title, value, bound, below) in rows {
        let value = value.unwrap_or(f64::NAN);
        let (sign, reached) = if below { ("≤", value <= bound) } else { ("≥", value >= bound) };
        let verdict = if reached { "reached" } else { "**missed**" };
        let _ = writeln!(text, "| {title} | {value:.2} | {sign} {bound} | {verdict} |");
    }
    text
}

/// Every value of every round.
pub(crate) fn json(sheet: &Sheet, contestants: &[Contestant]) -> serde_json::Value {
    let figures = sheet.figures().into_iter().map(|figure| {
        let cells = contestants.iter().filter_map(|contestant| {
            let cell = sheet.cell(figure, contestant.name)?;
            let value = serde_json::json!({
                "value": sheet.value(figure, contestant.name),
                "rounds": cell.values,
                "note": cell.note,
            });
            Some((contestant.name.to_owned(), value))
        });
        let cells: serde_json::Map<_, _> = cells.collect();
        serde_json::json!({ "figure": figure.title(), "contestants": cells })
    });
    let figures: Vec<_> = figures.collect();
    let contestants = contestants.iter().map(|contestant| {
        serde_json::json!({
            "name": contestant.name, "about": contestant.about, "missing": contestant.missing,
        })
    });
    let contestants: Vec<_> = contestants.collect();
    serde_json::json!({ "contestants": contestants, "figures": figures })
}
