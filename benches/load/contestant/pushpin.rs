//! Pushpin: the site answers a poll with the instruction to hold it, and publishes through
//! Pushpin's control port. The site here is ours, keeps the newest messages, and is not measured.
//! Zurl is: Debian's Pushpin makes its requests to the site through it.

use super::process::{Place, Running, free_address};
use super::{Abilities, Contestant, Step, Wire, first_line, get, installed, post, text};
use crate::crowd::Cursor;
use crate::http::Answer;
use crate::message;
use std::io;
use std::net::SocketAddr;

const PUSHPIN: [&str; 2] = ["/usr/bin/pushpin", "/usr/local/bin/pushpin"];
const ZURL: [&str; 2] = ["/usr/bin/zurl", "/usr/local/bin/zurl"];
const LIBRARY: [&str; 2] = ["/usr/lib/pushpin", "/usr/local/lib/pushpin"];

pub(super) fn contestant() -> Contestant {
    let missing = match (installed(&PUSHPIN), installed(&ZURL)) {
        (None, _) => Some("pushpin is not installed".to_owned()),
        (_, None) => Some("zurl is not installed".to_owned()),
        _ => None,
    };
    let version =
        installed(&PUSHPIN).map_or_else(String::new, |path| first_line(path, &["--version"]));
    Contestant {
        name: "pushpin",
        about: format!(
            "{version} with condure and zurl, GRIP response hold, rate limits lifted; one round only"
        ),
        abilities: Abilities {
            polls: 1000,
            bound: "a re-poll takes it milliseconds, so the bench asks for no more",
            pace: 400,
            ..Abilities::ALL
        },
        missing,
        start,
    }
}

fn start(mut place: Place) -> io::Result<Running> {
    let public = free_address()?;
    let control = free_address()?;
    let [push, subscribe, command] = [free_address()?, free_address()?, free_address()?];
    let site = place.start_site()?;
    let folder = place.folder();
    place.write("routes", &format!("* {site}\n"))?;
    let library = installed(&LIBRARY).unwrap_or("/usr/lib/pushpin");
    let config = format!(
        "[global]\ninclude={library}/internal.conf\nrundir={folder}\nipc_prefix=load-\n\
         port_offset=0\nstats_connection_ttl=120\n\
         [runner]\nservices=condure,pushpin-proxy,pushpin-handler\nhttp_port={public}\n\
         logdir={folder}\nlog_level=0\nclient_buffer_size=8192\nclient_maxconn=15000\n\
         condure_bin=condure\n\
         [proxy]\nroutesfile={folder}/routes\nsig_iss=pushpin\nsig_key=bench\n\
         zurl_out_specs=ipc://{folder}/zurl-in\n\
         zurl_out_stream_specs=ipc://{folder}/zurl-in-stream\n\
         zurl_in_specs=ipc://{folder}/zurl-out\n\
         [handler]\npush_in_spec=tcp://{push}\npush_in_sub_specs=tcp://{subscribe}\n\
         push_in_sub_connect=false\npush_in_http_addr={}\npush_in_http_port={}\n\
         push_in_http_max_headers_size=10000\npush_in_http_max_body_size=1000000\n\
         stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats\ncommand_spec=tcp://{command}\n\
         message_rate=100000\nmessage_hwm=100000\nmessage_wait=5000\nid_cache_ttl=60\n\
         connection_subscription_max=20\nsubscription_linger=60\nstats_report_interval=10\n\
         stats_format=tnetstring\n",
        control.ip(),
        control.port(),
    );
    let path = place.write("pushpin.conf", &config)?;
    let zurl = format!(
        "[General]\nin_spec=ipc://{folder}/zurl-in\n\
         in_stream_spec=ipc://{folder}/zurl-in-stream\nout_spec=ipc://{folder}/zurl-out\n\
         in_req_spec=ipc://{folder}/zurl-req\ndefpolicy=allow\nallow=\ndeny=\n\
         max_open_requests=2000\nbuffer_size=200000\ntimeout=600\n\
         in_hwm=20000\nout_hwm=20000\n"
    );
    let zurl_conf = place.write("zurl.conf", &zurl)?;
    let zurl = installed(&ZURL).ok_or_else(|| io::Error::other("not installed"))?;
    place.start(zurl, &[&format!("--config={zurl_conf}"), "--loglevel=0"])?;
    let pushpin = installed(&PUSHPIN).ok_or_else(|| io::Error::other("not installed"))?;
    place.start(pushpin, &["--config", &path])?;
    place.wait_for(public)?;
    place.wait_for(control)?;
    Ok(place.run(Grip { public, control, site }))
}

struct Grip {
    public: SocketAddr,
    control: SocketAddr,
    site: SocketAddr,
}

impl Wire for Grip {
    fn public(&self) -> SocketAddr {
        self.public
    }

    fn poll(&self, channel: u32, cursor: &[u8], out: &mut Vec<u8>) {
        get(format_args!("/poll/{channel}?cursor={}", text(cursor)), "", out);
    }

    /// The site takes the message in first, as a real one would: what is published between two
    /// polls is answered by it.
    fn publish(&self, channel: u32, seq: u64) -> Vec<Step> {
        let body = message::body(seq);
        let store = post(&format!("/publish/{channel}"), "text/plain", &body);
        let response = serde_json::json!({
            "headers": { "ETag": seq.to_string(), "Content-Type": "text/plain" },
            "body": text(&body),
        });
        let item = serde_json::json!({ "items": [{
            "channel": format!("c{channel}"), "id": seq.to_string(),
            "prev-id": (seq - 1).to_string(), "formats": { "http-response": response },
        }]});
        let push = post("/publish/", "application/json", item.to_string().as_bytes());
        vec![Step { to: self.site, request: store }, Step { to: self.control, request: push }]
    }

    fn cursor(&self, answer: &Answer<'_>, cursor: &mut Cursor) {
        *cursor = Cursor::from_slice(answer.etag);
    }
}
