//! Resources used by a contestant's processes, as the kernel counts them.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// All processes of one contestant.
#[derive(Clone)]
pub(crate) struct Gauge {
    roots: Vec<u32>,
}

impl Gauge {
    /// The processes `roots` and all they have started.
    pub(crate) fn new(roots: Vec<u32>) -> Self {
        Self { roots }
    }

    /// The ids of all processes that live now.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let parents = parents();
        let mut family = self.roots.clone();
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
            next += 1;
        }
        family
    }

    /// Proportional set size in KiB: a page shared by n processes counts for 1/n in each.
    pub(crate) fn memory(&self) -> io::Result<f64> {
        let mut sum = 0.0;
        for process in self.processes() {
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            sum += kib.ok_or_else(|| io::Error::other("smaps_rollup has no Pss"))?;
        }
        Ok(sum)
    }

    /// Time on a CPU so far, in nanoseconds, over all threads.
    pub(crate) fn cpu(&self) -> u64 {
        self.processes().into_iter().map(cpu_of).sum()
    }

    /// Times that a thread began to run after it had waited, so far.
    pub(crate) fn wakes(&self) -> u64 {
        self.processes().into_iter().map(wakes_of).sum()
    }

    /// Waits until the processes have nothing more to do: less than a twentieth of `window` on a
    /// CPU within it, twice in a row. Gives up after `most`.
    pub(crate) fn wait_quiet(&self, window: Duration, most: Duration) {
        let end = Instant::now() + most;
        let mut before = self.cpu();
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < end {
            std::thread::sleep(window);
            let now = self.cpu();
            let busy = Duration::from_nanos(now.saturating_sub(before)) > window / 20;
            quiet = if busy { 0 } else { quiet + 1 };
            before = now;
        }
    }
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| Some((id, parent(id)?))).collect()
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the state and the parent follow it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn wakes_of(process: u32) -> u64 {
    const WAITS: &str = "voluntary_ctxt_switches:";
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let waits = |path: std::path::PathBuf| -> Option<u64> {
        let status = fs::read_to_string(path.join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix(WAITS))?.trim().parse().ok()
    };
    tasks.flatten().filter_map(|task| waits(task.path())).sum()
}

fn cpu_of(process: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let spent = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    tasks.flatten().filter_map(|task| spent(task.path())).sum()
}
