//! A real Redis on a free port, in a folder of its own.

use crate::support::{Process, TempDir, eventually_some};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

pub(crate) const MISSING: &str = "Redis is missing: apt-get install redis-server (or: make test)";

/// A running server. Dropping it kills it.
pub(crate) struct Redis {
    port: u16,
    args: Vec<String>,
    folder: TempDir,
    process: Option<Process>,
}

/// Stopped until it is dropped.
pub(crate) struct Stopped<'a>(&'a Process);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal("CONT");
    }
}

/// A port without a listener at this moment.
pub(crate) fn free_port() -> u16 {
    // Far below the ports that the system gives to clients, and 10,000 more is still a port: a
    // node of a cluster takes that, too.
    loop {
        let port = fastrand::u16(11_000..20_000);
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

impl Redis {
    /// One that keeps nothing on disk.
    pub(crate) async fn start() -> Redis {
        Redis::start_with(&[]).await
    }

    /// One with further options.
    pub(crate) async fn start_with(args: &[&str]) -> Redis {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let folder = TempDir::new("redis");
        let mut redis = Redis { port: free_port(), args, folder, process: None };
        redis.restart().await;
        redis
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it (again) and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--dir", &self.folder.path().display().to_string()]);
        command.args(&self.args);
        self.process = Some(Process::spawn("redis-server", &mut command, MISSING));
        let answers = async || {
            let answer = self.ask(&["PING"]);
            (answer == "PONG" || answer.contains("NOAUTH")).then_some(())
        };
        eventually_some("Redis to answer", Duration::from_secs(20), answers).await;
    }

    /// Stops it where it stands.
    pub(crate) fn pause(&self) -> Stopped<'_> {
        let process = self.process.as_ref().unwrap();
        process.signal("STOP");
        Stopped(process)
    }

    /// Output of `redis-cli` for a command.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        ask(self.port, command)
    }
}

/// Output of `redis-cli` for a command to the server on `port`.
pub(crate) fn ask(port: u16, command: &[&str]) -> String {
    let port = port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(command).output();
    let output = output.expect(MISSING);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
