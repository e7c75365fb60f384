//! nginx, twice: with Nchan it holds, with `proxy_pass` it only forwards.

use super::process::{Place, Running, free_address};
use super::{
    Abilities, Carrier, Contestant, Step, Wire, first_line, get, get_stream, installed, post, text,
};
use crate::crowd::Cursor;
use crate::http::Answer;
use crate::message;
use std::io;
use std::net::SocketAddr;

const NGINX: [&str; 3] = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"];
const NCHAN: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];

pub(super) fn nchan() -> Contestant {
    of_nchan("nchan", "", |place| start_nchan(place, "off"))
}

/// The same with an access log, in a file.
pub(super) fn nchan_with_log() -> Contestant {
    let contestant = of_nchan("nchan-log", ", access log", |place| {
        let log = format!("{}/access.log", place.folder());
        start_nchan(place, &log)
    });
    Contestant { abilities: Abilities { is_variant: true, ..contestant.abilities }, ..contestant }
}

fn of_nchan(name: &'static str, with: &str, start: fn(Place) -> io::Result<Running>) -> Contestant {
    let missing = match (installed(&NGINX), installed(&NCHAN)) {
        (None, _) => Some("nginx is not installed".to_owned()),
        (_, None) => Some("libnginx-mod-nchan is not installed".to_owned()),
        _ => None,
    };
    Contestant {
        name,
        about: format!("Nchan, long-poll subscriber, 1 message an answer{with}, in {}", version()),
        abilities: Abilities { forwards: false, streams: true, ..Abilities::ALL },
        missing,
        start,
    }
}

pub(super) fn proxy() -> Contestant {
    Contestant {
        name: "nginx",
        about: format!("`proxy_pass` with kept upstream connections in {}", version()),
        abilities: Abilities { polls: 0, bound: "it only forwards", ..Abilities::ALL },
        missing: installed(&NGINX).is_none().then(|| "nginx is not installed".to_owned()),
        start: start_proxy,
    }
}

fn version() -> String {
    let line = installed(&NGINX).map_or_else(String::new, |nginx| first_line(nginx, &["-v"]));
    line.trim_start_matches("nginx version: ").to_owned()
}

/// Starts nginx with a config of `load` (modules) and `http` (the inside of its http block).
pub(super) fn start(place: &mut Place, load: &str, http: &str) -> io::Result<()> {
    let folder = place.folder();
    let workers = place.settings.workers;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind}; "))
        .concat();
    let config = format!(
        "{load}\ndaemon off;\nworker_processes {workers};\npid {folder}/pid;\n\
         error_log {folder}/error.log crit;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 19000; }}\n\
         http {{\nkeepalive_requests 1000000000;\nkeepalive_timeout 75s;\n\
         {paths}\n{http}\n}}\n"
    );
    let path = place.write("nginx.conf", &config)?;
    let nginx = installed(&NGINX).ok_or_else(|| io::Error::other("nginx is not installed"))?;
    place.start(nginx, &["-e", &format!("{folder}/error.log"), "-c", &path])
}

fn start_nchan(mut place: Place, log: &str) -> io::Result<Running> {
    let public = free_address()?;
    let module = installed(&NCHAN).unwrap_or_default();
    let http = format!(
        "access_log {log};\nnchan_shared_memory_size 512M;\n\
         server {{\nlisten {public} reuseport backlog=4096;\n\
         location = /sub {{ nchan_subscriber longpoll; nchan_channel_id $arg_id;\n\
         nchan_subscriber_first_message newest; nchan_subscriber_timeout 300; }}\n\
         location = /stream {{ nchan_subscriber eventsource websocket; nchan_channel_id $arg_id;\n\
         nchan_subscriber_first_message newest; }}\n\
         location = /pub {{ nchan_publisher; nchan_channel_id $arg_id;\n\
         nchan_message_buffer_length 100; nchan_message_timeout 5m; }}\n}}"
    );
    start(&mut place, &format!("load_module {module};"), &http)?;
    place.wait_for(public)?;
    Ok(place.run(Nchan { public }))
}

fn start_proxy(mut place: Place) -> io::Result<Running> {
    let public = free_address()?;
    let site = place.start_site()?;
    let http = format!(
        "access_log off;\nupstream site {{ server {site}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {public} reuseport backlog=4096;\nlocation / {{ proxy_pass http://site;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}\n}}"
    );
    start(&mut place, "", &http)?;
    place.wait_for(public)?;
    Ok(place.run(Nchan { public }))
}

struct Nchan {
    public: SocketAddr,
}

impl Wire for Nchan {
    fn public(&self) -> SocketAddr {
        self.public
    }

    fn poll(&self, channel: u32, cursor: &[u8], out: &mut Vec<u8>) {
        let headers = match text(cursor).split_once('|') {
            Some((modified, tag)) => {
                format!("If-Modified-Since: {modified}\r\nIf-None-Match: {tag}\r\n")
            }
            None => String::new(),
        };
        get(format_args!("/sub?id=c{channel}"), &headers, out);
    }

    fn stream(&self, carrier: Carrier, channel: u32, out: &mut Vec<u8>) {
        get_stream(format_args!("/stream?id=c{channel}"), carrier, out);
    }

    fn publish(&self, channel: u32, seq: u64) -> Vec<Step> {
        let request = post(&format!("/pub?id=c{channel}"), "text/plain", &message::body(seq));
        vec![Step { to: self.public, request }]
    }

    fn cursor(&self, answer: &Answer<'_>, cursor: &mut Cursor) {
        cursor.clear();
        cursor.extend_from_slice(answer.last_modified);
        cursor.push(b'|');
        cursor.extend_from_slice(answer.etag);
    }
}
