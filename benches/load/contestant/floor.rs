//! The floor, as a process of its own: see [`crate::floor`].

use super::process::{Place, Running, free_address};
use super::{Abilities, Contestant, Step, Wire, get, post, text};
use crate::crowd::Cursor;
use crate::http::Answer;
use crate::message;
use std::io;
use std::net::SocketAddr;

pub(super) fn contestant() -> Contestant {
    Contestant {
        name: "floor",
        about: "the floor: one thread, epoll, fixed answers, nothing else".to_owned(),
        abilities: Abilities { forwards: false, ..Abilities::ALL },
        missing: None,
        start,
    }
}

fn start(mut place: Place) -> io::Result<Running> {
    let public = free_address()?;
    let own = std::env::current_exe()?.display().to_string();
    place.start(&own, &["--floor", &public.to_string()])?;
    place.wait_for(public)?;
    Ok(place.run(Bare { public }))
}

struct Bare {
    public: SocketAddr,
}

impl Wire for Bare {
    fn public(&self) -> SocketAddr {
        self.public
    }

    fn poll(&self, channel: u32, cursor: &[u8], out: &mut Vec<u8>) {
        get(format_args!("/poll/{channel}?cursor={}", text(cursor)), "", out);
    }

    fn publish(&self, channel: u32, seq: u64) -> Vec<Step> {
        let request = post(&format!("/publish/{channel}"), "text/plain", &message::body(seq));
        vec![Step { to: self.public, request }]
    }

    fn cursor(&self, answer: &Answer<'_>, cursor: &mut Cursor) {
        *cursor = Cursor::from_slice(answer.etag);
    }
}
