//! A master, its replica and three sentinels that watch them.

use super::redis::{MISSING, Redis, ask, free_port};
use crate::support::{Process, TempDir, eventually_some};
use std::process::Command;
use std::time::Duration;

/// The sentinels' name of the master.
pub(crate) const MASTER: &str = "mymaster";
/// Bound on waiting for the servers.
const BOUND: Duration = Duration::from_secs(30);

/// See the [module](self). Dropping it ends all of it.
pub(crate) struct Set {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    pub(crate) sentinels: Vec<Sentinel>,
}

/// One sentinel.
pub(crate) struct Sentinel {
    port: u16,
    _folder: TempDir,
    process: Option<Process>,
}

impl Sentinel {
    /// One that watches the master at `host` and `port`, with further lines of its own.
    pub(crate) async fn start(host: &str, port: u16, quorum: usize, lines: &str) -> Sentinel {
        let folder = TempDir::new("sentinel");
        let own = free_port();
        let config = format!(
            "port {own}\nbind 127.0.0.1\ndir {}\n{lines}\
             sentinel monitor {MASTER} {host} {port} {quorum}\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 4000\n",
            folder.path().display()
        );
        let file = folder.write("sentinel.conf", config);
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel");
        let process = Process::spawn("redis-server --sentinel", &mut command, MISSING);
        let sentinel = Sentinel { port: own, _folder: folder, process: Some(process) };
        let answers = async || {
            let answer = sentinel.ask(&["PING"]);
            (answer == "PONG" || answer.contains("NOAUTH")).then_some(())
        };
        eventually_some("a sentinel to answer", BOUND, answers).await;
        sentinel
    }

    pub(crate) fn ask(&self, command: &[&str]) -> String {
        ask(self.port, command)
    }

    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// The port of the master, according to this sentinel.
    pub(crate) fn master(&self) -> String {
        let answer = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        answer.lines().nth(1).unwrap_or_default().to_owned()
    }
}

impl Set {
    /// A set with a replica in sync and sentinels that know each other.
    pub(crate) async fn start() -> Set {
        let at_once = ["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "1mb"];
        let master = Redis::start_with(&at_once).await;
        let port = master.port().to_string();
        let replica = [&["--replicaof", "127.0.0.1", port.as_str()], at_once.as_slice()].concat();
        let replica = Redis::start_with(&replica).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Sentinel::start("127.0.0.1", master.port(), 2, "").await);
        }
        let set = Set { master, replica, sentinels };
        let stands = async || set.stands().then_some(());
        eventually_some("sentinels that know each other", BOUND, stands).await;
        set
    }

    fn stands(&self) -> bool {
        let all = |sentinel: &Sentinel| {
            let known = sentinel.ask(&["SENTINEL", "MASTER", MASTER]);
            let mut known = known.lines();
            let mut number = |key| {
                known.by_ref().find(|line| *line == key)?;
                known.next()?.parse::<u32>().ok()
            };
            number("num-slaves") == Some(1) && number("num-other-sentinels") == Some(2)
        };
        self.replica.ask(&["INFO", "replication"]).contains("master_link_status:up")
            && self.sentinels.iter().all(all)
    }

    pub(crate) fn url(&self) -> String {
        let places = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port));
        format!("redis-sentinel://{}/{MASTER}", places.collect::<Vec<_>>().join(","))
    }

    /// Waits until the sentinels have made the replica the master.
    pub(crate) async fn fail_over(&self) {
        let port = self.replica.port().to_string();
        let done = async || self.sentinels.iter().all(|one| one.master() == port).then_some(());
        eventually_some("a failover", BOUND, done).await;
    }
}
