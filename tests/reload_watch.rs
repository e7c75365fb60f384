//! `reload.watch`: the config file is read when it is whole, however it gets there.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::time::Duration;
use support::{Gate, TempDir, eventually};
use tokio::time::{Instant, interval};

const WATCH: &str = "[reload]\nwatch = true\n";

fn with_timeout(seconds: u32) -> String {
    format!("{WATCH}[hold]\ntimeout = \"{seconds}s\"\n")
}

async fn generation(gate: &Gate) -> u64 {
    gate.status().await["generation"].as_u64().unwrap()
}

async fn wait_for_generation(gate: &Gate, wanted: u64) {
    eventually("another generation", async || generation(gate).await == wanted).await;
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_taken() {
    let gate = Gate::start_alone(&with_timeout(25)).await;
    // It watches by the time that it has found a change.
    gate.write_config(&with_timeout(24));
    wait_for_generation(&gate, 2).await;
    let mut file = fs::File::create(gate.config_file()).unwrap();
    // Its first half is a config of its own.
    file.write_all(WATCH.as_bytes()).unwrap();
    file.flush().unwrap();
    let began = Instant::now();
    let mut pace = interval(Duration::from_millis(50));
    while began.elapsed() < Duration::from_millis(3000) {
        pace.tick().await;
        assert_eq!(generation(&gate).await, 2, "half a file is in force");
    }
    file.write_all(b"[hold]\ntimeout = \"7s\"\n").unwrap();
    drop(file);
    wait_for_generation(&gate, 3).await;
    let config = gate.hook("GET", "/config", &[], "").await.text();
    assert!(config.contains("timeout = \"7s\""), "{config}");
}

#[tokio::test]
async fn a_bad_file_is_tried_again_when_it_changes() {
    let gate = Gate::start_alone(&with_timeout(25)).await;
    fs::write(gate.config_file(), "[hold]\ntimeout = ").unwrap();
    gate.wait_for_log("config refused").await;
    fs::write(gate.config_file(), with_timeout(9)).unwrap();
    wait_for_generation(&gate, 2).await;
    // And a file that replaces it, more than once.
    for (seconds, expected) in [(8, 3), (7, 4)] {
        gate.write_config(&with_timeout(seconds));
        wait_for_generation(&gate, expected).await;
    }
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_followed() {
    let folder = TempDir::new("releases");
    let at = |name: &str| folder.path().join(name);
    for (release, seconds) in [("one", 11), ("two", 12)] {
        fs::create_dir(at(release)).unwrap();
        fs::write(at(release).join("pollgate.toml"), with_timeout(seconds)).unwrap();
    }
    std::os::unix::fs::symlink("one", at("current")).unwrap();
    // The gate's own file is a link into the current release.
    let plan = Gate::with(WATCH).alone();
    let own = plan.folder().join("pollgate.toml");
    let gate = plan.start().await;
    fs::remove_file(&own).unwrap();
    std::os::unix::fs::symlink(at("current").join("pollgate.toml"), &own).unwrap();
    wait_for_generation(&gate, 2).await;
    std::os::unix::fs::symlink("two", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    wait_for_generation(&gate, 3).await;
    fs::write(at("two").join("pollgate.toml"), with_timeout(13)).unwrap();
    wait_for_generation(&gate, 4).await;
}
