//! Faults of the gate and the site.

use super::support::gate::Plan;
use super::support::tls::Identity;
use super::support::{Addr, Gate, PlainSite, TempDir, eventually};
use super::{World, pause};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Causes faults of the gate and the site.
pub(crate) struct Trouble {
    pub(crate) world: Arc<World>,
    rng: Rng,
    gate: Gate,
    tls: bool,
    site: Site,
    folder: TempDir,
    /// The faults so far, each with the life of the gate.
    made: Vec<(&'static str, u64)>,
}

enum Site {
    Up(#[expect(dead_code, reason = "up as long as it is here")] PlainSite),
    /// It takes connections and does nothing with them.
    Frozen(#[expect(dead_code, reason = "frozen as long as it is here")] UnixListener),
    Down,
}

impl Trouble {
    pub(crate) async fn begin(rng: Rng, tls: bool) -> Trouble {
        let folder = TempDir::new("chaos");
        let listen = own_address();
        let internal = Addr::Unix(folder.path().join("internal"));
        let gate = plan(&folder, &listen, &internal, tls).start().await;
        let world = World {
            listen: gate.addr().clone(),
            internal,
            file: folder.path().join("file.txt"),
            life: Default::default(),
            over: Default::default(),
            ends: Default::default(),
            ledger: Default::default(),
        };
        let site = Site::Up(PlainSite::start_on(&folder.path().join("site")));
        let world = Arc::new(world);
        let made = Vec::new();
        Trouble { world, rng, gate, tls, site, folder, made }
    }

    /// Makes some trouble.
    pub(crate) async fn make(&mut self) {
        pause(&mut self.rng, 50..700).await;
        let what = match self.rng.u8(..16) {
            0..4 => "changes of the site",
            4..7 => "reloads",
            7..10 => "drains",
            10..12 => "upgrades",
            12 => "stops",
            13 => "drains cut short",
            _ => "kills",
        };
        self.made.push((what, self.world.life()));
        match what {
            "changes of the site" => self.change_site(),
            "reloads" => {
                let config = config(&self.folder, &mut self.rng);
                self.gate.reconfigure(&config).await;
            }
            "drains" => self.drain().await,
            "upgrades" => self.upgrade().await,
            "stops" => {
                self.gate.signal("STOP");
                pause(&mut self.rng, 0..1500).await;
                self.gate.signal("CONT");
            }
            "drains cut short" => {
                self.gate.signal("TERM");
                pause(&mut self.rng, 0..400).await;
                self.kill().await;
            }
            _ => self.kill().await,
        }
    }

    /// The faults so far as text.
    pub(crate) fn story(&self) -> String {
        let over = if self.tls { "over TLS" } else { "in plain" };
        let mut counts = BTreeMap::<&str, usize>::new();
        for (what, _) in &self.made {
            *counts.entry(what).or_default() += 1;
        }
        let counts = counts.iter().map(|(what, count)| format!(", {count} {what}"));
        format!("{over}{}", counts.collect::<String>())
    }

    fn site_path(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    fn change_site(&mut self) {
        self.site = Site::Down;
        let path = self.site_path();
        // Not there at first.
        let _ = std::fs::remove_file(&path);
        self.site = match self.rng.u8(..4) {
            0 => Site::Down,
            1 => Site::Frozen(UnixListener::bind(&path).unwrap()),
            _ => Site::Up(PlainSite::start_on(&path)),
        };
    }

    async fn drain(&mut self) {
        self.gate.signal("TERM");
        assert_eq!(self.gate.wait_for_exit().await, 0, "{}", self.gate.log());
        self.live_again().await;
    }

    async fn kill(&mut self) {
        self.gate.kill();
        self.gate.wait_for_exit().await;
        self.world.ledger.lock().killed.insert(self.world.life());
        self.live_again().await;
    }

    async fn live_again(&mut self) {
        self.world.life.fetch_add(1, Ordering::SeqCst);
        self.gate = self.plan().start().await;
    }

    async fn upgrade(&mut self) {
        self.world.ledger.lock().shared.insert(self.world.life() + 1);
        self.world.life.fetch_add(1, Ordering::SeqCst);
        let new = self.plan().upgrade().start().await;
        let old = std::mem::replace(&mut self.gate, new);
        assert_eq!(old.wait_for_exit().await, 0, "{}", old.log());
        self.world.life.fetch_add(1, Ordering::SeqCst);
    }

    fn plan(&self) -> Plan {
        plan(&self.folder, &self.world.listen, &self.world.internal, self.tls)
    }

    /// In the end the site's pages come again.
    pub(crate) async fn site_is_back(&mut self) {
        let _ = std::fs::remove_file(self.site_path());
        self.site = Site::Up(PlainSite::start_on(&self.site_path()));
        eventually("a page", async || self.gate.get("/page").await.status == 200).await;
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}: {:?}", self.story(), self.made);
        }
    }
}

fn plan(folder: &TempDir, listen: &Addr, internal: &Addr, tls: bool) -> Plan {
    let listen = listen.to_string();
    let internal = internal.to_string();
    let config = config(folder, &mut Rng::with_seed(0));
    let plan = Gate::with(&config).upstream(&Addr::Unix(folder.path().join("site")));
    let plan = plan.listen([&listen]).internal([&internal]);
    if tls { plan.tls(Identity::any()) } else { plan }
}

/// A configuration in which some values are drawn by lot.
fn config(folder: &TempDir, rng: &mut Rng) -> String {
    let hold = rng.u64(500..3000);
    let spread = rng.u64(..300);
    let every = rng.u64(100..1000);
    let kept = rng.u64(5..30);
    format!(
        r#"
        [hold]
        timeout = "{hold}ms"
        [upstream]
        read_timeout = "1s"
        [drain]
        spread = "{spread}ms"
        [history]
        messages = 100000
        bytes = "64MiB"
        age = "1h"
        snapshot = "{}"
        snapshot_every = "{every}ms"
        [upgrade]
        socket = "{}"
        [[channel]]
        match = "brief"
        messages = {kept}
        [[poll]]
        path = "/comet/*"
        dialect = "native"
        [[poll]]
        path = "/changes"
        dialect = "novcomet"
        [[poll]]
        path = "/stamp/*"
        dialect = "timestamp"
        channel = "{{path.1}}"
        first = "oldest"
        [[capture]]
        path = "/send"
        channel = "captured"
        data = "{{form.msg}}"
        [[watch]]
        path = "{}"
        channel = "file"
        content = true
        "#,
        folder.path().join("history").display(),
        folder.path().join("upgrade").display(),
        folder.path().join("file.txt").display(),
    )
}

/// An address at which the gate can be started again and again. No other program uses this IP
/// address, and no connection goes out from it, so the port stays free in between.
fn own_address() -> Addr {
    let [.., a, b, c] = std::process::id().to_be_bytes();
    let free = TcpListener::bind((Ipv4Addr::new(127, 100 ^ a, b, c), 0)).unwrap();
    Addr::Tcp(free.local_addr().unwrap())
}
