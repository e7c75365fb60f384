//! Clients and libraries of the Pusher protocol that others wrote, in Node and in Python.

use super::Gate;
use super::pusher::{KEY, SECRET};
use serde_json::Value;
use std::process::Command;

/// The clients of npm.
pub const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pypi/bin/python3");

/// Runs a program to its end; what it prints as JSON.
async fn run(mut command: Command, folder: &str) -> Value {
    assert!(
        std::path::Path::new(folder).exists(),
        "the clients of others are missing: run scripts/setup test (or: make test)"
    );
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?} {errors}"))
}

/// Runs a script in Node, which has the ports of the gate, and signs as a site does; what it
/// prints as JSON.
pub async fn node(gate: &Gate, script: &str) -> Value {
    let script = format!(
        "const crypto = require('crypto');
         const port = {}, internal = {};
         const sign = text => '{KEY}:' +
             crypto.createHmac('sha256', '{SECRET}').update(text).digest('hex');
         const options = transports => ({{
             cluster: '', wsHost: '127.0.0.1', wsPort: port, httpHost: '127.0.0.1', httpPort: port,
             forceTLS: false, enableStats: false, enabledTransports: transports,
             channelAuthorization: {{ customHandler: ({{ socketId, channelName }}, done) => {{
                 if (!channelName.startsWith('presence-'))
                     return done(null, {{ auth: sign(`${{socketId}}:${{channelName}}`) }});
                 const channel_data = JSON.stringify({{ user_id: 7, user_info: {{ name: 'x' }} }});
                 done(null, {{ auth: sign(`${{socketId}}:${{channelName}}:${{channel_data}}`), channel_data }});
             }} }},
             userAuthentication: {{ customHandler: ({{ socketId }}, done) => {{
                 const user_data = JSON.stringify({{ id: '7' }});
                 done(null, {{ auth: sign(`${{socketId}}::user::${{user_data}}`), user_data }});
             }} }},
         }});
         const print = value => {{ console.log(JSON.stringify(value)); process.exit(); }};
         {script}",
        gate.addr().port(),
        gate.internal().port(),
    );
    let mut command = Command::new("timeout");
    command.args(["60", "node", "-e", &script]).env("NODE_PATH", MODULES);
    run(command, concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules/pusher-js")).await
}

/// The same in Python.
pub async fn python(gate: &Gate, script: &str) -> Value {
    let script = format!(
        "import json, sys, threading, time\nport = {}\ninternal = {}\nkey = '{KEY}'\nsecret = '{SECRET}'\n{script}",
        gate.addr().port(),
        gate.internal().port(),
    );
    let mut command = Command::new("timeout");
    command.args(["60", PYTHON, "-c", &script]);
    run(command, PYTHON).await
}
