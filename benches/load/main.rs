//! The load bench: pollgate beside the others, end to end, see `benches/README.md`.

mod args;
mod audience;
mod contestant;
mod crowd;
mod floor;
mod gauge;
mod http;
mod measure;
mod message;
mod multitude;
mod plot;
mod press;
mod report;
mod sheet;

use args::Args;
use clap::Parser;
use contestant::{Contestant, Settings};
use floor::Way;
use measure::Scale;
use sheet::Sheet;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

fn main() -> io::Result<()> {
    let args = Args::parse();
    // Servers inherit it; clients need it just as much.
    pollgate::server::limits::descriptors::raise_limit()?;
    match (args.floor, args.site) {
        (Some(address), _) => floor::serve(address, Way::Hold),
        (_, Some(address)) => floor::serve(address, Way::Site),
        _ => run(&args),
    }
}

fn run(args: &Args) -> io::Result<()> {
    let built = || Path::new(env!("CARGO_BIN_EXE_pollgate")).to_owned();
    let settings = Settings {
        pollgate: args.subject_binary.clone().unwrap_or_else(built),
        set: args.set.clone(),
        workers: args.workers.max(1),
    };
    let contestants: Vec<Contestant> = contestant::all(&settings)
        .into_iter()
        .filter(|contestant| args.wants(contestant.name))
        .collect();
    let levels = args.levels();
    let most = args.most();
    let streams = args.streams();
    let scale = Scale { levels, most, streams, quick: args.quick };
    let mut sheet = Sheet::default();
    let began = Instant::now();
    for round in 1..=args.rounds() {
        for measure in args.measures() {
            for contestant in contestants.iter().filter(|one| one.missing.is_none()) {
                if round > 1 && contestant.abilities.is_slow() {
                    continue;
                }
                let seconds = began.elapsed().as_secs();
                progress(&format!("{seconds:4} s  round {round}: {measure:?} {}", contestant.name));
                measure::take(measure, contestant, &settings, &scale, &mut sheet);
            }
        }
    }
    progress("");
    let markdown = report::markdown(&sheet, &contestants, args.rounds());
    io::stdout().write_all(markdown.as_bytes())?;
    if let Some(path) = &args.markdown {
        std::fs::write(path, &markdown)?;
    }
    if let Some(path) = &args.json {
        let json = report::json(&sheet, &contestants);
        std::fs::write(path, serde_json::to_vec_pretty(&json).map_err(io::Error::other)?)?;
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&sheet, &scale.levels))?;
    }
    Ok(())
}

/// Reports progress on the error stream: the other one is for the table.
fn progress(line: &str) {
    // The stream may be closed.
    let _ = writeln!(io::stderr(), "{line}");
}
