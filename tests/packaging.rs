//! What is in `packaging/` fits the binary: a unit file that no start would accept is of no use.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::net::UnixDatagram;

use support::{Gate, TempDir, eventually_some, pollgate};

const UNIT: &str = include_str!("../packaging/pollgate.service");
const DOCKERFILE: &str = include_str!("../Dockerfile");

/// The values of a setting of the unit.
fn unit(key: &str) -> Vec<&'static str> {
    let setting = |line: &'static str| line.strip_prefix(key)?.strip_prefix('=');
    UNIT.lines().filter_map(setting).collect()
}

/// The config as it takes effect where nobody has changed it.
async fn shipped() -> toml_edit::DocumentMut {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/pollgate.toml");
    let checked = pollgate(&["check", "--config", file]).await;
    // It may warn: the file limit of whoever runs this is not the unit's.
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
    let folder = TempDir::new("notify");
    let path = folder.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let told = async |what: &str| {
        let look = async || {
            let mut room = [0; 256];
            let length = socket.recv(&mut room).ok()?;
            Some(String::from_utf8_lossy(&room[..length]).into_owned())
        };
        assert_eq!(eventually_some(what, support::BOUND, look).await.trim(), what);
    };
    let plan = Gate::with("").alone().env("NOTIFY_SOCKET", path.to_str().unwrap());
    let gate = plan.start().await;
    told("READY=1").await;
    // It is true: who connects now is served.
    assert_eq!(gate.get("/comet/news?timeout=0").await.status, 200);
    gate.signal("TERM");
    told("STOPPING=1").await;
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[test]
fn what_the_package_and_the_image_take_is_there() {
    let manifest = include_str!("../Cargo.toml").parse::<toml_edit::DocumentMut>().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for asset in deb["assets"].as_array().unwrap() {
        let from = asset.as_array().unwrap().get(0).unwrap().as_str().unwrap();
        let folder = from.strip_suffix("*.md").unwrap_or(from);
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
