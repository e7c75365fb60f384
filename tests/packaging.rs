//! The files in `packaging/` fit the binary: a unit file that no start would accept is of no use.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::net::UnixDatagram;

use support::{Gate, TempDir, eventually, eventually_some, pollgate};

const UNIT: &str = include_str!("../packaging/pollgate.service");
const DOCKERFILE: &str = include_str!("../Dockerfile");

/// The values of a setting of the unit.
fn unit(key: &str) -> Vec<&'static str> {
    let setting = |line: &'static str| line.strip_prefix(key)?.strip_prefix('=');
    UNIT.lines().filter_map(setting).collect()
}

/// The shipped config with its effective values, unchanged.
async fn shipped() -> toml_edit::DocumentMut {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/pollgate.toml");
    let checked = pollgate(&["check", "--config", file]).await;
    // It may warn: the file limit of this test run is not the unit's.
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    checked.stdout.parse().unwrap()
}

#[tokio::test]
async fn the_binary_knows_the_commands_that_are_run() {
    let commands = [unit("ExecStart"), unit("ExecReload")].concat();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("/usr/bin/pollgate"));
        let words: Vec<&str> = words.collect();
        let help = pollgate(&[words[0], "--help"]).await;
        assert_eq!(help.code, 0, "{command}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.stdout.contains(flag), "{command}: {}", help.stdout);
        }
    }
    for command in ["run", "status"] {
        assert!(DOCKERFILE.contains(&format!("\"{command}\"]")), "{command}");
        assert_eq!(pollgate(&[command, "--help"]).await.code, 0);
    }
}

#[tokio::test]
async fn there_is_time_for_a_drain_and_room_for_every_poll() {
    let config = shipped().await;
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let drain = seconds(config["drain"]["timeout"].as_str().unwrap());
    assert!(seconds(unit("TimeoutStopSec")[0]) > drain);
    let held = config["hold"]["max"].as_integer().unwrap();
    assert!(unit("LimitNOFILE")[0].parse::<i64>().unwrap() > held);
}

#[tokio::test]
async fn the_service_manager_is_told_when_the_gate_is_ready_and_when_it_ends() {
    assert_eq!(unit("Type"), ["notify"]);
    let manager = Manager::new();
    let gate = Gate::with("").alone().env("NOTIFY_SOCKET", &manager.path()).start().await;
    manager.hears("READY=1").await;
    // It is true: who connects now is served.
    assert_eq!(gate.get("/comet/news?timeout=0").await.status, 200);
    gate.signal("TERM");
    manager.hears("STOPPING=1").await;
    assert_eq!(gate.wait_for_exit().await, 0);
}

/// The service manager, which receives the gate's notifications.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let folder = TempDir::new("notify");
        let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Manager { folder, socket }
    }

    fn path(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    /// The next word, whole.
    async fn next(&self, what: &str) -> String {
        let look = async || {
            let mut room = [0; 256];
            let length = self.socket.recv(&mut room).ok()?;
            Some(String::from_utf8_lossy(&room[..length]).trim().to_owned())
        };
        eventually_some(what, support::BOUND, look).await
    }

    async fn hears(&self, what: &str) {
        assert_eq!(self.next(what).await, what);
    }
}

#[tokio::test]
async fn the_service_manager_is_told_of_reloads_good_and_bad() {
    let manager = Manager::new();
    let gate = Gate::with("").alone().env("NOTIFY_SOCKET", &manager.path()).start().await;
    manager.hears("READY=1").await;
    for (config, status) in [("[hold]\ntimeout = \"3s\"", 200), ("[hold]\ntimeout = 3", 422)] {
        gate.write_config(config);
        assert_eq!(gate.reload().await.status, status);
        let told = manager.next("RELOADING=1").await;
        let (word, time) = told.split_once('\n').unwrap();
        assert_eq!(word, "RELOADING=1");
        let time = time.strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
        manager.hears("READY=1").await;
    }
    gate.signal("TERM");
    manager.hears("STOPPING=1").await;
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn a_signal_has_the_gate_upgraded_and_its_service_goes_on() {
    assert_eq!(unit("NotifyAccess"), ["main"]);
    let manager = Manager::new();
    let socket = manager.folder.path().join("upgrade");
    let config = format!("[upgrade]\nsocket = \"{}\"\n", socket.display());
    let plan = Gate::with(&config).alone().env("NOTIFY_SOCKET", &manager.path());
    let gate = plan.start().await;
    manager.hears("READY=1").await;
    let published = gate.publish("live", "hello").await;

    gate.signal("USR2");
    // The two processes speak for themselves, in any order.
    let mut told = [manager.next("MAINPID=").await, manager.next("READY=1").await];
    told.sort();
    let [main, ready] = told;
    assert_eq!(ready, "READY=1");
    let pid: u32 = main.strip_prefix("MAINPID=").unwrap().parse().unwrap();
    assert_ne!(pid, gate.pid());
    eventually("the end of the old process", async || gate.exit_code().is_some()).await;
    assert_eq!(gate.exit_code(), Some(0));
    // It did not announce a stop, as the service continues at the same place.
    assert_eq!(gate.status().await["pid"], pid);
    let kept = gate.channel("live").await;
    assert_eq!(kept["newest"]["id"], published["id"]);

    // And so on, from one to the next.
    kill("USR2", pid);
    let mut told = [manager.next("MAINPID=").await, manager.next("READY=1").await];
    told.sort();
    let next: u32 = told[0].strip_prefix("MAINPID=").unwrap().parse().unwrap();
    eventually("the third process", async || gate.status().await["pid"] == next).await;
    kill("TERM", next);
    manager.hears("STOPPING=1").await;
    eventually("the end of it", async || !std::path::Path::new(&format!("/proc/{next}")).exists())
        .await;
}

#[tokio::test]
async fn a_process_that_cannot_take_over_leaves_the_gate_as_it_is() {
    let manager = Manager::new();
    let gate = Gate::with("").alone().env("NOTIFY_SOCKET", &manager.path()).start().await;
    manager.hears("READY=1").await;
    gate.write_config("[hold]\ntimeout = 3");
    gate.signal("USR2");
    gate.wait_for_log("the process that was started has ended").await;
    assert_eq!(gate.status().await["pid"], gate.pid());
    gate.signal("TERM");
    manager.hears("STOPPING=1").await;
    assert_eq!(gate.wait_for_exit().await, 0);
}

/// All files below a folder, from the root of the tree.
fn files_below(folder: &str, into: &mut Vec<String>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&path, into),
            false => into.push(path),
        }
    }
}

#[test]
fn the_package_has_every_page_where_the_others_link_to_it() {
    let manifest = include_str!("../Cargo.toml").parse::<toml_edit::DocumentMut>().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let texts = |asset: &toml_edit::Value| {
        let text = |at| asset.as_array().unwrap().get(at).unwrap().as_str().unwrap().to_owned();
        (text(0), text(1))
    };
    let assets: Vec<_> = assets.iter().map(texts).collect();
    let mut pages = Vec::new();
    files_below("docs", &mut pages);
    assert!(pages.len() > 20, "{pages:?}");
    for page in pages {
        let (folder, name) = page.rsplit_once('/').unwrap();
        let kind = name.rsplit_once('.').unwrap().1;
        let asset = (format!("{folder}/*.{kind}"), format!("usr/share/doc/pollgate/{folder}/"));
        assert!(assets.contains(&asset), "{page} is not in the package");
    }
}

/// Sends a signal to a process.
fn kill(signal: &str, pid: u32) {
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

#[test]
fn what_the_package_and_the_image_take_is_there() {
    let manifest = include_str!("../Cargo.toml").parse::<toml_edit::DocumentMut>().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for asset in deb["assets"].as_array().unwrap() {
        let from = asset.as_array().unwrap().get(0).unwrap().as_str().unwrap();
        let folder = from.split('*').next().unwrap_or(from);
        let built = from.starts_with("target/");
        assert!(built || root.join(folder).exists(), "{from}");
    }
    let ignored = include_str!("../.dockerignore");
    for line in DOCKERFILE.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if line.starts_with("--from") {
            continue;
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        words.pop();
        for from in words {
            assert!(root.join(from).exists(), "{from}");
            assert!(ignored.lines().any(|kept| kept.strip_prefix('!') == Some(from)), "{from}");
        }
    }
}
