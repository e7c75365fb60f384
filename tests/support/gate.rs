//! The real gate, as a process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::http::{Client, Response};
use super::tls::Identity;
use super::{Addr, Poller, Process, TempDir, Way, eventually};

/// Bound on the start of the gate: the first start of a fresh binary on a busy machine is slow.
const START: Duration = Duration::from_secs(20);

const BINARY: &str = env!("CARGO_BIN_EXE_pollgate");

/// A running gate. Dropping it kills it.
#[derive(Debug)]
pub struct Gate {
    process: Process,
    listen: Vec<Addr>,
    internal: Vec<Addr>,
    token: Option<String>,
    folder: TempDir,
}

/// A gate to be: what it will be started with.
#[derive(Debug)]
pub struct Plan {
    config: String,
    listen: Vec<String>,
    internal: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    token: Option<String>,
    tls: bool,
    /// Its limit of open files.
    open_files: Option<u64>,
    folder: TempDir,
    command: &'static str,
}

impl Gate {
    /// Starts a gate with this configuration on free ports.
    pub async fn start(config: &str) -> Gate {
        Gate::with(config).start().await
    }

    /// Starts a gate with this configuration in front of `upstream`.
    pub async fn start_before(upstream: &Addr, config: &str) -> Gate {
        Gate::with(config).upstream(upstream).start().await
    }

    /// Starts a gate with no site behind it: what reaches no poll rule is a 502.
    pub async fn start_alone(config: &str) -> Gate {
        Gate::with(config).alone().start().await
    }

    /// For a gate that needs more than a configuration.
    pub fn with(config: &str) -> Plan {
        Plan {
            config: config.into(),
            listen: vec!["127.0.0.1:0".into()],
            internal: vec!["127.0.0.1:0".into()],
            args: Vec::new(),
            env: Vec::new(),
            token: None,
            tls: false,
            open_files: None,
            folder: TempDir::new("gate"),
            command: "run",
        }
    }

    /// The (first) public address.
    pub fn addr(&self) -> &Addr {
        &self.listen[0]
    }

    /// All public addresses, in the order of the command line.
    pub fn addrs(&self) -> &[Addr] {
        &self.listen
    }

    /// Address that redirects plain HTTP to HTTPS.
    pub fn redirect(&self) -> Addr {
        let found = addresses(&self.process.stdout(), "redirect");
        found.into_iter().next().unwrap_or_else(|| panic!("the gate redirects nobody"))
    }

    /// The (first) internal address.
    pub fn internal(&self) -> &Addr {
        &self.internal[0]
    }

    /// All internal addresses, in the order of the command line.
    pub fn internals(&self) -> &[Addr] {
        &self.internal
    }

    /// The file it was started with, to change before a reload.
    pub fn config_file(&self) -> std::path::PathBuf {
        config_file(&self.folder)
    }

    /// Puts another configuration into its file, at once and whole.
    pub fn write_config(&self, config: &str) {
        let new = self.folder.write("pollgate.toml.new", config);
        std::fs::rename(new, self.config_file()).unwrap();
    }

    /// `POST /reload`.
    pub async fn reload(&self) -> Response {
        self.hook("POST", "/reload", &[], "").await
    }

    /// Puts another configuration into its file and in force; what the reload answered.
    pub async fn reconfigure(&self, config: &str) -> Value {
        self.write_config(config);
        let response = self.reload().await;
        assert_eq!(response.status, 200, "POST /reload: {}", response.text());
        response.json()
    }

    /// A private folder of this gate, removed with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new connection to the public side.
    pub async fn connect(&self) -> Client {
        Client::connect(self.addr()).await
    }

    /// GET on the public side, over a connection of its own.
    pub async fn get(&self, path: &str) -> Response {
        self.connect().await.get(path).await
    }

    /// Any request to the internal side, with the token if there is one.
    pub async fn hook(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = headers.to_vec();
        if let Some(bearer) = &bearer {
            headers.push(("Authorization", bearer));
        }
        let mut client = Client::connect(self.internal()).await;
        client.request(method, path, &headers, body.as_ref()).await
    }

    /// Publishes text through the hook and answers what the hook answered.
    pub async fn publish(&self, channel: &str, data: impl AsRef<[u8]>) -> Value {
        self.publish_as(channel, "text/plain; charset=UTF-8", data).await
    }

    /// Publishes JSON through the hook and answers what the hook answered.
    pub async fn publish_json(&self, channel: &str, data: &Value) -> Value {
        self.publish_as(channel, "application/json", data.to_string()).await
    }

    /// Publishes bytes of any content type.
    pub async fn publish_as(&self, channel: &str, kind: &str, data: impl AsRef<[u8]>) -> Value {
        let path = channel_path(channel);
        let response = self.hook("POST", &path, &[("Content-Type", kind)], data).await;
        assert_eq!(response.status, 200, "publish to {channel}: {}", response.text());
        response.json()
    }

    /// Response of `GET /status`.
    pub async fn status(&self) -> Value {
        let response = self.hook("GET", "/status", &[], "").await;
        assert_eq!(response.status, 200, "GET /status: {}", response.text());
        response.json()
    }

    /// Number of polls held right now.
    pub async fn held(&self) -> u64 {
        let status = self.status().await;
        status["held"].as_u64().unwrap_or_else(|| panic!("no `held` in {status}"))
    }

    /// Waits until exactly so many polls are held.
    pub async fn wait_for_held(&self, count: u64) {
        eventually(&format!("{count} held polls"), async || self.held().await == count).await;
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, word: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = status.lines().find(|line| line.starts_with(word));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// Memory of its own in bytes: what it shares with other gates (the binary) is not counted.
    pub fn own_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    /// Number of its open files.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Sends a poll over a connection of its own and waits until it is held.
    pub async fn hold(&self, way: Way, target: &str) -> Poller {
        let held = self.held().await;
        let mut poller = way.connect(self).await;
        poller.ask(target).await;
        self.wait_for_held(held + 1).await;
        poller
    }

    /// Response of `GET /channels/{channel}`.
    pub async fn channel(&self, channel: &str) -> Value {
        self.hook("GET", &channel_path(channel), &[], "").await.json()
    }

    /// Waits until the channel keeps exactly so many messages.
    pub async fn wait_for_kept(&self, channel: &str, count: u64) {
        let look = async || self.channel(channel).await["kept"] == count;
        eventually(&format!("{count} messages kept on {channel}"), look).await;
    }

    /// Waits until the newest message of the channel is this text.
    pub async fn wait_for_newest(&self, channel: &str, text: &str) {
        let path = format!("{}/messages", channel_path(channel));
        let look = async || {
            let history = self.hook("GET", &path, &[], "").await;
            history.status == 200
                && history.json()["messages"].as_array().and_then(|all| all.last()?.get("data"))
                    == Some(&text.into())
        };
        eventually(&format!("{text:?} on {channel}"), look).await;
    }

    /// Forgets a channel and answers what the hook answered.
    pub async fn forget(&self, channel: &str) -> Value {
        let response = self.hook("DELETE", &channel_path(channel), &[], "").await;
        assert_eq!(response.status, 200, "forget {channel}: {}", response.text());
        response.json()
    }

    /// The newest part of what it said at its start.
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// The newest part of its log (stderr).
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Waits until the log holds `text`.
    pub async fn wait_for_log(&self, text: &str) {
        let find = |_: &str, log: &str| log.contains(text).then_some(());
        self.process.wait_for_output(&format!("{text:?} in the log"), super::BOUND, find).await;
    }

    /// Sends a signal: `gate.signal("TERM")`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// The exit code, once it has ended; unlike [`Gate::wait_for_exit`] with no regard to
    /// processes that it has started.
    pub fn exit_code(&self) -> Option<i32> {
        self.process.exit_status().map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for its end and answers its exit code, -1 if a signal ended it.
    pub async fn wait_for_exit(&self) -> i32 {
        self.process.wait_for_exit().await.code().unwrap_or(-1)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        self.process.kill();
    }
}

impl Plan {
    /// Puts the gate in front of this address.
    pub fn upstream(self, addr: &Addr) -> Plan {
        self.args(["--upstream", &addr.to_string()])
    }

    /// Takes over from a running gate in place of an ordinary start.
    pub fn upgrade(mut self) -> Plan {
        self.command = "upgrade";
        self
    }

    /// Puts the gate in front of an address where nothing listens.
    pub fn alone(self) -> Plan {
        self.args(["--upstream", "127.0.0.1:1"])
    }

    /// Public addresses in place of one free port; none leaves them to the configuration.
    pub fn listen<const N: usize>(mut self, addrs: [&str; N]) -> Plan {
        self.listen = addrs.map(String::from).to_vec();
        self
    }

    /// Internal addresses in place of one free port; none leaves them to the configuration.
    pub fn internal<const N: usize>(mut self, addrs: [&str; N]) -> Plan {
        self.internal = addrs.map(String::from).to_vec();
        self
    }

    /// Further arguments of `pollgate run`.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Plan {
        self.args.extend(args.map(String::from));
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Plan {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The token that the helpers on the internal side send.
    pub fn token(mut self, token: &str) -> Plan {
        self.token = Some(token.into());
        self
    }

    /// At most so many open files; without this, as many as the test has.
    pub fn open_files(mut self, most: u64) -> Plan {
        self.open_files = Some(most);
        self
    }

    /// TLS on its public side.
    pub fn tls(mut self, identity: &Identity) -> Plan {
        self.tls = true;
        identity.write_to(self.folder());
        let file = |name: &str| self.folder().join(name).display().to_string();
        let cert = file("cert.pem");
        let key = file("key.pem");
        self.args(["--set", &format!("tls.cert={cert}"), "--set", &format!("tls.key={key}")])
    }

    /// A private folder of the gate to be, for paths in its configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it listens everywhere.
    ///
    /// With `POLLGATE_TESTS_OVER=tls` in the environment its public side speaks TLS, and so do
    /// the clients here: the same tests, over TLS.
    pub async fn start(mut self) -> Gate {
        let over_tls = std::env::var("POLLGATE_TESTS_OVER").is_ok_and(|over| over == "tls");
        if over_tls && !self.tls {
            self = self.tls(Identity::any());
        }
        let process = self.spawn();
        let wanted = self.listen.len().max(1);
        let internals = self.internal.len().max(1);
        let find = |stdout: &str, _: &str| {
            let listen = addresses(stdout, "gate");
            let internal = addresses(stdout, "internal");
            let all = listen.len() >= wanted && internal.len() >= internals;
            all.then_some((listen, internal))
        };
        let what = "line for each address it listens on";
        let (listen, internal) = process.wait_for_output(what, START, find).await;
        Gate { process, listen, internal, token: self.token, folder: self.folder }
    }

    /// Runs it to its end: for a gate that must refuse to start.
    pub async fn run_to_exit(self) -> Finished {
        Finished::wait_for(self.spawn()).await
    }

    fn spawn(&self) -> Process {
        let file = config_file(&self.folder);
        std::fs::write(&file, &self.config).unwrap();
        let mut command = match self.open_files {
            None => Command::new(BINARY),
            Some(most) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--nofile={most}:{most}")).arg(BINARY);
                limited
            }
        };
        command.arg(self.command).arg("--config").arg(file);
        for addr in &self.listen {
            command.args(["--listen", addr]);
        }
        for addr in &self.internal {
            command.args(["--internal", addr]);
        }
        command.args(&self.args).envs(self.env.iter().cloned());
        Process::spawn("pollgate", &mut command, "")
    }
}

/// Results of a `pollgate` command.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, -1 if a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    async fn wait_for(process: Process) -> Finished {
        let code = process.wait_for_exit().await.code().unwrap_or(-1);
        Finished { code, stdout: process.stdout(), stderr: process.stderr() }
    }
}

/// Runs `pollgate` with these arguments to its end.
pub async fn pollgate(args: &[&str]) -> Finished {
    Finished::wait_for(Process::spawn("pollgate", Command::new(BINARY).args(args), "")).await
}

fn channel_path(channel: &str) -> String {
    format!("/channels/{}", utf8_percent_encode(channel, NON_ALPHANUMERIC))
}

fn config_file(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("pollgate.toml")
}

/// The addresses in lines such as `gate      http://127.0.0.1:40123`.
fn addresses(stdout: &str, word: &str) -> Vec<Addr> {
    // A last line without its end may be only half of it.
    let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let of_word = |line: &str| {
        let text = || line.strip_prefix(word).map(str::to_owned);
        let json = serde_json::from_str::<Value>(line).ok().filter(|line| line.is_object());
        json.map_or_else(text, |line| {
            let fields = &line["fields"];
            (fields["what"] == word).then(|| fields["value"].as_str().map(str::to_owned))?
        })
    };
    whole.lines().filter_map(of_word).filter_map(|rest| Addr::parse(rest.trim())).collect()
}
