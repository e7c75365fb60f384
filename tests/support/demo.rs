//! The gate with its own chat behind it, `pollgate demo`.

use super::{Addr, BOUND, Process};
use std::process::Command;

/// A running demo with its public and internal address.
pub async fn start() -> (Process, Addr, Addr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollgate"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"]);
    let process = Process::spawn("pollgate demo", &mut command, "");
    let find = |stdout: &str, _: &str| {
        let of = |word| stdout.lines().find_map(|line| line.strip_prefix(word));
        let both = (Addr::parse(of("gate ")?.trim())?, Addr::parse(of("internal ")?.trim())?);
        stdout.contains("Open http://").then_some(both)
    };
    let (gate, internal) = process.wait_for_output("addresses", BOUND, find).await;
    (process, gate, internal)
}
