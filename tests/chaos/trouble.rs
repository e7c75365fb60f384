//! What happens to the gate and the site.

use super::support::{Addr, Gate, PlainSite, TempDir, eventually};
use super::{World, pause};
use fastrand::Rng;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What happens to the gate and the site.
pub(crate) struct Trouble {
    pub(crate) world: Arc<World>,
    rng: Rng,
    gate: Gate,
    site: Site,
    folder: TempDir,
}

enum Site {
    Up(#[expect(dead_code, reason = "up as long as it is here")] PlainSite),
    /// It takes connections and does nothing with them.
    Frozen(#[expect(dead_code, reason = "frozen as long as it is here")] UnixListener),
    Down,
}

impl Trouble {
    pub(crate) async fn begin(rng: Rng) -> Trouble {
        let folder = TempDir::new("chaos");
        let file = |name: &str| Addr::Unix(folder.path().join(name));
        let (listen, internal) = (own_address(), file("internal"));
        let gate = start(&folder, &listen, &internal).await;
        let world = World::new(gate.addr().clone(), internal);
        Trouble { world: Arc::new(world), rng, gate, site: Site::Down, folder }
    }

    /// Makes some trouble.
    pub(crate) async fn make(&mut self) {
        pause(&mut self.rng, 50..700).await;
        match self.rng.u8(..12) {
            0..4 => self.change_site(),
            4..7 => {
                let config = config(&self.folder, &mut self.rng);
                self.gate.reconfigure(&config).await;
            }
            7..10 => self.drain().await,
            10 => {
                self.gate.signal("TERM");
                pause(&mut self.rng, 0..400).await;
                self.kill().await;
            }
            _ => self.kill().await,
        }
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
        self.gate = start(&self.folder, &self.world.listen, &self.world.internal).await;
    }

    /// In the end the site's pages come again.
    pub(crate) async fn site_is_back(&mut self) {
        let _ = std::fs::remove_file(self.site_path());
        self.site = Site::Up(PlainSite::start_on(&self.site_path()));
        eventually("a page", async || self.gate.get("/page").await.status == 200).await;
    }
}

async fn start(folder: &TempDir, listen: &Addr, internal: &Addr) -> Gate {
    let (listen, internal) = (listen.to_string(), internal.to_string());
    let config = config(folder, &mut Rng::with_seed(0));
    let gate = Gate::with(&config).upstream(&Addr::Unix(folder.path().join("site")));
    gate.listen([&listen]).internal([&internal]).start().await
}

/// A configuration in which some values are drawn by lot.
fn config(folder: &TempDir, rng: &mut Rng) -> String {
    let (hold, spread, every, kept) =
        (rng.u64(500..3000), rng.u64(..300), rng.u64(100..1000), rng.u64(5..30));
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
        [[channel]]
        match = "brief"
        messages = {kept}
        "#,
        folder.path().join("history").display()
    )
}

/// An address at which the gate can be started again and again. No other program uses this IP
/// address, and no connection goes out from it, so nobody takes the port in between.
fn own_address() -> Addr {
    let [.., a, b, c] = std::process::id().to_be_bytes();
    let free = TcpListener::bind((Ipv4Addr::new(127, 100 ^ a, b, c), 0)).unwrap();
    Addr::Tcp(free.local_addr().unwrap())
}
