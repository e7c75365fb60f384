//! The command line: what its commands print and how they exit.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use support::{Addr, Client, Finished, Gate, PlainSite, TempDir, Way, eventually, pollgate};

/// Runs `pollgate` with something on its standard input.
fn pollgate_reading(input: &[u8], args: &[&str]) -> Finished {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pollgate"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Runs a command that is to succeed and to print JSON.
async fn json_of(args: &[&str]) -> Value {
    let done = pollgate(args).await;
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.stdout))
}

/// A poll's only message.
async fn newest(gate: &Gate, channel: &str) -> Value {
    let history = gate.hook("GET", &format!("/channels/{channel}/messages"), &[], "").await;
    let messages = history.json()["messages"].as_array().unwrap().clone();
    messages.last().unwrap().clone()
}

#[tokio::test]
async fn help_names_every_command() {
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let done = pollgate(args).await;
        assert_eq!(done.code, 0);
        for command in ["run", "upgrade", "demo", "check", "publish", "status", "reload", "adopt"] {
            let named = |line: &str| line.trim_start().starts_with(&format!("{command} "));
            assert!(done.stdout.lines().any(named), "{command} is missing: {}", done.stdout);
        }
    }
    for command in ["run", "upgrade", "demo", "check", "publish", "status", "reload", "adopt"] {
        let done = pollgate(&[command, "--help"]).await;
        assert_eq!(done.code, 0);
        assert!(done.stdout.contains("Usage: pollgate"), "{}", done.stdout);
    }
    let version = pollgate(&["--version"]).await;
    assert_eq!(version.stdout.trim(), format!("pollgate {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn what_nobody_understands_is_a_mistake_in_the_usage() {
    for args in [
        &["nonsense"][..],
        &["--nonsense"],
        &["run", "--listen"],
        &["publish"],
        &["check"],
        &["status", "--internal", "nowhere"],
        &["--set", "hold.timeout"],
        &["--listen", "nowhere", "--upstream", "127.0.0.1:1"],
        &["run", "--set", "hold.timeot=1s", "--upstream", "127.0.0.1:1"],
    ] {
        let done = pollgate(args).await;
        assert_eq!(done.code, 2, "{args:?}: {}", done.stderr);
        assert!(done.stdout.is_empty(), "{args:?}: {}", done.stdout);
        assert!(!done.stderr.trim().is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn check_prints_the_config_as_it_takes_effect() {
    let folder = TempDir::new("check");
    let text = "[upstream]\nservers = [\"127.0.0.1:8000\"]\n[publish]\ntoken = \"s3cret\"\n\
                [hold]\ntimeout = \"7s\"\n";
    let file = folder.write("pollgate.toml", text).display().to_string();
    let done = pollgate(&["check", "--config", &file, "--set", "hold.max=5"]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    let printed: toml_edit::DocumentMut = done.stdout.parse().unwrap();
    assert_eq!(printed["hold"]["timeout"].as_str(), Some("7s"));
    assert_eq!(printed["hold"]["max"].as_integer(), Some(5));
    assert_eq!(printed["listen"][0].as_str(), Some("127.0.0.1:8080"), "defaults too");
    assert_eq!(printed["publish"]["token"].as_str(), Some("***"));
    assert!(!done.stdout.contains("s3cret"));
}

#[tokio::test]
async fn what_check_prints_is_a_config_that_means_the_same() {
    let folder = TempDir::new("check");
    let text = "[upstream]\nservers = [\"127.0.0.1:8000\"]\n[[poll]]\npath = \"/live/*\"\n\
                dialect = \"native\"\n[[channel]]\nmatch = \"a*\"\nstamp = \"millis\"\n";
    let file = folder.write("first.toml", text).display().to_string();
    let first = pollgate(&["check", "--config", &file]).await;
    assert_eq!(first.code, 0, "{}", first.stderr);
    let file = folder.write("second.toml", &first.stdout).display().to_string();
    let second = pollgate(&["check", "--config", &file]).await;
    assert_eq!((second.code, second.stdout), (0, first.stdout), "{}", second.stderr);
}

const BAD: &str = "treads = 4\n[upstream]\nservers = [\"nowhere\"]\n[hold]\ntimeout = \"25\"\n\
                   [[poll]]\npath = \"/x\"\ndialect = \"novcome\"\n";

#[tokio::test]
async fn every_mistake_of_a_config_is_told_with_its_line() {
    let folder = TempDir::new("bad");
    let file = folder.write("pollgate.toml", BAD).display().to_string();
    for args in
        [&["check", "--config", &file][..], &["run", "--config", &file], &["--config", &file]]
    {
        let done = pollgate(args).await;
        assert_eq!(done.code, 2, "{args:?}: {}", done.stderr);
        for told in ["treads", "threads", "nowhere", "hold.timeout", "novcome"] {
            assert!(done.stderr.contains(told), "{told} is missing: {}", done.stderr);
        }
        for line in [1, 3, 5, 8] {
            let place = format!(":{line}");
            assert!(done.stderr.contains(&place), "line {line} is missing: {}", done.stderr);
        }
    }
}

#[tokio::test]
async fn a_config_that_cannot_be_read_is_a_mistake_in_the_usage() {
    let folder = TempDir::new("torn");
    let missing = folder.path().join("missing.toml").display().to_string();
    let torn = folder.write("torn.toml", "[hold\ntimeout = ").display().to_string();
    let bytes = folder.write("bytes.toml", b"\xff\xfe\x00").display().to_string();
    for file in [&missing, &torn, &bytes] {
        for command in ["check", "run"] {
            let done = pollgate(&[command, "--config", file]).await;
            assert_eq!(done.code, 2, "{}", done.stderr);
            assert!(done.stderr.contains(file.as_str()), "{}", done.stderr);
        }
    }
}

#[tokio::test]
async fn flags_go_over_the_environment_and_that_over_the_file() {
    let gate = Gate::with("[hold]\ntimeout = \"1s\"\nmax = 1\n[history]\nmessages = 1\n")
        .env("POLLGATE__HOLD__TIMEOUT", "2s")
        .env("POLLGATE__HOLD__MAX", "2")
        .args(["--set", "hold.timeout=3s"])
        .alone()
        .start()
        .await;
    let config = gate.hook("GET", "/config", &[], "").await.text();
    let config: toml_edit::DocumentMut = config.parse().unwrap();
    assert_eq!(config["hold"]["timeout"].as_str(), Some("3s"));
    assert_eq!(config["hold"]["max"].as_integer(), Some(2));
    assert_eq!(config["history"]["messages"].as_integer(), Some(1));
}

#[tokio::test]
async fn two_flags_are_enough_to_run() {
    // Port 7080 is not this test's to take, so the internal address is a third one.
    let site = PlainSite::start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollgate"));
    command.args(["--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"]);
    command.args(["--upstream", &site.addr().to_string()]);
    let process = support::Process::spawn("pollgate", &mut command, "");
    let find = |stdout: &str, _: &str| {
        let line = stdout.lines().find_map(|line| line.strip_prefix("gate "))?;
        stdout.contains("upstream").then(|| Addr::parse(line.trim()))?
    };
    let addr = process.wait_for_output("address", support::BOUND, find).await;
    let response = Client::connect(&addr).await.get("/page").await;
    assert_eq!(response.text(), "site: GET /page");
}

#[tokio::test]
async fn publish_sends_text_and_prints_what_the_hook_answers() {
    let gate = Gate::start_alone("").await;
    let internal = gate.internal().to_string();
    let mut held = gate.hold(Way::Plain, "/comet/a%2Fb%20%C3%BC").await;
    let args = ["publish", "a/b ü", "hello ü", "--internal", &internal];
    let answer = json_of(&args).await;
    assert_eq!((&answer["channel"], &answer["released"]), (&json!("a/b ü"), &json!(1)));
    let message = held.answer().await.json()["messages"][0].clone();
    assert_eq!(message["data"], "hello ü");
    assert_eq!((&message["id"], &message["stamp"]), (&answer["id"], &answer["stamp"]));
}

#[tokio::test]
async fn publish_reads_its_standard_input() {
    let gate = Gate::start_alone("").await;
    let internal = gate.internal().to_string();
    let publish = |input: &[u8], more: &[&str]| {
        let args = [&["publish", "c", "-", "--internal", &internal], more].concat();
        let done = pollgate_reading(input, &args);
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    publish(b"line\nline\n", &[]);
    assert_eq!(newest(&gate, "c").await["data"], "line\nline\n");
    publish(b"\xff\x00\x01", &[]);
    assert_eq!(newest(&gate, "c").await["base64"], "/wAB");
    publish(b"{\"a\": [1]}", &["--content-type", "application/json"]);
    assert_eq!(newest(&gate, "c").await["data"], json!({"a": [1]}));
    publish(b"", &[]);
    assert_eq!(newest(&gate, "c").await["data"], "");
    let large = "x".repeat(1_000_000);
    publish(large.as_bytes(), &[]);
    assert_eq!(newest(&gate, "c").await["data"], large);
}

#[tokio::test]
async fn publish_without_a_message_is_a_touch() {
    let gate = Gate::start_alone("").await;
    json_of(&["publish", "c", "--internal", &gate.internal().to_string()]).await;
    assert_eq!(newest(&gate, "c").await["data"], "");
}

#[tokio::test]
async fn a_publish_that_the_gate_refuses_fails_with_its_words() {
    let gate = Gate::start_alone("[history]\nmax_message = \"10B\"\n").await;
    let internal = gate.internal().to_string();
    for (args, told) in [
        (&["publish", "c", "longer than ten bytes"][..], "413"),
        (&["publish", "c", "{", "--content-type", "application/json"], "422"),
        (&["publish", "a\nb", "x"], "400"),
    ] {
        let done = pollgate(&[args, &["--internal", &internal]].concat()).await;
        assert_eq!(done.code, 1, "{args:?}");
        assert!(done.stderr.contains(told), "{args:?}: {}", done.stderr);
        assert!(done.stdout.is_empty(), "{}", done.stdout);
    }
}

#[tokio::test]
async fn the_token_comes_from_the_flag_the_environment_or_the_file() {
    let config = "[publish]\ntoken = \"s3cret-s3cret-s3cret\"\n";
    let gate = Gate::with(config).alone().token("s3cret-s3cret-s3cret").start().await;
    let internal = gate.internal().to_string();
    let without = pollgate(&["status", "--internal", &internal]).await;
    assert_eq!(without.code, 1);
    assert!(without.stderr.contains("401"), "{}", without.stderr);
    let with = ["status", "--internal", &internal, "--token", "s3cret-s3cret-s3cret"];
    assert_eq!(json_of(&with).await["held"], 0);
    let file = gate.config_file().display().to_string();
    assert_eq!(json_of(&["status", "--internal", &internal, "--config", &file]).await["held"], 0);
    let output = Command::new(env!("CARGO_BIN_EXE_pollgate"))
        .args(["status", "--internal", &internal])
        .env("POLLGATE__PUBLISH__TOKEN", "s3cret-s3cret-s3cret")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(!gate.log().contains("s3cret"), "{}", gate.log());
}

#[tokio::test]
async fn status_prints_the_figures() {
    let gate = Gate::start_alone("").await;
    let _held = gate.hold(Way::Plain, "/comet/c").await;
    gate.publish("d", "x").await;
    let status = json_of(&["status", "--internal", &gate.internal().to_string()]).await;
    assert_eq!((&status["held"], &status["publishes"]), (&json!(1), &json!(1)));
    assert_eq!(status["pid"], gate.pid());
}

#[tokio::test]
async fn where_no_gate_answers_the_commands_fail() {
    for command in [&["status"][..], &["publish", "c", "x"]] {
        let done = pollgate(&[command, &["--internal", "127.0.0.1:1"]].concat()).await;
        assert_eq!(done.code, 1);
        assert!(done.stderr.contains("127.0.0.1:1"), "{}", done.stderr);
        let done = pollgate(&[command, &["--internal", "unix:/nowhere/gate.sock"]].concat()).await;
        assert_eq!(done.code, 1, "{}", done.stderr);
    }
}

#[tokio::test]
async fn a_busy_address_is_told_and_fails() {
    let gate = Gate::start_alone("").await;
    for (busy, plan) in [
        (gate.addr(), Gate::with("").listen([&gate.addr().to_string()])),
        (gate.internal(), Gate::with("").internal([&gate.internal().to_string()])),
    ] {
        let done = plan.alone().run_to_exit().await;
        assert_eq!(done.code, 1, "{}", done.stderr);
        let told = format!("cannot listen on {busy}");
        assert!(done.stderr.contains(&told), "{}", done.stderr);
        assert!(!done.stdout.contains("http"), "it told of listening: {}", done.stdout);
    }
    assert_eq!(gate.status().await["held"], 0, "the first gate is untouched");
}

#[tokio::test]
async fn every_address_may_be_a_unix_socket() {
    let folder = TempDir::new("unix");
    let socket = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let site = PlainSite::start_on(&folder.path().join("site.sock"));
    let plan = Gate::with("").upstream(site.addr());
    let gate = plan.listen([&socket("gate.sock")]).internal([&socket("hook.sock")]).start().await;
    let mut held = gate.hold(Way::Plain, "/comet/c").await;
    let internal = gate.internal().to_string();
    let answer = json_of(&["publish", "c", "hello", "--internal", &internal]).await;
    assert_eq!(answer["released"], 1);
    assert_eq!(held.answer().await.json()["messages"][0]["data"], "hello");

    // Only this machine's own processes reach a unix socket, so they are believed.
    let headers = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")];
    let response = held.poll_with("GET", "/page", &headers).await;
    assert_eq!(response.text(), "site: GET /page");
    assert_eq!(site.last().header("x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(site.last().header("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn a_gate_may_listen_on_several_addresses() {
    let folder = TempDir::new("several");
    let unix = format!("unix:{}", folder.path().join("gate.sock").display());
    let plan = Gate::with("").alone().listen(["127.0.0.1:0", "[::1]:0", &unix]);
    let gate = plan.internal(["127.0.0.1:0", "127.0.0.1:0"]).start().await;
    assert_eq!((gate.addrs().len(), gate.internals().len()), (3, 2));
    for (number, addr) in gate.addrs().iter().enumerate() {
        let mut poller = Way::Plain.connect_to(addr).await;
        poller.ask("/comet/c").await;
        gate.wait_for_held(1).await;
        let internal = &gate.internals()[number % 2];
        let mut hook = Client::connect(internal).await;
        hook.post("/channels/c", "text/plain", "x").await;
        assert_eq!(poller.answer().await.json()["messages"][0]["data"], "x", "{addr}");
        eventually("its end", async || gate.held().await == 0).await;
    }
}

#[tokio::test]
async fn a_stale_unix_socket_is_replaced() {
    let folder = TempDir::new("stale");
    let path = folder.path().join("gate.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let unix = format!("unix:{}", path.display());
    let gate = Gate::with("").alone().listen([&unix]).start().await;
    assert_eq!(gate.get("/comet/c?timeout=0").await.status, 200);
    // A file that is no socket is not the gate's to remove.
    let file = folder.write("file", "precious");
    let unix = format!("unix:{}", file.display());
    let done = Gate::with("").alone().listen([&unix]).run_to_exit().await;
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

#[tokio::test]
async fn an_open_hook_without_a_token_is_not_started() {
    let done = Gate::with("").alone().internal(["0.0.0.0:0"]).run_to_exit().await;
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(done.stderr.contains("publish.token"), "{}", done.stderr);
}
