//! Cost of an answer in each dialect: rendered anew, and shared from an earlier client's answer.

use criterion::{BatchSize, Criterion};
use pollgate::hub::channel::{ChannelName, Cursor, Kind, Payload, SiteName, Take, Time};
use pollgate::hub::{Answer, Hub, PollOutcome, Settings, Subscription};
use pollgate::protocol::dialect::native::Native;
use pollgate::protocol::dialect::novcomet::NovComet;
use pollgate::protocol::dialect::timestamp::Timestamp;
use pollgate::protocol::dialect::{Dialect, Parsed, Request};
use pollgate::protocol::http::query::Query;
use std::hint::black_box;
use std::time::Duration;

const NOW: Time = Time(1_700_000_000_000_000);
const NAME: &str = "news";

fn name() -> ChannelName {
    ChannelName::new(NAME).expect("a valid name")
}

fn dialects() -> [Dialect; 3] {
    let template = NAME.parse().expect("a valid template");
    [
        Dialect::Native(Native::default()),
        Dialect::NovComet(NovComet::default()),
        Dialect::Timestamp(Timestamp::new(template)),
    ]
}

/// The answer of a channel with `messages` messages.
fn answer(dialect: &Dialect, messages: usize) -> Answer {
    let hub = Hub::new(Settings::default(), 1);
    let body = br#"{"user":"ann","text":"<b>hello</b> & welcome to the 100th room"}"#;
    for _ in 0..messages {
        let content_type = "application/json".into();
        let payload = Payload { kind: Kind::Json, content_type, body: body[..].into() };
        hub.publish(&[(name(), payload)], NOW).expect("room for one channel");
    }
    let (take, cursor) = match dialect {
        Dialect::Native(_) => (Take::All, Cursor::Oldest),
        Dialect::NovComet(_) => {
            let slack = Duration::from_secs(2);
            (Take::Newest, Cursor::Changed { after: None, slack })
        }
        Dialect::Timestamp(_) | Dialect::Nchan(_) | Dialect::Replay(_) | Dialect::None => {
            (Take::First, Cursor::Oldest)
        }
    };
    let subscription = Subscription { channel: name(), cursor };
    match hub.poll(&[subscription], take, true, NOW) {
        Ok(PollOutcome::Answer(answer)) => answer,
        _ => unreachable!("the channel has messages"),
    }
}

fn render(criterion: &mut Criterion) {
    for dialect in dialects() {
        let mut group = criterion.benchmark_group(format!("render/{}", dialect.name()));
        let fresh = answer(&dialect, 1);
        group.bench_function("anew", |bencher| {
            bencher.iter_batched(
                || {
                    let mut answer = fresh.clone();
                    answer.iter_mut().for_each(|heard| heard.found.renders = None);
                    answer
                },
                |answer| black_box(dialect.render(&answer, None)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("shared", |bencher| {
            bencher.iter(|| black_box(dialect.render(&fresh, None)));
        });
        let many = answer(&dialect, 100);
        group.bench_function("a channel of 100", |bencher| {
            bencher.iter(|| black_box(dialect.render(&many, None)));
        });
        group.finish();
    }
}

fn parse(criterion: &mut Criterion) {
    let queries = ["cursor=1xkfj3-42", "subscribed%5Bnews%5D=1700000000.5", "timestamp=1700000000"];
    let hub = Hub::new(Settings::default(), 1);
    let headers = http::HeaderMap::new();
    for (dialect, text) in dialects().iter().zip(queries) {
        criterion.bench_function(&format!("parse/{}", dialect.name()), |bencher| {
            bencher.iter(|| {
                let query = Query::parse(text);
                let rest = Some(NAME);
                let transport = pollgate::protocol::dialect::stream::Transport::Poll;
                let stars = rest.as_slice();
                let site = &SiteName::NONE;
                let form = None;
                let headers = &headers;
                let query = &query;
                let request = Request { stars, query, form, headers, transport, site };
                let parsed = dialect.parse(&request, &|name| hub.tick(name));
                assert!(matches!(parsed, Parsed::Poll(_)));
                parsed
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    render(&mut criterion);
    parse(&mut criterion);
    criterion.final_summary();
}
