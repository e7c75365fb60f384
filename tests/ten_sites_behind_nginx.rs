//! The page about ten sites is true: its blocks, with other addresses and files, in a real nginx
//! before and behind a real gate.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use support::tls::{self, Identity};
use support::{Addr, Client, Gate, Process, TempDir, eventually};

const PAGE: &str = include_str!("../docs/operations/ten-sites.md");
const MISSING: &str = "nginx is needed: apt-get install nginx";

/// The blocks of the page in this language, in their order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let parts = PAGE.split(fence.as_str()).skip(1);
    parts.map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The one of them with `text` in it.
fn block(language: &str, text: &str) -> &'static str {
    let found = blocks(language).into_iter().find(|block| block.contains(text));
    found.unwrap_or_else(|| panic!("no {language} block has {text:?}"))
}

struct Machine {
    folder: TempDir,
    /// The shop's listener behind the gate, and the public one.
    behind: SocketAddr,
    public: SocketAddr,
}

impl Machine {
    fn new() -> Machine {
        let folder = TempDir::new("nginx");
        let own = Identity::of(&["shop.example", "www.shop.example"]);
        folder.write("fullchain.pem", &own.cert);
        folder.write("privkey.pem", &own.key);
        std::fs::create_dir(folder.path().join("shop")).unwrap();
        folder.write("shop/index.html", "the shop's page\n");
        std::fs::copy("/etc/nginx/fastcgi.conf", folder.path().join("fastcgi.conf"))
            .unwrap_or_else(|error| panic!("{MISSING}: {error}"));
        for site in ["gate", "shop", "blog"] {
            folder.write(&format!("{site}.token"), format!("{site}-token\n"));
        }
        // nginx cannot be asked for any free port, so some are taken that were free just now.
        let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addr = |index: usize| free[index].local_addr().unwrap();
        Machine { behind: addr(0), public: addr(1), folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The page's text with this machine's addresses and files.
    fn here(&self, text: &str) -> String {
        let path = self.path().display();
        text.replace("127.0.0.1:8001", &self.behind.to_string())
            .replace("listen 443 ssl;", &format!("listen {} ssl;", self.public))
            .replace("/etc/letsencrypt/live/shop.example", &path.to_string())
            .replace("/srv/shop", &format!("{path}/shop"))
            .replace("/etc/pollgate", &path.to_string())
    }

    /// The config of step 2, and what step 4 adds to it.
    fn gate(&self) -> (String, String) {
        let first = self.here(block("toml", "trusted_proxies"));
        (first, self.here(block("toml", "name  = \"blog\"")))
    }

    async fn nginx(&self, gate: &Gate) -> Process {
        let map = block("nginx", "map $http_x_forwarded_proto");
        let behind = block("nginx", "listen 127.0.0.1:8001;");
        let public = block("nginx", "proxy_pass http://127.0.0.1:8080;");
        let public = public.replace("127.0.0.1:8080", &gate.addr().to_string());
        let path = self.path().display();
        let config = format!(
            "daemon off;\nworker_processes 1;\npid {path}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path {path}/body;\n\
             proxy_temp_path {path}/proxy;\nfastcgi_temp_path {path}/fastcgi;\n\
             uwsgi_temp_path {path}/uwsgi;\nscgi_temp_path {path}/scgi;\n{map}{}{}}}\n",
            self.here(behind),
            self.here(&public)
        );
        let file = self.folder.write("nginx.conf", config);
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-e", "stderr", "-p"]).arg(self.path()).arg("-c").arg(file);
        let process = Process::spawn("nginx", &mut command, MISSING);
        for addr in [self.behind, self.public] {
            let listens = async || tokio::net::TcpStream::connect(addr).await.is_ok();
            eventually("nginx listens", listens).await;
        }
        process
    }

    /// A visitor of the shop, over TLS.
    async fn visitor(&self) -> Client {
        let config = Arc::new(tls::client_config(&["http/1.1"], rustls::ALL_VERSIONS));
        let addr = Addr::Tcp(self.public);
        let stream = tls::connect_as(&addr, "shop.example", config).await.unwrap();
        Client::over(stream, "shop.example")
    }
}

async fn get(addr: &Addr, host: &str, path: &str) -> (u16, String) {
    let mut client = Client::connect(addr).await;
    client.names(host);
    let answer = client.get(path).await;
    (answer.status, answer.text())
}

async fn publish(gate: &Gate, token: &str, data: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    let mut client = Client::connect(gate.internal()).await;
    client.request("POST", "/channels/news", &headers, data.as_bytes()).await.status
}

#[tokio::test]
async fn the_page_s_steps_lead_from_nginx_to_a_gate_with_sites_and_each_step_works() {
    let machine = Machine::new();
    let (first, more) = machine.gate();
    let gate = Gate::with(&first).token("gate-token").start().await;
    let _nginx = machine.nginx(&gate).await;
    let page = (200, "the shop's page\n".to_owned());
    // Step 1 and 2: the shop behind the gate, and through it; no other host.
    assert_eq!(get(&Addr::Tcp(machine.behind), "shop.example", "/").await, page);
    assert_eq!(get(gate.addr(), "shop.example", "/").await, page);
    assert_eq!(get(gate.addr(), "other.example", "/").await.0, 421);
    // Step 3: visitors come through nginx, and their polls wait.
    let mut visitor = machine.visitor().await;
    let answer = visitor.get("/").await;
    assert_eq!((answer.status, answer.text()), page);
    let mut held = machine.visitor().await;
    held.send_get("/comet/news").await;
    gate.wait_for_held(1).await;
    // Step 4: another site, and no poll is dropped.
    gate.reconfigure(&(first + "\n" + &more)).await;
    assert_eq!(gate.held().await, 1);
    let status = gate.status().await;
    assert!(status["sites"]["shop"].is_object() && status["sites"]["blog"].is_object(), "{status}");
    assert_eq!(get(gate.addr(), "blog.example", "/comet/news?timeout=0").await.0, 200);
    assert_eq!(publish(&gate, "blog-token", "of the blog").await, 200);
    assert_eq!(publish(&gate, "shop-token", "of the shop").await, 200);
    let answer = held.read_response().await.json();
    assert_eq!(answer["messages"][0]["data"], "of the shop");
    assert_eq!(answer["messages"].as_array().unwrap().len(), 1);
}
