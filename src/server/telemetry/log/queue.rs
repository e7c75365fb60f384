//! The queue of log lines, and the thread that writes them to standard error.
//!
//! **Logging never waits.** The log's reader may stand still; then the queue fills up, and lines
//! that find no room are dropped and counted. Once there is room again, a line says how many
//! were lost. A line is written whole or not at all.
//!
//! **Lines are written in batches.** The first one wakes the thread, which then gathers more of
//! them for a moment: a gate that logs each request would else switch threads, and call the
//! system, for each line.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written, at the most; as many may be on their way.
const MAX_BYTES: usize = 1 << 20;
/// Bytes that are written without gathering more.
const FULL: usize = 64 << 10;
/// Time for which lines are gathered.
const GATHERING: Duration = Duration::from_millis(5);

static QUEUE: Queue = Queue {
    state: Mutex::new(State { waiting: Vec::new(), writing: false, thread: Thread::Busy }),
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
    thread: Thread,
}

/// The state of the thread that writes.
#[derive(PartialEq, Eq)]
enum Thread {
    /// It looks for lines by itself.
    Busy,
    /// It waits for the first line.
    Asleep,
    /// It waits for more lines, but not for long.
    Gathering,
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
    // Nothing more is gathered.
    QUEUE.filled.notify_one();
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
        Line(Vec::new())
    }
}

/// Appends a line to the queue.
pub(super) fn push(line: &[u8]) {
    static WRITER: OnceLock<bool> = OnceLock::new();
    WRITER.get_or_init(|| thread::Builder::new().name("log".to_owned()).spawn(write).is_ok());
    let mut state = QUEUE.state.lock();
    if state.waiting.len() + line.len() > MAX_BYTES {
        QUEUE.dropped.fetch_add(1, Ordering::Relaxed);
        return;
    }
    state.waiting.extend_from_slice(line);
    let wake = match state.thread {
        Thread::Busy => false,
        Thread::Asleep => true,
        Thread::Gathering => state.waiting.len() >= FULL,
    };
    if wake {
        state.thread = Thread::Busy;
        drop(state);
        QUEUE.filled.notify_one();
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
        push(&self.0);
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
                state.thread = Thread::Asleep;
                QUEUE.filled.wait(&mut state);
            }
            if state.waiting.len() < FULL {
                state.thread = Thread::Gathering;
                QUEUE.filled.wait_for(&mut state, GATHERING);
            }
            state.thread = Thread::Busy;
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
