//! Processes of a contestant: started with a folder of their own, ended when the measure is.

use super::{Settings, Wire};
use crate::gauge::Gauge;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A contestant under setup: its folder and the processes started there.
pub(crate) struct Place {
    pub(crate) settings: Settings,
    folder: PathBuf,
    /// Processes that are measured.
    children: Vec<Child>,
    /// Processes that only help it, such as the site behind it.
    helpers: Vec<Child>,
}

impl Place {
    pub(super) fn new(name: &str, settings: &Settings) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pollgate-load-{}-{number}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let children = Vec::new();
        let helpers = Vec::new();
        Ok(Self { settings: settings.clone(), folder, children, helpers })
    }

    /// Its folder, as text for configs.
    pub(super) fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    pub(super) fn write(&self, name: &str, content: &str) -> io::Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, content)?;
        Ok(path.display().to_string())
    }

    /// Makes a folder that any user may write to.
    pub(super) fn shared_folder(&self, name: &str) -> io::Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        Ok(path.display().to_string())
    }

    /// Starts a process that is measured.
    pub(super) fn start(&mut self, program: &str, arguments: &[&str]) -> io::Result<()> {
        let child = self.spawn(program, arguments)?;
        self.children.push(child);
        Ok(())
    }

    /// Starts this program's own site, see [`crate::floor::Way::Site`], and waits for it.
    pub(super) fn start_site(&mut self) -> io::Result<SocketAddr> {
        let address = free_address()?;
        let own = std::env::current_exe()?.display().to_string();
        let child = self.spawn(&own, &["--site", &address.to_string()])?;
        self.helpers.push(child);
        self.wait_for(address)?;
        Ok(address)
    }

    fn spawn(&self, program: &str, arguments: &[&str]) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::other(format!("{program}: {error}")))
    }

    /// Waits until `address` is listened on.
    pub(super) fn wait_for(&mut self, address: SocketAddr) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(15);
        while TcpStream::connect(address).is_err() {
            let ended = self.children.iter_mut().chain(&mut self.helpers);
            let ended = ended.filter_map(|child| child.try_wait().ok().flatten()).next();
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let why = format!("does not listen on {address}; it said: {log}");
                return Err(io::Error::other(why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// It is set up.
    pub(super) fn run(self, wire: impl Wire + 'static) -> Running {
        let gauge = Gauge::new(self.children.iter().map(Child::id).collect());
        Running { gauge, wire: Arc::new(wire), _place: self }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let children: Vec<u32> = self.children.iter().map(Child::id).collect();
        let family = Gauge::new(children.clone()).processes();
        // A master ends its workers itself, if it is asked; one without workers has nothing to end.
        if family.len() > children.len() {
            signal("-TERM", &children);
            let end = Instant::now() + Duration::from_secs(3);
            while Instant::now() < end && family.iter().any(|id| is_alive(*id)) {
                self.children.iter_mut().for_each(|child| drop(child.try_wait()));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for child in self.children.iter_mut().chain(&mut self.helpers) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let left: Vec<u32> = family.into_iter().filter(|id| is_alive(*id)).collect();
        signal("-KILL", &left);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let ids = processes.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(name).args(ids).stderr(Stdio::null()).status();
}

fn is_alive(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

/// A contestant that answers. Dropping it ends it.
pub(crate) struct Running {
    pub(crate) gauge: Gauge,
    pub(crate) wire: Arc<dyn Wire>,
    _place: Place,
}

/// An address without a listener. The clients come from other addresses, so they cannot take it.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
