//! Real PHP sites, served by PHP's own server from a private copy of a folder
//! of `tests/sites`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use super::http::{Client, Response};
use super::temp::copy_folder;
use super::{Addr, BOUND, Process, TempDir};

const MISSING: &str =
    "PHP is missing: apt-get install php-cli php-curl php-sqlite3 (or: make test)";

/// A site with its own address, which it keeps over stops and starts. That address is known before
/// the start, so that a gate can be put before the site first and the site then be started with the
/// address of the gate's hook.
///
/// ```ignore
/// let mut site = PhpSite::of("sendmsg");
/// let gate = Gate::start_before(site.addr(), RULES).await;
/// site.env("POLLGATE_HOOK", &gate.internal().url("")).start().await;
/// ```
#[derive(Debug)]
pub struct PhpSite {
    folder: TempDir,
    root: PathBuf,
    addr: Addr,
    workers: u32,
    env: Vec<(String, String)>,
    process: Option<Process>,
}

impl PhpSite {
    /// A running site with one worker.
    pub async fn start_of(name: &str) -> PhpSite {
        let mut site = PhpSite::of(name);
        site.start().await;
        site
    }

    /// A copy of `tests/sites/{name}`, not yet running.
    pub fn of(name: &str) -> PhpSite {
        let folder = TempDir::new(name);
        let root = folder.path().join("site");
        let sites = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sites");
        copy_folder(&sites.join(name), &root);
        let addr = Addr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        PhpSite { folder, root, addr, workers: 1, env: Vec::new(), process: None }
    }

    /// Number of requests it can work on at a time.
    pub fn workers(&mut self, count: u32) -> &mut PhpSite {
        self.workers = count;
        self
    }

    /// Sets a variable of its environment, from the next start on.
    pub fn env(&mut self, key: &str, value: impl AsRef<str>) -> &mut PhpSite {
        self.env.push((key.into(), value.as_ref().into()));
        self
    }

    /// Starts it and waits until it listens.
    pub async fn start(&mut self) {
        assert!(self.process.is_none(), "the site runs already");
        let port = self.addr.port();
        let mut php = Command::new("php");
        php.args(["-d", "post_max_size=64M", "-d", "upload_max_filesize=64M"]);
        php.args(["-d", "display_errors=stderr", "-d", "error_reporting=-1"]);
        php.args(["-S", &self.addr.to_string(), "-t"]).arg(&self.root);
        php.env_remove("PHP_CLI_SERVER_WORKERS");
        if self.workers > 1 {
            php.env("PHP_CLI_SERVER_WORKERS", self.workers.to_string());
        }
        php.envs(self.env.iter().cloned());
        let process = Process::spawn("php", &mut php, MISSING);
        // Its own word that it listens, not a connection, which another
        // program on the same port would take as well.
        let started = format!(":{port}) started");
        let find = |_: &str, log: &str| log.contains(&started).then_some(());
        process.wait_for_output("started server", BOUND, find).await;
        self.process = Some(process);
    }

    /// Ends it at once, with all its workers.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends it and starts it again where it was.
    pub async fn restart_on_same_port(&mut self) {
        self.stop();
        self.start().await;
    }

    /// Connections to it that are open, without those that wait to be closed for good.
    pub fn connections(&self) -> usize {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let remote = format!("0100007F:{:04X}", self.addr.port());
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        fields.filter(|fields| fields.get(2) == Some(&&*remote) && fields[3] == "01").count()
    }

    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Its document root, a private copy.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// GET straight from the site, past any gate.
    pub async fn get(&self, path: &str) -> Response {
        Client::connect(&self.addr).await.get(path).await
    }

    /// Output of PHP: requests, warnings, errors.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }
}

/// A port that nothing listens on, and none that the system gives to outgoing
/// connections: those of a test with thousands of clients would take it again
/// before PHP does.
pub fn free_port() -> u16 {
    static FIRST: OnceLock<u16> = OnceLock::new();
    static STEP: AtomicU16 = AtomicU16::new(0);
    const LOWEST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    // Test programs that run at the same time start far from each other.
    let first = *FIRST.get_or_init(|| (std::process::id() * 101 % u32::from(COUNT)) as u16);
    for _ in 0..COUNT {
        let step = STEP.fetch_add(1, Ordering::Relaxed);
        let port = LOWEST + ((u32::from(first) + u32::from(step)) % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {LOWEST} and {}", LOWEST + COUNT);
}
