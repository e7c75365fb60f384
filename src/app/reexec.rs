//! SIGUSR2: the gate starts its binary again, which takes over from it as `pollgate upgrade` does.
//!
//! It serves supervised processes: the new one starts in the same place, as the same user, in the
//! same service, with the same environment and the same flags. If it fails, the gate continues.

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;

/// Starts the binary again on each signal: a background service.
pub(super) struct Reexec {
    /// Command line that started this process; `None` = unknown, or not repeatable.
    command: Option<(PathBuf, Vec<OsString>)>,
    signal: Mutex<Signal>,
}

impl Reexec {
    /// Call this before the binary can have been replaced.
    pub(super) fn new(signal: Signal) -> Self {
        let mut args = std::env::args_os();
        let binary = binary(&args.next().unwrap_or_default());
        let command = binary.zip(successor(args.collect()));
        Self { command, signal: Mutex::new(signal) }
    }

    fn start(&self) {
        let Some((binary, args)) = &self.command else {
            return tracing::error!("this gate cannot be upgraded, only restarted");
        };
        if std::process::id() == 1 {
            let error = "this gate is process 1: the container would end with it";
            return tracing::error!(error, "no new process was started; going on");
        }
        match Command::new(binary).args(args).stdin(Stdio::null()).spawn() {
            Ok(child) => {
                tracing::info!(pid = child.id(), ?binary, "started a process to take over");
                // The child only ends before this process if it cannot take over. Without a thread
                // that failure goes unlogged, which is no reason to fail here.
                let _ = thread::Builder::new().spawn(|| watch(child));
            }
            Err(error) => tracing::error!(%error, ?binary, "cannot start a process; going on"),
        }
    }
}

fn watch(mut child: Child) {
    let pid = child.id();
    match child.wait() {
        Ok(status) => tracing::error!(pid, %status, "the process that was started has ended"),
        Err(error) => tracing::error!(pid, %error, "the process that was started is out of sight"),
    }
}

/// The path of the called program, which another call would use. A name without a folder was
/// searched for; then it is the path that was found.
fn binary(called: &OsString) -> Option<PathBuf> {
    let called = Path::new(called);
    let here = called.parent().is_some_and(|folder| !folder.as_os_str().is_empty());
    if here { Some(called.to_owned()) } else { std::env::current_exe().ok() }
}

/// The arguments for the process that takes over from one with `args`; `None` = it cannot be
/// started.
fn successor(mut args: Vec<OsString>) -> Option<Vec<OsString>> {
    let command = args.first().and_then(|arg| arg.to_str()).unwrap_or("--").to_owned();
    match command.as_str() {
        "run" | "upgrade" => args[0] = "upgrade".into(),
        flag if flag.starts_with('-') => args.insert(0, "upgrade".into()),
        _ => return None,
    }
    Some(args)
}

#[async_trait]
impl BackgroundService for Reexec {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut signal = self.signal.lock().await;
        loop {
            tokio::select! {
                _ = signal.recv() => self.start(),
                _ = shutdown.changed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_is_called_as_its_predecessor_was() {
        let called = |args: &str| {
            let args = args.split_whitespace().map(OsString::from).collect();
            successor(args).map(|args| args.join(" ".as_ref()).into_string().unwrap_or_default())
        };
        for (args, expected) in [
            ("run --config /a", Some("upgrade --config /a")),
            ("upgrade --config /a", Some("upgrade --config /a")),
            ("--listen 1:2 --set a=b", Some("upgrade --listen 1:2 --set a=b")),
            ("", Some("upgrade")),
            ("demo --listen 1:2", None),
        ] {
            assert_eq!(called(args).as_deref(), expected, "{args}");
        }
    }
}
