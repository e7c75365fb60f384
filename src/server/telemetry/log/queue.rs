//! The queue of log lines, and the thread that writes them to standard error.
//!
//! **Logging never waits.** The log's reader may stand still; then the queue fills up, and lines
//! that find no room are dropped and counted. Once there is room again, a line says how many
//! were lost. A line is written whole or not at all.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written, at the most; as many may be on their way.
const MAX_BYTES: usize = 1 << 20;

static QUEUE: Queue = Queue {
    state: Mutex::new(State { waiting: Vec::new(), writing: false }),
    filled: Condvar::new(),
    emptied: Condvar::new(),
    dropped: AtomicU64::new(0),
};

struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    dropped: AtomicU64,
}

struct State {
    waiting: Vec<u8>,
    /// The lines that waited before are being written.
    writing: bool,
}

/// Number of lines dropped since the process started.
pub fn dropped() -> u64 {
    QUEUE.dropped.load(Ordering::Relaxed)
}

/// Waits until all is written, but not for long: the log's reader may stand still.
pub fn flush() {
    const LIMIT: Duration = Duration::from_millis(500);
    let until = Instant::now() + LIMIT;
    let mut state = QUEUE.state.lock();
    while state.writing || !state.waiting.is_empty() {
        if QUEUE.emptied.wait_until(&mut state, until).timed_out() {
            return;
        }
    }
}

/// Makes writers of lines.
pub(super) struct Lines;

/// Collects one line; it goes into the queue when it is dropped.
pub(super) struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        static WRITER: OnceLock<bool> = OnceLock::new();
        WRITER.get_or_init(|| thread::Builder::new().name("log".to_owned()).spawn(write).is_ok());
        Line(Vec::new())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = QUEUE.state.lock();
        if state.waiting.len() + self.0.len() > MAX_BYTES {
            QUEUE.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(&self.0);
        drop(state);
        QUEUE.filled.notify_one();
    }
}

fn write() {
    /// Room that is kept for the next lines.
    const KEPT: usize = 64 << 10;
    let mut lines = Vec::new();
    let mut reported = 0;
    loop {
        {
            let mut state = QUEUE.state.lock();
            state.writing = false;
            if state.waiting.is_empty() {
                QUEUE.emptied.notify_all();
            }
            while state.waiting.is_empty() {
                QUEUE.filled.wait(&mut state);
            }
            std::mem::swap(&mut state.waiting, &mut lines);
            state.writing = true;
        }
        // An error means that standard error is closed; there is no other place to report it.
        let _ = io::stderr().write_all(&lines);
        lines.clear();
        lines.shrink_to(KEPT);
        let lost = dropped();
        if lost > reported {
            tracing::warn!(lines = lost - reported, "the log was not read in time; lines are lost");
            reported = lost;
        }
    }
}
