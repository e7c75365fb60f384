//! Debian's Pushpin, the original of the GRIP interface.

use std::process::Command;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::php::free_port;
use super::process::Leftovers;
use super::{Addr, Client, Process, Response, TempDir, eventually};

const MISSING: &str = "Pushpin is missing: run scripts/setup test (or: make test)";

static ALONE: Mutex<()> = Mutex::const_new(());

/// A running Pushpin. Dropping it kills it.
pub struct Pushpin {
    public: Addr,
    control: Addr,
    _processes: [Process; 2],
    /// Its parts have process groups of their own.
    _folder: Leftovers,
    _alone: MutexGuard<'static, ()>,
}

impl Pushpin {
    /// Starts Pushpin in front of a site; WebSockets below `/chat/` go to it over HTTP.
    pub async fn start_before(site: &Addr) -> Pushpin {
        // It is five processes, which start slowly when many of them do.
        let _alone = ALONE.lock().await;
        let folder = Leftovers(TempDir::new("pushpin"));
        let at = folder.0.path().display().to_string();
        let [public, control, push, subscribe, command] = std::array::from_fn(|_| free_port());
        let write = |name: &str, text: String| {
            std::fs::write(folder.0.path().join(name), text).unwrap();
            format!("{at}/{name}")
        };
        write("routes", format!("*,path_beg=/chat {site},over_http\n* {site}\n"));
        let config = write(
            "pushpin.conf",
            format!(
                "[global]\ninclude=/usr/lib/pushpin/internal.conf\nrundir={at}\nipc_prefix=t-\n\
                 port_offset=0\nstats_connection_ttl=120\n\
                 [runner]\nservices=condure,pushpin-proxy,pushpin-handler\n\
                 http_port=127.0.0.1:{public}\nlogdir={at}\nlog_level=0\nclient_buffer_size=8192\n\
                 client_maxconn=1000\ncondure_bin=condure\n\
                 [proxy]\nroutesfile={at}/routes\nsig_iss=pushpin\nsig_key=secret\n\
                 zurl_out_specs=ipc://{at}/zurl-in\nzurl_out_stream_specs=ipc://{at}/zurl-in-stream\n\
                 zurl_in_specs=ipc://{at}/zurl-out\n\
                 [handler]\npush_in_spec=tcp://127.0.0.1:{push}\n\
                 push_in_sub_specs=tcp://127.0.0.1:{subscribe}\npush_in_sub_connect=false\n\
                 push_in_http_addr=127.0.0.1\npush_in_http_port={control}\n\
                 push_in_http_max_headers_size=10000\npush_in_http_max_body_size=1000000\n\
                 stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats\n\
                 command_spec=tcp://127.0.0.1:{command}\nmessage_rate=2500\nmessage_hwm=25000\n\
                 message_wait=5000\nid_cache_ttl=60\nconnection_subscription_max=20\n\
                 subscription_linger=60\nstats_report_interval=10\nstats_format=tnetstring\n"
            ),
        );
        let zurl = write(
            "zurl.conf",
            format!(
                "[General]\nin_spec=ipc://{at}/zurl-in\nin_stream_spec=ipc://{at}/zurl-in-stream\n\
                 out_spec=ipc://{at}/zurl-out\nin_req_spec=ipc://{at}/zurl-req\ndefpolicy=allow\n\
                 allow=\ndeny=\nmax_open_requests=100\nbuffer_size=200000\ntimeout=600\n\
                 in_hwm=1000\nout_hwm=1000\n"
            ),
        );
        let mut fetcher = Command::new("zurl");
        fetcher.args([&format!("--config={zurl}"), "--loglevel=0"]);
        let mut proxy = Command::new("pushpin");
        proxy.args(["--config", &config]);
        let processes = [
            Process::spawn("zurl", &mut fetcher, MISSING),
            Process::spawn("pushpin", &mut proxy, MISSING),
        ];
        let addr = |port| Addr::Tcp(([127, 0, 0, 1], port).into());
        let public = addr(public);
        let control = addr(control);
        for one in [&public, &control] {
            eventually("Pushpin listens", async || {
                tokio::net::TcpStream::connect(one.to_string()).await.is_ok()
            })
            .await;
        }
        // Its parts find each other only after a while, and a request that comes before is lost.
        eventually("Pushpin forwards", async || {
            let mut client = Client::connect(&public).await;
            client.send_get("/warm").await;
            let came = !client.is_quiet().await;
            came && client.read_unless_closed().await.is_some_and(|it| it.text() == "warm")
        })
        .await;
        Pushpin { public, control, _processes: processes, _alone, _folder: folder }
    }

    pub fn addr(&self) -> &Addr {
        &self.public
    }

    /// Publishes items.
    pub async fn publish(&self, items: &Value) -> Response {
        let mut client = Client::connect(&self.control).await;
        let body = json!({ "items": items }).to_string();
        client.post("/publish/", "application/json", body).await
    }
}
