//! Debian's Firefox ESR, headless, driven over its own WebDriver BiDi socket.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, SemaphorePermit};

use super::browser::{PATIENCE, Page, TURNS};
use super::process::Leftovers;
use super::socket::{PING, PONG, Socket, TEXT};
use super::wait::eventually_some;
use super::{Addr, Client, Process, TempDir};

const MISSING: &str = "Firefox is missing: apt-get install firefox-esr (or: make test)";

/// Settings of the profile: nothing that calls home or asks a question.
const PREFERENCES: &[(&str, &str)] = &[
    ("app.normandy.enabled", "false"),
    ("app.update.enabled", "false"),
    ("browser.aboutwelcome.enabled", "false"),
    ("browser.safebrowsing.malware.enabled", "false"),
    ("browser.safebrowsing.phishing.enabled", "false"),
    ("browser.shell.checkDefaultBrowser", "false"),
    ("browser.startup.page", "0"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("dom.ipc.processPrelaunch.enabled", "false"),
    ("extensions.systemAddon.update.enabled", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("services.settings.server", "\"http://127.0.0.1:1\""),
    ("toolkit.telemetry.server", "\"\""),
];

/// A browser that shows one page.
pub struct Firefox {
    // Dropped in this order.
    _process: Process,
    _profile: Leftovers,
    _turn: SemaphorePermit<'static>,
    session: Mutex<Session>,
    context: String,
}

/// The socket that it is driven over.
struct Session {
    socket: Socket,
    commands: u64,
}

impl Firefox {
    /// Starts it, and opens a page.
    pub async fn open(url: &str) -> Firefox {
        // It is never closed.
        let turn = TURNS.acquire().await.unwrap();
        let folder = Leftovers(TempDir::new("firefox"));
        let profile = folder.0.path();
        let lines =
            PREFERENCES.iter().map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"));
        fs::write(profile.join("user.js"), lines.collect::<String>()).unwrap();
        let mut command = Command::new("firefox-esr");
        command
            .args(["--headless", "--no-remote", "--remote-debugging-port", "0", "--profile"])
            .arg(profile)
            .env("HOME", profile)
            .env("TMPDIR", profile)
            .env("MOZ_CRASHREPORTER_DISABLE", "1");
        let process = Process::spawn("firefox", &mut command, MISSING);
        let find = |_: &str, stderr: &str| {
            let (_, rest) = stderr.split_once("WebDriver BiDi listening on ws://127.0.0.1:")?;
            rest.lines().next()?.trim().parse::<u16>().ok()
        };
        let port = process.wait_for_output("the port of BiDi", 2 * PATIENCE, find).await;
        let client = Client::connect(&Addr::Tcp(([127, 0, 0, 1], port).into())).await;
        let socket = Socket::over(client.bound(2 * PATIENCE), "/session", &[]).await;
        let mut session = Session { socket, commands: 0 };
        session.command("session.new", json!({ "capabilities": {} })).await;
        let tree = session.command("browsingContext.getTree", json!({})).await;
        let context = tree["contexts"][0]["context"].as_str().unwrap().to_owned();
        let params = json!({ "context": context, "url": url, "wait": "complete" });
        session.command("browsingContext.navigate", params).await;
        let session = Mutex::new(session);
        Firefox { _process: process, _profile: folder, _turn: turn, session, context }
    }
}

impl Session {
    /// The result of a command.
    async fn command(&mut self, method: &str, params: Value) -> Value {
        self.commands += 1;
        let command = json!({ "id": self.commands, "method": method, "params": params });
        self.socket.send(0x80 | TEXT, command.to_string().as_bytes()).await;
        loop {
            let (opcode, payload) = self.socket.frame().await;
            if opcode == PING {
                self.socket.send(0x80 | PONG, &payload).await;
            }
            let Ok(answer) = serde_json::from_slice::<Value>(&payload) else { continue };
            if answer["id"] == self.commands {
                assert_eq!(answer["type"], "success", "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}

impl Page for Firefox {
    async fn run(&self, script: &str) -> Value {
        let function = format!("() => JSON.stringify((() => {{ {script} }})() ?? null)");
        let params = json!({
            "functionDeclaration": function,
            "awaitPromise": true,
            "target": { "context": self.context },
        });
        let result = self.session.lock().await.command("script.callFunction", params).await;
        let text = result["result"]["value"].as_str();
        let text = text.unwrap_or_else(|| panic!("{script}: {result}"));
        serde_json::from_str(text).unwrap()
    }

    async fn wait_until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        let look = async || (self.run(&script).await == true).then_some(());
        eventually_some(expression, PATIENCE, look).await;
    }
}
