//! The Nchan dialect where it promises more than Nchan: gaps are marked, no cursor is held that
//! cannot be placed, and nothing is lost between the answers of several channels.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Events, Gate, PlainSite, Response, Socket, TempDir, Way, eventually};

const CONFIG: &str = "[[nchan]]\npath = \"/pub/*\"\n\
                      [[poll]]\npath = \"/sub/*\"\ndialect = \"nchan\"\n\
                      [[poll]]\npath = \"/short/*\"\ndialect = \"nchan\"\nfirst = \"newest\"\n\
                      timeout = \"100ms\"\n";
const SSE: (&str, &str) = ("Accept", "text/event-stream");
const META: (&str, &str) = ("Sec-WebSocket-Protocol", "ws+meta.nchan");

async fn publish(gate: &Gate, channel: &str, body: &str) -> Response {
    let headers = [("Content-Type", "text/plain"), ("Accept", "text/json")];
    let answer = gate.hook("POST", &format!("/pub/{channel}"), &headers, body).await;
    assert!(matches!(answer.status, 201 | 202), "{}: {}", answer.status, answer.text());
    answer
}

/// The place of an answer, as headers of the next poll.
fn place(answer: &Response) -> Vec<(String, String)> {
    let header = |name: &str| {
        answer.header(name).unwrap_or_else(|| panic!("no {name} in {}", answer.status)).to_owned()
    };
    vec![
        ("If-Modified-Since".into(), header("last-modified")),
        ("If-None-Match".into(), header("etag")),
    ]
}

async fn poll(gate: &Gate, target: &str, place: &[(String, String)]) -> Response {
    let headers: Vec<_> = place.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    gate.connect().await.request("GET", target, &headers, b"").await
}

fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn is_reset(answer: &Response) -> bool {
    answer.header("x-pollgate-reset") == Some("1")
}

#[tokio::test]
async fn a_poll_is_held_and_released_in_every_way() {
    let gate = Gate::start_alone(CONFIG).await;
    for way in Way::ALL {
        let channel = format!("news{way:?}");
        let mut poller = gate.hold(way, &format!("/sub/{channel}")).await;
        assert!(poller.is_quiet().await);
        publish(&gate, &channel, "hello").await;
        let answer = poller.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!is_reset(&answer));
        let mut held = way.connect(&gate).await;
        let place = place(&answer);
        let headers: Vec<_> = place.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        held.ask_with("GET", &format!("/sub/{channel}"), &headers).await;
        gate.wait_for_held(1).await;
        publish(&gate, &channel, "again").await;
        assert_eq!(held.answer().await.text(), "again");
    }
}

#[tokio::test]
async fn a_gap_is_marked_on_every_transport() {
    let gate = Gate::start_alone(&format!("[history]\nmessages = 2\n{CONFIG}")).await;
    publish(&gate, "news", "0").await;
    let first = poll(&gate, "/sub/news", &[]).await;
    let old = place(&first);
    let id = format!("{}:{}", second_of(&first), first.header("etag").unwrap());
    for number in 1..4 {
        publish(&gate, "news", &number.to_string()).await;
    }
    let answer = poll(&gate, "/sub/news", &old).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "2"));
    assert!(is_reset(&answer));
    let onward = poll(&gate, "/sub/news", &place(&answer)).await;
    assert_eq!((onward.text().as_str(), is_reset(&onward)), ("3", false));

    let target = format!("/sub/news?last_event_id={id}");
    let mut events = events(&gate, &target, &[]).await;
    assert!(is_reset(&events.head));
    let reset = events.next().await;
    assert_eq!((reset.event.as_str(), reset.json()), ("reset", json!({"channel": "news"})));
    assert_eq!(events.next().await.data, "2");
    assert_eq!(events.next().await.data, "3");

    let socket = Socket::open(&gate, &target, &[META]).await;
    assert!(is_reset(&socket.head));
    let parts = [("Accept", "multipart/mixed")];
    let mut parts = Events::open_with(Way::Plain, &gate, &target, &parts).await;
    assert!(is_reset(&parts.head));
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.starts_with('3')) {
        lines.push(parts.line().await.unwrap());
    }
    let marked = lines.iter().filter(|line| line.starts_with("X-Pollgate-Reset: 1"));
    assert_eq!(marked.count(), 1, "{lines:?}");
}

/// An event stream behind its first comment.
async fn events(gate: &Gate, target: &str, headers: &[(&str, &str)]) -> Events {
    let mut events = Events::open_with(Way::Plain, gate, target, &[&[SSE], headers].concat()).await;
    assert_eq!(events.line().await.unwrap(), ": hi");
    assert_eq!(events.line().await.unwrap(), "");
    events
}

fn second_of(answer: &Response) -> u64 {
    let date = httpdate::parse_http_date(answer.header("last-modified").unwrap()).unwrap();
    date.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_place_in_the_future_or_beyond_belief_is_answered_at_once() {
    let gate = Gate::start_alone(CONFIG).await;
    publish(&gate, "news", "kept").await;
    let soon = second() + 3600;
    for id in [
        format!("{soon}:0"),
        "99999999999:0".to_owned(),
        "99999999999999999999999:99999999999999999999".to_owned(),
        format!("{}:7", second() + 1),
        "junk".to_owned(),
        format!("{}:1,2", second()),
        format!("{}:0", second() - 86_400),
    ] {
        let answer = gate.get(&format!("/sub/news?last_event_id={id}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "kept"), "{id}");
        assert!(is_reset(&answer), "{id}");
        let empty = gate.get(&format!("/sub/empty?last_event_id={id}")).await;
        assert_eq!((empty.status, is_reset(&empty)), (304, true), "{id}");
    }
    let since = [("If-Modified-Since".to_owned(), "yesterday".to_owned())];
    assert!(is_reset(&poll(&gate, "/sub/news", &since).await));
    let future = [
        ("If-Modified-Since".to_owned(), "Sat, 28 Nov 2099 08:50:13 GMT".to_owned()),
        ("If-None-Match".to_owned(), "0".to_owned()),
    ];
    assert!(is_reset(&poll(&gate, "/sub/news", &future).await));
    assert_eq!(gate.held().await, 0);
}

#[tokio::test]
async fn a_place_from_before_a_restart_is_reset_once() {
    let gate = Gate::start_alone(CONFIG).await;
    publish(&gate, "news", "0").await;
    publish(&gate, "news", "1").await;
    let old = place(&poll(&gate, "/sub/news", &[]).await);
    gate.kill();
    let gate = Gate::start_alone(CONFIG).await;
    let lost = poll(&gate, "/sub/news", &old).await;
    assert_eq!((lost.status, is_reset(&lost)), (304, true));
    let mut client = gate.connect().await;
    let place = place(&lost);
    let headers: Vec<_> = place.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    client.send("GET", "/sub/news", &headers, b"").await;
    gate.wait_for_held(1).await;
    publish(&gate, "news", "2").await;
    let answer = client.read_response().await;
    assert_eq!((answer.text().as_str(), is_reset(&answer)), ("2", false));
    // A client of before gets what there is, in the second of the start, too.
    let lost = poll(&gate, "/sub/news", &old).await;
    assert_eq!((lost.text().as_str(), is_reset(&lost)), ("2", true));
}

#[tokio::test]
async fn a_place_outlives_a_clean_restart_and_is_reset_after_a_crash() {
    let folder = TempDir::new("nchan-snapshot");
    let config = format!(
        "[drain]\nspread = \"0s\"\n[history]\nsnapshot = {:?}\nsnapshot_every = \"50ms\"\n{CONFIG}",
        folder.path().join("history")
    );
    let gate = Gate::start_alone(&config).await;
    for number in 0..3 {
        publish(&gate, "news", &number.to_string()).await;
    }
    let first = place(&poll(&gate, "/sub/news", &[]).await);
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0);
    let gate = Gate::start_alone(&config).await;
    let answer = poll(&gate, "/sub/news", &first).await;
    assert_eq!((answer.text().as_str(), is_reset(&answer)), ("1", false));
    let last = poll(&gate, "/sub/news", &place(&answer)).await;
    assert_eq!(last.text(), "2");
    let written = || folder.path().join("history").metadata().map(|file| file.len()).ok();
    eventually("a snapshot", async || written().is_some()).await;
    let before = written();
    publish(&gate, "news", &"x".repeat(1000)).await;
    eventually("another snapshot", async || written() > before).await;
    gate.kill();
    let gate = Gate::start_alone(&config).await;
    let mut answer = poll(&gate, "/sub/news", &place(&last)).await;
    assert_eq!((answer.text().as_str(), is_reset(&answer)), ("0", true));
    for expected in ["1", "2", &"x".repeat(1000)] {
        answer = poll(&gate, "/sub/news", &place(&answer)).await;
        assert_eq!((answer.text().as_str(), is_reset(&answer)), (expected, false));
    }
}

#[tokio::test]
async fn nothing_falls_between_two_quiet_polls_of_a_client_that_wants_the_next_message() {
    let gate = Gate::start_alone(CONFIG).await;
    publish(&gate, "news", "old").await;
    let quiet = poll(&gate, "/short/news", &[]).await;
    assert_eq!((quiet.status, quiet.text().as_str()), (408, ""));
    publish(&gate, "news", "between").await;
    assert_eq!(poll(&gate, "/short/news", &place(&quiet)).await.text(), "between");
    // Never published to, it has a place all the same.
    let quiet = poll(&gate, "/short/empty", &[]).await;
    publish(&gate, "empty", "first").await;
    assert_eq!(poll(&gate, "/short/empty", &place(&quiet)).await.text(), "first");
    // An event stream learns its place before its first event.
    let mut stream = events(&gate, "/short/news", &[]).await;
    let cursor = stream.next().await;
    assert_eq!(cursor.event, "cursor");
    drop(stream);
    publish(&gate, "news", "unseen").await;
    let mut stream = events(&gate, "/short/news", &[("Last-Event-ID", cursor.id())]).await;
    stream.next().await;
    assert_eq!(stream.next().await.data, "unseen");
}

/// Follows three channels in one poll after the other, while each gets `count` messages.
async fn follow(gate: &Gate, target: &str, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    let mut place_of = Vec::new();
    while got.len() < 3 * count {
        let answer = poll(gate, target, &place_of).await;
        assert_eq!((answer.status, is_reset(&answer)), (200, false), "{place_of:?}");
        place_of = place(&answer);
        got.extend(answer.text().lines().map(str::to_owned));
    }
    got
}

#[tokio::test]
async fn several_channels_that_are_published_to_at_once_lose_and_repeat_nothing() {
    const COUNT: usize = 150;
    let config = format!(
        "[history]\nmessages = 1000\n[[poll]]\npath = \"/raw/*\"\ndialect = \"nchan\"\n\
         batch = \"raw\"\n{CONFIG}"
    );
    let gate = Gate::start_alone(&config).await;
    let publishing = |channel: &'static str| {
        let gate = &gate;
        async move {
            for number in 0..COUNT {
                publish(gate, channel, &format!("{channel}{number}")).await;
            }
        }
    };
    let (one, all, ..) = tokio::join!(
        follow(&gate, "/sub/a,b,c", COUNT),
        follow(&gate, "/raw/a,b,c", COUNT),
        publishing("a"),
        publishing("b"),
        publishing("c"),
    );
    for got in [one, all] {
        for channel in ["a", "b", "c"] {
            let own = got.iter().filter(|message| message.starts_with(channel));
            let expected = (0..COUNT).map(|number| format!("{channel}{number}"));
            assert_eq!(own.cloned().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_channel_that_was_deleted_and_comes_again_resets_its_old_places() {
    let gate = Gate::start_alone(CONFIG).await;
    publish(&gate, "news", "0").await;
    let old = place(&poll(&gate, "/sub/news", &[]).await);
    assert_eq!(gate.hook("DELETE", "/pub/news", &[], "").await.status, 200);
    assert_eq!(gate.hook("DELETE", "/pub/news", &[], "").await.status, 404);
    assert!(is_reset(&poll(&gate, "/sub/news", &old).await));
    publish(&gate, "news", "1").await;
    let answer = poll(&gate, "/sub/news", &old).await;
    assert_eq!((answer.text().as_str(), is_reset(&answer)), ("1", true));
    publish(&gate, "news", "2").await;
    let answer = poll(&gate, "/sub/news", &place(&answer)).await;
    assert_eq!((answer.text().as_str(), is_reset(&answer)), ("2", false));
}

#[tokio::test]
async fn what_a_publisher_sends_cannot_forge_a_line_of_an_event_or_a_part() {
    let gate = Gate::start_alone(CONFIG).await;
    for bad in ["a\u{e4}b", "x".repeat(300).as_str()] {
        let headers = [("X-EventSource-Event", bad)];
        assert_eq!(gate.hook("POST", "/pub/news", &headers, "x").await.status, 400, "{bad}");
    }
    let headers = [("X-EventSource-Event", "a;nchan-event=b"), ("Content-Type", "text/html")];
    assert_eq!(
        gate.hook("POST", "/pub/news", &headers, "1\rid: 9:9\r\n\ndata: x").await.status,
        202
    );
    let event = events(&gate, "/sub/news", &[]).await.next().await;
    assert_eq!(event.event, "a;nchan-event=b");
    assert_eq!(event.data, "1\nid: 9:9\n\ndata: x");
    assert!(event.id().split(':').all(|part| part.parse::<u64>().is_ok()), "{}", event.id());
    assert_eq!(gate.get("/sub/news").await.header("content-type"), Some("text/html"));
}

#[tokio::test]
async fn the_path_is_the_rule_s_own_and_the_public_side_does_not_publish() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = gate.connect().await.request(method, "/sub/news", &[], b"").await;
        assert_eq!(answer.status, 405, "{method}");
        let answer = gate.connect().await.request(method, "/pub/news", &[], b"").await;
        assert_ne!(answer.status, 201, "{method}: {}", answer.text());
    }
    assert_eq!(gate.hook("GET", "/pub/news", &[], "").await.status, 404, "nothing was published");
    assert_eq!(gate.get("/sub/%00").await.status, 400);
    assert_eq!(gate.get("/sub/").await.status, 400);
    assert_eq!(gate.get("/sub/a,,b").await.status, 400);
    let many = vec!["a"; 101].join("%2c");
    assert_eq!(gate.get(&format!("/sub/{many}")).await.status, 400);
    assert_eq!(gate.hook("POST", "/pub/a,,b", &[], "x").await.status, 400);
    let head = gate.connect().await.request("HEAD", "/sub/news", &[], b"").await;
    assert_eq!(head.status, 408, "a HEAD is answered at once");
}

#[tokio::test]
async fn a_shutdown_answers_polls_and_ends_streams_so_that_they_come_back() {
    let gate = Gate::start_alone(&format!("[drain]\nspread = \"0s\"\n{CONFIG}")).await;
    let mut held = gate.hold(Way::Plain, "/sub/news").await;
    let mut events = events(&gate, "/sub/news", &[]).await;
    let mut socket = Socket::open(&gate, "/sub/news", &[META]).await;
    let parts = [("Accept", "multipart/mixed")];
    let mut parts = Events::open_with(Way::Plain, &gate, "/sub/news", &parts).await;
    gate.wait_for_held(4).await;
    gate.signal("TERM");
    let answer = held.answer().await;
    assert_eq!(answer.status, 408);
    place(&answer);
    events.end().await;
    assert_eq!(socket.closed().await.0, 1001);
    assert!(parts.line().await.unwrap().ends_with("--\r"));
    assert_eq!(parts.line().await, None);
}

#[tokio::test]
async fn publishers_need_the_token_and_follow_a_reload() {
    let config = format!("[publish]\ntoken = \"secret\"\n{CONFIG}");
    let gate = Gate::with(&config).alone().token("secret").start().await;
    publish(&gate, "news", "x").await;
    let mut stranger = support::Client::connect(gate.internal()).await;
    assert_eq!(stranger.post("/pub/news", "text/plain", "x").await.status, 401);
    let renamed = config.replace("/pub/*", "/send/*");
    gate.reconfigure(&renamed).await;
    assert_eq!(gate.hook("POST", "/pub/news", &[], "x").await.status, 404);
    assert_eq!(gate.hook("POST", "/send/news", &[], "x").await.status, 202);
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused_and_nothing_of_it_published() {
    let gate = Gate::start_alone(&format!("[history]\nmax_message = \"1KiB\"\n{CONFIG}")).await;
    let long = "x".repeat(1025);
    assert_eq!(gate.hook("POST", "/pub/a,b", &[], long).await.status, 413);
    assert_eq!(gate.hook("GET", "/pub/a", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_long_backlog_is_streamed_in_pieces_whose_ids_are_good() {
    let config = format!("[history]\nmessages = 1000\nbytes = \"32MiB\"\n{CONFIG}");
    let gate = Gate::start_alone(&config).await;
    let body = |channel: &str, number: usize| format!("{channel}{number} {}", "x".repeat(40_000));
    for number in 0..20 {
        publish(&gate, "a", &body("a", number)).await;
        publish(&gate, "b", &body("b", number)).await;
    }
    // However it breaks off, the ids of what has come lead to the rest.
    let mut id = "0:0".to_owned();
    let mut got = Vec::new();
    while got.len() < 40 {
        let mut events = events(&gate, "/sub/a,b", &[("Last-Event-ID", id.as_str())]).await;
        let mut last = None;
        for _ in 0..3.min(40 - got.len()) {
            let event = events.next().await;
            assert_eq!(event.event, "");
            got.push(event.data.split(' ').next().unwrap().to_owned());
            last = event.id;
        }
        id = last.unwrap();
    }
    let mut unique = got.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 40, "{got:?}");
}

#[tokio::test]
async fn a_poll_is_held_for_ever_unless_the_rule_has_a_timeout() {
    let gate = Gate::start_alone(&format!("[hold]\ntimeout = \"50ms\"\n{CONFIG}")).await;
    let mut held = gate.hold(Way::Plain, "/sub/news").await;
    let mut short = gate.hold(Way::Plain, "/short/news").await;
    assert_eq!(short.answer().await.status, 408);
    let quiet = tokio::time::timeout(Duration::from_millis(300), held.answer()).await;
    assert!(quiet.is_err());
    assert_eq!(gate.held().await, 1);
}

#[tokio::test]
async fn a_raw_stream_is_for_requests_that_choose_nothing_else() {
    let rule = "[[poll]]\npath = \"/raw/*\"\ndialect = \"nchan\"\nraw = true\n";
    let gate = Gate::start_alone(&format!("{CONFIG}{rule}")).await;
    publish(&gate, "news", "1").await;
    for way in Way::ALL {
        let mut raw = Events::open_with(way, &gate, "/raw/news", &[]).await;
        assert_eq!(raw.head.status, 200, "{way:?}");
        assert_eq!(raw.line().await.as_deref(), Some("1"), "{way:?}");
        let poll = way.connect(&gate).await.poll("/raw/news?transport=poll").await;
        assert_eq!(poll.text(), "1", "{way:?}");
        let mut events = Events::open_with(way, &gate, "/raw/news", &[SSE]).await;
        // The empty line behind the first comment.
        assert_eq!(events.next().await.id, None, "{way:?}");
        assert_eq!(events.next().await.data, "1", "{way:?}");
    }
    let only =
        "[[poll]]\npath = \"/raw/*\"\ndialect = \"nchan\"\nraw = true\ntransports = [\"poll\"]\n";
    let gate = Gate::start_alone(only).await;
    assert_eq!(gate.get("/raw/news").await.status, 406);
}
