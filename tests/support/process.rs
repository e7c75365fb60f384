//! A child process whose output is kept and that never outlives its value.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::TempDir;
use super::wait::{BOUND, eventually_some};

/// Number of bytes kept of each of its two outputs, the newest.
const KEPT: usize = 256 * 1024;

/// A running program, leader of its own process group. Dropping it kills the
/// whole group, so that forked workers do not stay behind.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: u32,
    stdout: Output,
    stderr: Output,
    /// Threads still reading; 0 once both outputs are at their end.
    reading: Arc<AtomicUsize>,
}

impl Process {
    /// Starts it. `missing` is the advice for a program that is not installed.
    pub fn spawn(name: &str, command: &mut Command, missing: &str) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.process_group(0).spawn() {
            Ok(child) => child,
            Err(e) => panic!("cannot start {name}: {e}\n{missing}"),
        };
        let reading = Arc::new(AtomicUsize::new(2));
        let stdout = Output::read(child.stdout.take().unwrap(), &reading);
        let stderr = Output::read(child.stderr.take().unwrap(), &reading);
        let pid = child.id();
        Process { name: name.into(), child: Mutex::new(child), pid, stdout, stderr, reading }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The newest part of what it wrote to stdout.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The newest part of what it wrote to stderr.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// None while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().unwrap()
    }

    /// Waits until `find` finds something in stdout and stderr. Panics if
    /// that takes longer than `bound` or the program ends before; its output
    /// follows the panic, as with any failing test.
    pub async fn wait_for_output<T>(
        &self,
        what: &str,
        bound: Duration,
        find: impl Fn(&str, &str) -> Option<T>,
    ) -> T {
        let look = async || {
            // The order matters: what it wrote before it ended counts.
            let ended = self.exit_status().is_some() && self.all_read();
            match find(&self.stdout(), &self.stderr()) {
                Some(found) => Some(Ok(found)),
                None if ended => Some(Err("it ended")),
                None => None,
            }
        };
        let found = tokio::time::timeout(bound, eventually_some(what, bound * 2, look)).await;
        match found.unwrap_or(Err("time is up")) {
            Ok(found) => found,
            Err(why) => panic!("{}: no {what}: {why}", self.name),
        }
    }

    /// Waits for its end, and for the last of its output.
    pub async fn wait_for_exit(&self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually_some(&what, 3 * BOUND, async || self.exit_status().filter(|_| self.all_read()))
            .await
    }

    /// Sends a signal (`TERM`, `HUP`, ...) to it alone.
    pub fn signal(&self, signal: &str) {
        assert!(kill(signal, &self.pid.to_string()), "cannot send {signal} to {}", self.name);
    }

    /// Kills its whole group and takes in what is left of it.
    pub fn kill(&self) {
        kill("KILL", &format!("-{}", self.pid));
        let _ = self.child.lock().wait();
    }

    /// The ends of both outputs, for a panic message.
    pub fn story(&self) -> String {
        let stdout = self.stdout();
        let stderr = self.stderr();
        format!("--- stdout\n{}--- stderr\n{}---", last_lines(&stdout), last_lines(&stderr))
    }

    fn all_read(&self) -> bool {
        self.reading.load(Ordering::Acquire) == 0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // Beside the test's own message: what this side saw of it.
            eprintln!("{} (process {})\n{}", self.name, self.pid, self.story());
        }
    }
}

/// The folder of a program that leaves processes outside of its group: those that name the folder
/// on their command line are killed with it.
#[derive(Debug)]
pub struct Leftovers(pub TempDir);

impl Drop for Leftovers {
    fn drop(&mut self) {
        let ours = self.0.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&ours) {
                kill("KILL", &entry.file_name().to_string_lossy());
            }
        }
    }
}

/// One output of a process, read by a thread of its own until its end.
#[derive(Clone, Debug, Default)]
struct Output(Arc<Mutex<VecDeque<u8>>>);

impl Output {
    fn read(from: impl Read + Send + 'static, reading: &Arc<AtomicUsize>) -> Output {
        let output = Output::default();
        let kept = output.0.clone();
        let reading = reading.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let mut kept = kept.lock();
                kept.extend(line.drain(..));
                let excess = kept.len().saturating_sub(KEPT);
                kept.drain(..excess);
            }
            reading.fetch_sub(1, Ordering::Release);
        });
        output
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.lock().iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The newest forty lines.
fn last_lines(text: &str) -> &str {
    let ends = text.trim_end().rmatch_indices('\n');
    ends.map(|(at, _)| at + 1).nth(39).map_or(text, |start| &text[start..])
}

/// `kill` is built into every shell, where the program of that name is not
/// installed everywhere.
fn kill(signal: &str, target: &str) -> bool {
    let mut sh = Command::new("sh");
    sh.args(["-c", "kill -s \"$1\" -- \"$2\" 2>/dev/null", "sh", signal, target]);
    sh.status().is_ok_and(|status| status.success())
}

/// Raises this process's limit of open files, which a gate started later
/// inherits. Panics if the system does not allow so many.
pub fn allow_open_files(count: u64) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap();
    if soft == "unlimited" || soft.parse::<u64>().unwrap() >= count {
        return;
    }
    let status = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), &format!("--nofile={count}:")])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "this test needs {count} open files, the limit is {soft}: ulimit -n {count}"
    );
}
