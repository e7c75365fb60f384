//! The page about nginx in front is true: its config, with other addresses, before a real gate.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::TcpListener;
use std::process::Command;
use support::{Addr, Client, Events, Gate, PlainSite, Process, Socket, TempDir, Way, eventually};

const PAGE: &str = include_str!("../docs/operations/nginx-in-front.md");
const MISSING: &str = "nginx is needed: apt-get install nginx";

/// nginx with the page's config before `gate`, its read timeout replaced by `timeout`.
struct Nginx {
    _process: Process,
    addr: Addr,
    _folder: TempDir,
}

impl Nginx {
    async fn start(gate: &Gate, timeout: &str) -> Nginx {
        let folder = TempDir::new("nginx");
        // nginx cannot be asked for any free port, so one is taken that was free just now.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let block = block("nginx")
            .replace("127.0.0.1:8080", &gate.addr().to_string())
            .replace("listen 80;", &format!("listen {free};"))
            .replace("proxy_read_timeout 75s;", &format!("proxy_read_timeout {timeout};"));
        let path = folder.path().display();
        let config = format!(
            "daemon off;\nworker_processes 1;\npid {path}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path {path}/body;\n\
             proxy_temp_path {path}/proxy;\nfastcgi_temp_path {path}/fastcgi;\n\
             uwsgi_temp_path {path}/uwsgi;\nscgi_temp_path {path}/scgi;\n{block}}}\n"
        );
        let file = folder.write("nginx.conf", config);
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(file);
        let process = Process::spawn("nginx", &mut command, MISSING);
        eventually("nginx listens", async || tokio::net::TcpStream::connect(free).await.is_ok())
            .await;
        Nginx { _process: process, addr: Addr::Tcp(free), _folder: folder }
    }
}

/// The page's one block in this language.
fn block(language: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

fn trusting() -> &'static str {
    "trusted_proxies = [\"127.0.0.1\"]\n"
}

#[tokio::test]
async fn a_poll_is_held_and_released_through_nginx_over_kept_connections() {
    let gate = Gate::start_alone(trusting()).await;
    let nginx = Nginx::start(&gate, "75s").await;
    let mut client = Client::connect(&nginx.addr).await;
    for turn in 0..3 {
        client.send_get("/comet/news").await;
        gate.wait_for_held(1).await;
        assert!(client.is_quiet().await);
        assert_eq!(gate.publish("news", turn.to_string()).await["released"], 1);
        let answer = client.read_response().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["messages"][0]["data"], turn.to_string());
    }
    client.send_get("/comet/news").await;
    gate.wait_for_held(1).await;
    client.close();
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn a_quiet_poll_is_the_gates_to_answer_as_long_as_nginx_waits_longer() {
    let gate = Gate::start_alone("[hold]\ntimeout = \"300ms\"\njitter = \"0%\"\n").await;
    let nginx = Nginx::start(&gate, "20s").await;
    let answer = Client::connect(&nginx.addr).await.poll("/comet/news").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["messages"], serde_json::json!([]));

    // And the page's own figure is longer than both that it has to be longer than.
    let seconds = |text: &str| text.trim_end_matches(['s', ';']).parse::<u64>().unwrap();
    let line = block("nginx").lines().find(|line| line.contains("proxy_read_timeout")).unwrap();
    let wait = seconds(line.split_whitespace().last().unwrap());
    let config = include_str!("../conf/pollgate.toml").parse::<toml_edit::DocumentMut>().unwrap();
    assert!(wait > seconds(config["hold"]["timeout"].as_str().unwrap()));
    assert!(wait > seconds(config["upstream"]["read_timeout"].as_str().unwrap()));
    assert!(wait > seconds(config["stream"]["heartbeat"].as_str().unwrap()));
}

#[tokio::test]
async fn the_site_is_told_of_the_visitor_behind_nginx() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), trusting()).await;
    let nginx = Nginx::start(&gate, "75s").await;
    let mut client = Client::connect(&nginx.addr).await;
    let headers = [("Host", "site.example"), ("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(client.request("GET", "/page", &headers, b"").await.status, 200);
    let asked = site.last();
    assert_eq!(asked.header("Host"), Some("site.example"));
    assert_eq!(asked.header("X-Forwarded-Host"), Some("site.example"));
    assert_eq!(asked.header("X-Forwarded-For"), Some("192.0.2.7, 127.0.0.1, 127.0.0.1"));
    assert_eq!(asked.header("X-Forwarded-Proto"), Some("http"));
}

#[tokio::test]
async fn an_event_stream_is_not_kept_back_by_nginx() {
    let gate = Gate::start_alone(trusting()).await;
    let nginx = Nginx::start(&gate, "75s").await;
    let headers = [("Accept", "text/event-stream")];
    let mut events = Events::open_at(Way::Plain, &nginx.addr, "/comet/news", &headers).await;
    assert_eq!(events.next().await.event, "cursor");
    for number in 0..3 {
        // Each is here before the next is published.
        gate.publish("news", number.to_string()).await;
        assert_eq!(events.next().await.json()["data"], number.to_string());
    }
    drop(events);
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn a_websocket_of_the_gate_opens_through_nginx() {
    let gate = Gate::start_alone(trusting()).await;
    let nginx = Nginx::start(&gate, "75s").await;
    let client = Client::connect(&nginx.addr).await;
    let headers = [("Sec-WebSocket-Protocol", "pollgate.v1")];
    let mut socket = Socket::over(client, "/comet/news", &headers).await;
    assert_eq!(socket.json().await["messages"], serde_json::json!([]));
    gate.publish("news", "hello").await;
    assert_eq!(socket.json().await["messages"][0]["data"], "hello");
    drop(socket);
    gate.wait_for_held(0).await;
}
