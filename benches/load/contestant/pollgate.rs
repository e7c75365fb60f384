//! pollgate, with its defaults but for the number of threads, twice: without its access log, as the
//! others write none, and with it.

use super::process::{Place, Running, free_address};
use super::{Abilities, Carrier, Contestant, Settings, Step, Wire, get, get_stream, post, text};
use crate::crowd::Cursor;
use crate::http::Answer;
use crate::message;
use std::io;
use std::net::SocketAddr;

pub(super) fn contestant(settings: &Settings) -> Contestant {
    of("pollgate", settings, "warn", |place| start(place, "warn"))
}

/// The same with the access log, in a file.
pub(super) fn with_log(settings: &Settings) -> Contestant {
    let contestant = of("pollgate-log", settings, "info", |place| start(place, "info"));
    Contestant {
        abilities: Abilities { http2: false, is_variant: true, ..contestant.abilities },
        ..contestant
    }
}

fn of(
    name: &'static str,
    settings: &Settings,
    level: &str,
    start: fn(Place) -> io::Result<Running>,
) -> Contestant {
    let missing = (!settings.pollgate.exists())
        .then(|| format!("there is no {}", settings.pollgate.display()));
    Contestant {
        name,
        about: format!(
            "pollgate {}, native dialect, `threads={}`, `log.level={level}`, \
             `hold.timeout=300s` {}",
            env!("CARGO_PKG_VERSION"),
            settings.workers,
            settings.set.join(" ")
        ),
        abilities: Abilities { http2: true, streams: true, ..Abilities::ALL },
        missing,
        start,
    }
}

fn start(mut place: Place, level: &str) -> io::Result<Running> {
    let public = free_address()?;
    let internal = free_address()?;
    let site = place.start_site()?;
    let binary = place.settings.pollgate.display().to_string();
    let mut arguments = vec![
        "run".to_owned(),
        format!("--listen={public}"),
        format!("--internal={internal}"),
        format!("--upstream={site}"),
        format!("--set=threads={}", place.settings.workers),
        format!("--set=log.level={level}"),
        "--set=hold.timeout=300s".to_owned(),
    ];
    arguments.extend(place.settings.set.iter().map(|set| format!("--set={set}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    place.start(&binary, &arguments)?;
    place.wait_for(public)?;
    place.wait_for(internal)?;
    Ok(place.run(Native { public, internal }))
}

struct Native {
    public: SocketAddr,
    internal: SocketAddr,
}

impl Wire for Native {
    fn public(&self) -> SocketAddr {
        self.public
    }

    fn poll(&self, channel: u32, cursor: &[u8], out: &mut Vec<u8>) {
        match text(cursor) {
            "" => get(format_args!("/comet/c{channel}"), "", out),
            cursor => get(format_args!("/comet/c{channel}?cursor={cursor}"), "", out),
        }
    }

    fn stream(&self, carrier: Carrier, channel: u32, out: &mut Vec<u8>) {
        get_stream(format_args!("/comet/c{channel}"), carrier, out);
    }

    fn publish(&self, channel: u32, seq: u64) -> Vec<Step> {
        let request = post(&format!("/channels/c{channel}"), "text/plain", &message::body(seq));
        vec![Step { to: self.internal, request }]
    }

    fn cursor(&self, answer: &Answer<'_>, cursor: &mut Cursor) {
        // The cursor is made of characters that JSON never escapes.
        let Some(rest) = answer.body.strip_prefix(b"{\"cursor\":\"") else { return };
        let end = rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len());
        *cursor = Cursor::from_slice(&rest[..end]);
    }
}
