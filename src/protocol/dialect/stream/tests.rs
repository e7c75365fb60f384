use super::*;
use crate::hub::channel::Cursor;
use crate::hub::channel::{ChannelName, Payload, Take, Tick, Time};
use crate::hub::{Hub, Settings, Subscription};
use crate::protocol::dialect::native::Native;
use crate::protocol::dialect::novcomet::NovComet;
use crate::protocol::dialect::timestamp::Timestamp;
use bytes::Bytes;

const NOW: Time = Time(1_700_000_000_000_000);

struct Story {
    hub: Hub,
    name: ChannelName,
}

impl Story {
    fn of(bodies: &[&str]) -> Self {
        let story =
            Self { hub: Hub::new(Settings::default(), 1), name: ChannelName::new("a").unwrap() };
        for body in bodies {
            let payload = Payload::text(Bytes::copy_from_slice(body.as_bytes()));
            story.hub.publish(&[(story.name.clone(), payload)], NOW).unwrap();
        }
        story
    }

    fn since(&self, cursor: Cursor) -> (Answer, Answer) {
        let subscription = Subscription { channel: self.name.clone(), cursor };
        let (waiter, found) = self.hub.subscribe(&[subscription], Take::All, NOW).unwrap();
        (waiter.place().clone(), found)
    }
}

fn native() -> Dialect {
    Dialect::Native(Native::default())
}

fn text(batch: &Batch) -> String {
    String::from_utf8(batch.pieces.concat()).unwrap()
}

#[test]
fn the_place_before_the_oldest_message_gets_them_all_again() {
    let story = Story::of(&["one", "two"]);
    let (place, found) = story.since(Cursor::Oldest);
    let again = story.since(Cursor::At(place[0].found.position)).1;
    assert_eq!((again[0].found.messages.len(), again[0].found.reset), (2, false));
    let format = Format::of(Transport::Sse);
    let (batch, part) = native().stream_events(&format, &place, &found);
    assert_eq!((batch.events, part.is_none()), (2, true));
    assert!(story.since(Cursor::At(found[0].found.position)).1[0].found.messages.is_empty());
}

#[test]
fn what_is_the_same_for_all_is_rendered_once() {
    let story = Story::of(&["one"]);
    let (place, found) = story.since(Cursor::Oldest);
    for transport in [Transport::Sse, Transport::Chunked, Transport::WebSocket] {
        let format = Format::of(transport);
        let pieces = || native().stream_events(&format, &place, &found).0.pieces;
        assert_eq!(pieces()[0].as_ptr(), pieces()[0].as_ptr(), "{transport:?}");
    }
    let sse = native().stream_events(&Format::of(Transport::Sse), &place, &found).0;
    let bare = Format { only_data: true, ..Format::of(Transport::Sse) };
    assert_ne!(text(&sse), text(&native().stream_events(&bare, &place, &found).0));
}

#[test]
fn a_batch_ends_before_it_is_large_and_the_rest_follows() {
    let body = "x".repeat(40_000);
    let story = Story::of(&[body.as_str(); 5]);
    let (mut place, _) = story.since(Cursor::Oldest);
    for expected in [1, 1, 1, 1, 1] {
        let found = story.since(Cursor::At(place[0].found.position)).1;
        let format = Format::of(Transport::Sse);
        let (batch, part) = native().stream_events(&format, &place, &found);
        assert_eq!(batch.events, expected);
        place = part.unwrap_or(found);
    }
    assert!(story.since(Cursor::At(place[0].found.position)).1[0].found.messages.is_empty());
    let small = Story::of(&["y"; 90]);
    let (place, found) = small.since(Cursor::Oldest);
    let (batch, part) = native().stream_events(&Format::of(Transport::Chunked), &place, &found);
    assert_eq!((batch.events, part.is_none(), text(&batch).lines().count()), (90, true, 90));
}

#[test]
fn a_huge_message_is_sent_all_the_same() {
    let body = "x".repeat(300_000);
    let story = Story::of(&[&body, "small"]);
    let (place, found) = story.since(Cursor::Oldest);
    let (batch, part) = native().stream_events(&Format::of(Transport::Sse), &place, &found);
    let after = part.unwrap();
    assert_eq!(batch.events, 1);
    assert!(text(&batch).len() > 300_000);
    let found = story.since(Cursor::At(after[0].found.position)).1;
    assert_eq!(native().stream_events(&Format::of(Transport::Sse), &after, &found).0.events, 1);
}

#[test]
fn nothing_new_is_nothing_to_write() {
    let story = Story::of(&["one"]);
    let channel = "{query.c}".parse().unwrap();
    let dialects = [
        native(),
        Dialect::NovComet(NovComet::default()),
        Dialect::Timestamp(Timestamp::new(channel)),
    ];
    for dialect in dialects {
        let (place, found) = story.since(Cursor::Now);
        for (_, transport) in Transport::NAMES {
            for answers in [false, true] {
                let format = Format { answers, ..Format::of(transport) };
                let (batch, part) = dialect.stream_events(&format, &place, &found);
                let nothing = batch.pieces.is_empty() && batch.events == 0 && part.is_none();
                assert!(nothing, "{transport:?}");
            }
        }
    }
    assert_eq!(story.hub.tick(&story.name), Tick::Micros);
}

#[test]
fn a_request_chooses_by_its_headers_before_its_query() {
    let chosen = |headers: &[(&'static str, &'static str)], query: &str| {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        Transport::chosen(&map, &Query::parse(query))
    };
    assert_eq!(chosen(&[], ""), Some(Transport::Poll));
    assert_eq!(chosen(&[("accept", "*/*")], "x=1"), Some(Transport::Poll));
    assert_eq!(chosen(&[("accept", "text/event-stream")], "transport=ws"), Some(Transport::Sse));
    assert_eq!(chosen(&[("accept", "a/b, Text/Event-Stream;q=0.5")], ""), Some(Transport::Sse));
    assert_eq!(chosen(&[("accept", "application/x-ndjson")], ""), Some(Transport::Chunked));
    assert_eq!(chosen(&[("upgrade", "WebSocket")], "transport=sse"), Some(Transport::WebSocket));
    assert_eq!(chosen(&[], "transport=iframe"), Some(Transport::Iframe));
    assert_eq!(chosen(&[], "transport=own"), None);
}
