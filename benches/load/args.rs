//! Flags.

use crate::measure::Measure;
use crate::multitude::STREAMS;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Measures pollgate beside other servers, all in one run, each round in turn.
#[derive(Parser, Debug)]
#[command(name = "load")]
pub(crate) struct Args {
    /// One small round, for every day: 1,000 polls
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these contestants: pollgate, pollgate-log, nchan, nchan-log, pushpin, php-fpm, nginx, floor
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) only: Vec<String>,
    /// Only these measures
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) measures: Vec<Measure>,
    /// The most polls to hold [default: 15000, with --quick 1000]
    #[arg(long, value_name = "N")]
    pub(crate) polls: Option<usize>,
    /// Polls or event streams held at once over HTTP/2, 100 a connection [default: 100000, with --quick 10000]
    #[arg(long, value_name = "N")]
    pub(crate) streams: Option<usize>,
    /// Rounds; the table shows medians [default: 3, with --quick 1]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
    /// The pollgate to measure [default: the one built with this bench]
    #[arg(long, value_name = "PATH")]
    pub(crate) subject_binary: Option<PathBuf>,
    /// A further --set for pollgate
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Threads of pollgate, workers of nginx
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) workers: usize,
    /// Also measure memory and CPU at 2,500 and 10,000 polls, and draw both into this SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Also write the table into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Also write every value of every round into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Be the floor on this address
    #[arg(long, hide = true, value_name = "ADDR")]
    pub(crate) floor: Option<SocketAddr>,
    /// Be the site behind the others on this address
    #[arg(long, hide = true, value_name = "ADDR")]
    pub(crate) site: Option<SocketAddr>,
    /// Flag that cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// The most polls to hold.
    pub(crate) fn most(&self) -> usize {
        self.polls.unwrap_or(if self.quick { 1000 } else { 15_000 }).max(10)
    }

    /// Numbers of polls to hold, from few to most.
    pub(crate) fn levels(&self) -> Vec<usize> {
        let usual: &[usize] = match self.plot {
            Some(_) => &[1000, 2500, 5000, 10_000, 15_000],
            None => &[1000, 5000, 15_000],
        };
        let most = self.most();
        let mut levels: Vec<usize> = usual.iter().copied().filter(|level| *level < most).collect();
        levels.push(most);
        levels
    }

    /// Number of polls to hold over HTTP/2: whole connections of them.
    pub(crate) fn streams(&self) -> usize {
        let wanted = self.streams.unwrap_or(if self.quick { 10_000 } else { 100_000 });
        wanted.div_ceil(STREAMS).max(1) * STREAMS
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// True if a contestant takes part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The measures to take.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        if self.measures.is_empty() { Measure::ALL.to_vec() } else { self.measures.clone() }
    }
}
