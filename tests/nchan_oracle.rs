//! The Nchan dialect beside the real Nchan: the same conversations with both, word for word.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "nchan_oracle/talk.rs"]
mod talk;

mod support;

use support::{Gate, Nchan};
use talk::Step::{
    Again, Answer, Frame, Hold, NextSecond, Poll, Pub, Publisher, Say, Socket, Until,
};
use talk::{Side, Step, Talk, another_second};

const LOCATIONS: &str = r#"
location ~ ^/pub/(.+)$ { nchan_publisher; nchan_channel_id $1; nchan_channel_id_split_delimiter ","; }
location ~ ^/sub/(.+)$ { nchan_subscriber; nchan_channel_id $1; nchan_channel_id_split_delimiter ","; }
location ~ ^/short/(.+)$ { nchan_subscriber; nchan_channel_id $1; nchan_subscriber_timeout 1s; }
location ~ ^/newest/(.+)$ { nchan_subscriber; nchan_channel_id $1; nchan_subscriber_first_message newest; }
location ~ ^/second/(.+)$ { nchan_subscriber; nchan_channel_id $1; nchan_subscriber_first_message 2; }
location ~ ^/lasttwo/(.+)$ { nchan_subscriber; nchan_channel_id $1; nchan_subscriber_first_message -2; }
location ~ ^/interval/(.+)$ { nchan_subscriber intervalpoll; nchan_channel_id $1; }
location ~ ^/parts/(.+)$ { nchan_subscriber; nchan_longpoll_multipart_response on; nchan_channel_id $1; nchan_channel_id_split_delimiter ","; }
location ~ ^/raw/(.+)$ { nchan_subscriber; nchan_longpoll_multipart_response raw; nchan_channel_id $1; nchan_channel_id_split_delimiter ","; }
location ~ ^/stream/(.+)$ { nchan_subscriber http-raw-stream; nchan_channel_id $1; nchan_channel_id_split_delimiter ","; }
location ~ ^/existing/(.+)$ { nchan_subscriber; nchan_channel_id $1; nchan_subscribe_existing_channels_only on; }
location ~ ^/gpub/(.+)$ { nchan_publisher; nchan_channel_group g; nchan_channel_id $1; }
location ~ ^/gsub/(.+)$ { nchan_subscriber; nchan_channel_group g; nchan_channel_id $1; }
location ~ ^/query/pub$ { nchan_publisher; nchan_channel_id $arg_id; }
location ~ ^/query/sub$ { nchan_subscriber; nchan_channel_id $arg_id; }
"#;

const CONFIG: &str = r#"
[[nchan]]
path = "/pub/*"
[[nchan]]
path = "/gpub/*"
group = "g"
[[nchan]]
path = "/query/pub"
channel = "{query.id}"
[[poll]]
path = "/sub/*"
dialect = "nchan"
[[poll]]
path = "/stream/*"
dialect = "nchan"
raw = true
[[poll]]
path = "/short/*"
dialect = "nchan"
timeout = "1s"
[[poll]]
path = "/newest/*"
dialect = "nchan"
first = "newest"
[[poll]]
path = "/second/*"
dialect = "nchan"
first = 2
[[poll]]
path = "/lasttwo/*"
dialect = "nchan"
first = -2
[[poll]]
path = "/interval/*"
dialect = "nchan"
interval = true
[[poll]]
path = "/parts/*"
dialect = "nchan"
batch = "multipart"
[[poll]]
path = "/raw/*"
dialect = "nchan"
batch = "raw"
[[poll]]
path = "/existing/*"
dialect = "nchan"
existing_only = true
[[poll]]
path = "/gsub/*"
dialect = "nchan"
group = "g"
[[poll]]
path = "/query/sub"
dialect = "nchan"
channel = "{query.id}"
"#;

const SSE: &[(&str, &str)] = &[("Accept", "text/event-stream")];
const PARTS: &[(&str, &str)] = &[("Accept", "multipart/mixed")];
const CHUNKED: &[(&str, &str)] = &[("TE", "chunked")];
const META: &[(&str, &str)] = &[("Sec-WebSocket-Protocol", "ws+meta.nchan")];

#[rustfmt::skip]
const PUBLISHING: &[(&str, &[Step])] = &[
    ("plain", &[Publisher("POST", "/pub/CH", &[], "hello")]),
    ("json", &[Pub("/pub/CH", "1"), Publisher("POST", "/pub/CH", &[("Accept", "text/json")], "2")]),
    ("xml", &[Publisher("POST", "/pub/CH", &[("Accept", "application/xml")], "hello")]),
    ("yaml", &[Publisher("POST", "/pub/CH", &[("Accept", "text/x-yaml")], "hello")]),
    ("accept", &[Publisher("POST", "/pub/CH", &[("Accept", "text/html,application/json;q=0.9")], "hello")]),
    ("put", &[Publisher("PUT", "/pub/CH", &[], "hello"), Publisher("PUT", "/pub/CH", &[], "again")]),
    ("info", &[Pub("/pub/CH", "1"), Publisher("GET", "/pub/CH", &[], "")]),
    ("noinfo", &[Publisher("GET", "/pub/CH", &[], "")]),
    ("delete", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Publisher("DELETE", "/pub/CH", &[], "")]),
    ("nodelete", &[Publisher("DELETE", "/pub/CH", &[], "")]),
    ("touch", &[Publisher("POST", "/pub/CH", &[], ""), Poll("/sub/CH", &[])]),
    ("untyped", &[Publisher("POST", "/pub/CH", &[], "hello"), Poll("/sub/CH", &[])]),
    ("badjson", &[Publisher("POST", "/pub/CH", &[("Content-Type", "application/json")], "{"), Poll("/sub/CH", &[])]),
    ("created", &[Hold("/sub/CH", &[]), Publisher("POST", "/pub/CH", &[], "hello"), Answer]),
    ("several", &[Publisher("POST", "/pub/CHa,CHb", &[], "x"), Poll("/sub/CHa", &[]), Poll("/sub/CHb", &[])]),
    ("options", &[Publisher("OPTIONS", "/pub/CH", &[], "")]),
    ("group", &[Pub("/gpub/CH", "grouped"), Poll("/gsub/CH", &[]), Publisher("GET", "/pub/CH", &[], "")]),
    ("query", &[Pub("/query/pub?id=CH", "asked"), Poll("/query/sub?id=CH", &[]), Poll("/sub/CH", &[])]),
];

#[rustfmt::skip]
const POLLING: &[(&str, &[Step])] = &[
    ("oldest", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH", &[])]),
    ("onward", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Pub("/pub/CH", "3"),
        Poll("/sub/CH", &[]), Again("/sub/CH"), Again("/sub/CH")]),
    ("seconds", &[Pub("/pub/CH", "1"), NextSecond, Pub("/pub/CH", "2"), Pub("/pub/CH", "3"),
        Poll("/sub/CH", &[]), Again("/sub/CH"), Again("/sub/CH"), Again("/short/CH")]),
    ("quoted", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH", &[]),
        Poll("/sub/CH", &[("If-Modified-Since", "{D}"), ("If-None-Match", "\"0\"")])]),
    ("weak", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH", &[]),
        Poll("/sub/CH", &[("If-Modified-Since", "{D}"), ("If-None-Match", "W/\"0\"")])]),
    ("zero", &[Pub("/pub/CH", "1"), Poll("/newest/CH?last_event_id=0:0", &[])]),
    ("byquery", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH?last_event_id={T}:0", &[])]),
    ("escaped", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH?last_event_id={T}%3A0", &[])]),
    ("byheader", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH", &[("Last-Event-ID", "{T}:0")])]),
    ("dates", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Pub("/pub/CH", "3"),
        Poll("/sub/CH?last_event_id={T}:1", &[("If-Modified-Since", "{D}"), ("If-None-Match", "0")])]),
    ("beginning", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH?last_event_id={T}:-1", &[])]),
    ("longago", &[Pub("/pub/CH", "1"),
        Poll("/sub/CH", &[("If-Modified-Since", "Sat, 28 Nov 2020 08:50:13 GMT"), ("If-None-Match", "0")])]),
    ("tagalone", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/sub/CH", &[("If-None-Match", "0")])]),
    ("held", &[Hold("/sub/CH", &[]), Publisher("POST", "/pub/CH", &[("Content-Type", "text/html; charset=utf-8")], "<b>"), Answer]),
    ("quiet", &[Poll("/short/CH", &[])]),
    ("newest", &[Pub("/pub/CH", "old"), Hold("/newest/CH", &[]), Pub("/pub/CH", "new"), Answer]),
    ("second", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Pub("/pub/CH", "3"), Poll("/second/CH", &[])]),
    ("lasttwo", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Pub("/pub/CH", "3"), Poll("/lasttwo/CH", &[])]),
    ("interval", &[Poll("/interval/CH", &[]), Pub("/pub/CH", "1"), Poll("/interval/CH", &[]), Again("/interval/CH")]),
    ("parts", &[Pub("/pub/CH", "1"), Pub("/pub/CH", ""), Pub("/pub/CH", "3"), Poll("/parts/CH", &[]), Pub("/pub/CH", "4"), Again("/parts/CH")]),
    ("onepart", &[Pub("/pub/CH", "1"), Poll("/parts/CH", &[])]),
    ("raw", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Poll("/raw/CH", &[])]),
    ("existing", &[Poll("/existing/CH", &[]), Pub("/pub/CH", "1"), Poll("/existing/CH", &[])]),
    ("gone", &[Hold("/sub/CH", &[]), Publisher("DELETE", "/pub/CH", &[("Accept", "text/json")], ""), Answer]),
    ("vector", &[Pub("/pub/CHa", "1"), Pub("/pub/CHb", "2"), Pub("/pub/CHa", "3"), Pub("/pub/CHb", "4"),
        Poll("/sub/CHa,CHb", &[]), Again("/sub/CHa,CHb"), Again("/sub/CHa,CHb"), Again("/sub/CHa,CHb")]),
    ("order", &[Pub("/pub/CHa", "1"), Pub("/pub/CHa", "2"), Pub("/pub/CHb", "3"), Poll("/raw/CHa,CHb", &[])]),
    ("emptyone", &[Pub("/pub/CHc", "1"), Poll("/sub/CHa,CHb,CHc", &[]), NextSecond, Pub("/pub/CHa", "2"), Again("/sub/CHa,CHb,CHc")]),
    ("scalar", &[Pub("/pub/CHa", "1"), Pub("/pub/CHb", "2"), Poll("/sub/CHa,CHb?last_event_id={T}:0", &[])]),
];

#[rustfmt::skip]
const STREAMING: &[(&str, &[Step])] = &[
    ("events", &[Pub("/pub/CH", "1"), Hold("/sub/CH", SSE), Pub("/pub/CH", "two\nlines"), Pub("/pub/CH", ""), Pub("/pub/CH", "last"), Until("data: last\n\n")]),
    ("named", &[Publisher("POST", "/pub/CH", &[("X-EventSource-Event", "news")], "x"), Hold("/sub/CH", SSE), Until("data: x\n\n")]),
    ("resumed", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Hold("/sub/CH?last_event_id={T}:0", SSE), Until("data: 2\n\n")]),
    ("vectors", &[Pub("/pub/CHa", "1"), Pub("/pub/CHb", "2"), Pub("/pub/CHa", "3"), Hold("/sub/CHa,CHb,CHc", SSE),
        Until("data: 3\n\n"), NextSecond, Pub("/pub/CHb", "4"), Until("data: 4\n\n")]),
    ("deleted", &[Pub("/pub/CH", "1"), Hold("/sub/CH", SSE), Until("data: 1\n\n"), Publisher("DELETE", "/pub/CH", &[], ""), Until(":410: 410 Gone\n\n")]),
    ("multipart", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Hold("/sub/CH", PARTS), Publisher("POST", "/pub/CH", &[], "3\r\n"), Until("3\r\n\r\n--")]),
    ("chunks", &[Pub("/pub/CH", "one"), Pub("/pub/CH", ""), Hold("/sub/CH", CHUNKED), Pub("/pub/CH", "two"), Until("two")]),
    ("rawstream", &[Pub("/pub/CH", "1"), Hold("/stream/CH", &[]), Pub("/pub/CH", "two\nlines"), Pub("/pub/CH", "three"), Until("three\n")]),
    ("rawempty", &[Pub("/pub/CH", "1"), Hold("/stream/CH", &[]), Pub("/pub/CH", ""), Pub("/pub/CH", "last"), Until("last\n")]),
    ("rawresumed", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Hold("/stream/CH?last_event_id={T}:0", &[]), Until("2\n")]),
    ("rawseveral", &[Pub("/pub/CHa", "1"), Pub("/pub/CHb", "2"), Hold("/stream/CHa,CHb", &[]), Pub("/pub/CHb", "3"), Until("3\n")]),
    ("socket", &[Pub("/pub/CH", "1"), Socket("/sub/CH", &[]), Frame, Pub("/pub/CH", "2"), Frame,
        Publisher("POST", "/pub/CH", &[("Content-Type", "application/octet-stream")], "3"), Frame]),
    ("meta", &[Pub("/pub/CH", "1"), Socket("/sub/CH", META), Frame, Publisher("POST", "/pub/CH", &[], "untyped"), Frame,
        Publisher("POST", "/pub/CH", &[("Content-Type", "application/octet-stream")], "3"), Frame]),
    ("metaonward", &[Pub("/pub/CH", "1"), Pub("/pub/CH", "2"), Socket("/sub/CH?last_event_id={T}:0", META), Frame]),
    ("metavector", &[Pub("/pub/CHa", "1"), Pub("/pub/CHb", "2"), Socket("/sub/CHa,CHb", META), Frame, Frame]),
    ("saying", &[Pub("/pub/CH", "1"), Socket("/sub/CH", &[]), Frame, Say("hello"), Frame]),
    ("closed", &[Pub("/pub/CH", "1"), Socket("/sub/CH", &[]), Frame, Publisher("DELETE", "/pub/CH", &[], ""), Frame]),
];

async fn compare(cases: &[(&str, &[Step])]) {
    let nchan = Nchan::start(LOCATIONS).await;
    let gate = Gate::start_alone(CONFIG).await;
    let theirs = Side { public: nchan.addr.clone(), publisher: nchan.addr.clone() };
    let ours = Side { public: gate.addr().clone(), publisher: gate.internal().clone() };
    // In the second of its start, a gate's tags do not count.
    another_second().await;
    let mut differences = Vec::new();
    for (name, steps) in cases {
        let expected = Talk::through(&theirs, name, steps).await;
        let said = Talk::through(&ours, name, steps).await;
        if said != expected {
            differences.push(format!("{name}: pollgate says {said:#?}, Nchan says {expected:#?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn publishers_get_nchan_s_answers() {
    compare(PUBLISHING).await;
}

#[tokio::test]
async fn polls_get_nchan_s_answers() {
    compare(POLLING).await;
}

#[tokio::test]
async fn streams_get_nchan_s_bytes() {
    compare(STREAMING).await;
}

#[test]
fn there_are_more_than_forty_cases() {
    let cases = PUBLISHING.len() + POLLING.len() + STREAMING.len();
    assert!(cases > 40, "{cases}");
}
