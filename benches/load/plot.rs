//! Memory and CPU against held polls, as one SVG.

use crate::sheet::{Figure, Sheet, thousands};
use std::fmt::Write;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 260.0;
/// Space for the numbers at the left and the bottom.
const MARGIN: f64 = 48.0;

/// Only those that hold thousands can be drawn against them.
const DRAWN: [(&str, &str); 3] =
    [("pollgate", "#d1495b"), ("nchan", "#2e6f95"), ("floor", "#8a8a8a")];

struct Panel<'a> {
    title: &'a str,
    figure: fn(usize) -> Figure,
    left: f64,
}

/// Both panels side by side.
pub(crate) fn svg(sheet: &Sheet, levels: &[usize]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" \
         viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        2.0 * (WIDTH + MARGIN) + 40.0,
        HEIGHT + 2.0 * MARGIN + 20.0,
    );
    let panels = [
        Panel { title: "memory per held poll (KiB)", figure: Figure::Memory, left: MARGIN },
        Panel {
            title: "CPU per delivery and re-poll (µs)",
            figure: Figure::Cpu,
            left: WIDTH + 2.0 * MARGIN + 20.0,
        },
    ];
    for panel in &panels {
        draw(&mut svg, panel, sheet, levels);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel<'_>, sheet: &Sheet, levels: &[usize]) {
    let value = |level: usize, name: &'static str| sheet.value((panel.figure)(level), name);
    let all = levels.iter().flat_map(|level| DRAWN.map(|(name, _)| value(*level, name)));
    let top = ceiling(all.flatten().fold(1.0, f64::max));
    let most = levels.last().copied().unwrap_or(1) as f64;
    let x = |level: usize| panel.left + level as f64 / most * WIDTH;
    let y = |value: f64| MARGIN + HEIGHT * (1.0 - value / top);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" font-size=\"14\">{}</text>",
        panel.left,
        MARGIN - 16.0,
        panel.title
    );
    for step in 0..=4 {
        let mark = top * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{0}\" y1=\"{2}\" x2=\"{1}\" y2=\"{2}\" stroke=\"#dddddd\"/>\
             <text x=\"{3}\" y=\"{4}\" text-anchor=\"end\">{mark}</text>",
            panel.left,
            panel.left + WIDTH,
            y(mark),
            panel.left - 6.0,
            y(mark) + 4.0,
        );
    }
    for level in levels {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(*level),
            MARGIN + HEIGHT + 18.0,
            thousands(*level as f64)
        );
    }
    for (index, (name, colour)) in DRAWN.into_iter().enumerate() {
        let points: Vec<(f64, f64)> =
            levels.iter().filter_map(|level| Some((x(*level), y(value(*level, name)?)))).collect();
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (x, y) in points {
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let left = panel.left + 90.0 * index as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            MARGIN + HEIGHT + 44.0
        );
    }
}

/// The next round number above `value`, which four parts divide well.
fn ceiling(value: f64) -> f64 {
    let steps = [4.0, 8.0, 12.0, 16.0, 20.0, 28.0, 40.0, 60.0, 80.0, 120.0, 160.0, 200.0, 400.0];
    steps.into_iter().find(|step| *step >= value).unwrap_or_else(|| (value / 100.0).ceil() * 100.0)
}
