//! The Mercure hub (`docs/dialects/mercure.md`): publishing, matching, tokens, history.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod mercure {
    pub(crate) mod hub;
}
mod support;

use mercure::hub::{
    PATH, PUBLISHERS, SUBSCRIBERS, config, form, now, post, publish, publisher, subscribe,
    subscriber, target, token,
};
use serde_json::json;
use support::{Client, Event, Events, FORM, Gate, Way, eventually};

/// One publish: the headers and the query of its token, its form, and the answer to it.
struct Publish<'a> {
    name: &'a str,
    headers: Vec<(&'a str, String)>,
    query: String,
    body: String,
    status: u16,
    says: &'a str,
}

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("Authorization", format!("Bearer {token}"))]
}

fn publish_cases() -> Vec<Publish<'static>> {
    let any = publisher(&["*"]);
    let one = || form(&[("topic", "/a"), ("data", "x"), ("id", "own")]);
    let case = |name, headers, status, says| Publish {
        name,
        headers,
        query: String::new(),
        body: one(),
        status,
        says,
    };
    let with =
        |body: String, status, says| Publish { body, ..case("form", bearer(&any), status, says) };
    let claims = |claims| bearer(&token(PUBLISHERS, &claims));
    let cookie = |more: &[(&'static str, &str)]| {
        let cookie = [("Cookie", format!("a=b; mercureAuthorization={any}"))].into_iter();
        cookie
            .chain(more.iter().map(|(name, value)| (*name, (*value).to_owned())))
            .collect::<Vec<_>>()
    };
    let unsigned = {
        let signed = publisher(&["*"]);
        let claims = signed.split('.').nth(1).unwrap();
        format!("eyJhbGciOiJub25lIn0.{claims}.")
    };
    let many = |count| (0..count).map(|n| format!("topic=/{n}")).collect::<Vec<_>>().join("&");
    let query = |query: String, status| Publish { query, ..case("query", vec![], status, "") };
    vec![
        case("no token", vec![], 401, ""),
        case(
            "another key",
            bearer(&token(SUBSCRIBERS, &json!({"mercure": {"publish": ["*"]}}))),
            401,
            "",
        ),
        case("no bearer", vec![("Authorization", "Basic YTpi".repeat(6))], 401, ""),
        case("short", bearer("short"), 401, ""),
        case("no signature", bearer(&unsigned), 401, ""),
        case("two headers", [bearer(&any), bearer(&any)].concat(), 401, ""),
        case("no claim", claims(json!({})), 401, ""),
        case("a subscriber", claims(json!({"mercure": {"subscribe": ["*"]}})), 401, ""),
        case("no topics", claims(json!({"mercure": {"publish": []}})), 401, ""),
        case("a broken claim", claims(json!({"mercure": {"publish": "*"}})), 401, ""),
        case("expired", claims(json!({"mercure": {"publish": ["*"]}, "exp": now() - 1})), 401, ""),
        case(
            "too early",
            claims(json!({"mercure": {"publish": ["*"]}, "nbf": now() + 60})),
            401,
            "",
        ),
        case("another topic", bearer(&publisher(&["/b", "/a/{x}"])), 401, ""),
        case("all", bearer(&any), 200, "own"),
        case("its topic", bearer(&publisher(&["/a"])), 200, "own"),
        case("its template", bearer(&publisher(&["/{x}"])), 200, "own"),
        case(
            "with a namespace",
            claims(json!({"https://mercure.rocks/": {"publish": ["/a"]}})),
            200,
            "own",
        ),
        case(
            "in time",
            claims(json!({"mercure": {"publish": ["*"]}, "exp": now() + 60})),
            200,
            "own",
        ),
        case("lower case", vec![("authorization", format!("bearer {any}"))], 200, "own"),
        query(format!("?authorization={any}"), 200),
        query(format!("?authorization={any}&authorization={any}"), 401),
        query("?authorization=short".to_owned(), 401),
        case("a cookie alone", cookie(&[]), 401, ""),
        case("of elsewhere", cookie(&[("Origin", "https://evil.example")]), 401, ""),
        case(
            "of no origin",
            cookie(&[("Origin", "null"), ("Referer", "https://a.example/")]),
            401,
            "",
        ),
        case("of the site", cookie(&[("Origin", "https://a.example")]), 200, "own"),
        case("of a page", cookie(&[("Referer", "https://a.example/x?y")]), 200, "own"),
        case("of a part", cookie(&[("Origin", "https://b.wild.example")]), 200, "own"),
        with("data=x".to_owned(), 400, "Missing \"topic\" parameter."),
        with(String::new(), 400, "Missing"),
        with("topic=".to_owned(), 400, ""),
        with("topic=%2Fa&id=1%0D%0Adata%3A%20forged".to_owned(), 400, ""),
        with("topic=%2Fa&type=1%0Adata%3A%20forged".to_owned(), 400, ""),
        with("topic=%2Fa&id=%00".to_owned(), 400, ""),
        with("topic=%2Fa&retry=soon".to_owned(), 400, ""),
        with(form(&[("topic", "https://a.example/.well-known/mercure/subscriptions/x")]), 403, ""),
        with(format!("topic=/{}", "x".repeat(2048)), 400, ""),
        with(many(1000), 200, "urn:uuid:"),
        with(many(1001), 400, ""),
        with(
            form(&[("topic", "/a"), ("id", "id-[\"https://example.net/foo/é\"]")]),
            200,
            "id-[\"https://example.net/foo/é\"]",
        ),
        with(form(&[("topic", "/a"), ("data", &"x".repeat(40_000)), ("id", "big")]), 413, ""),
        Publish {
            headers: [bearer(&any), vec![("Content-Type", "application/json".to_owned())]].concat(),
            ..with(r#"{"topic":"/a"}"#.to_owned(), 400, "Missing")
        },
        Publish {
            headers: [bearer(&any), vec![("Content-Type", "text/plain".to_owned())]].concat(),
            ..with(one(), 400, "Missing")
        },
    ]
}

#[tokio::test]
async fn publishes_are_answered_as_the_deployed_hub_answers_them() {
    let origins = "publish_origins = [\"https://a.example\", \"https://*.wild.example\"]";
    let gate = Gate::start_alone(&format!(
        "{}[history]\nmax_message = \"32KiB\"\nmessages = 1000\n",
        config(origins)
    ))
    .await;
    let mut taken = 0;
    for Publish { name, headers, query, body, status, says } in publish_cases() {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let response = post(&gate, &query, &headers, &body).await;
        assert_eq!(response.status, status, "{name} {query} {body:.80}: {}", response.text());
        assert!(response.text().starts_with(says), "{name} {body:.80}: {}", response.text());
        assert_eq!(response.header("www-authenticate").is_some(), status == 401, "{name}");
        taken += u64::from(status == 200);
    }
    assert_eq!(gate.channel("mercure").await["kept"], taken, "what was refused is not there");
}

/// One subscriber and one update: what it asks for and may have, the update's topics, whether it is
/// private, and whether the subscriber gets it.
type Match<'a> = (&'a [&'a str], Option<&'a [&'a str]>, &'a [&'a str], bool, bool);

const MATCHES: &[Match<'_>] = &[
    (&["https://a.example/books/1"], None, &["https://a.example/books/1"], false, true),
    (&["https://a.example/books/1"], None, &["https://a.example/books/10"], false, false),
    (&["https://a.example/Books/1"], None, &["https://a.example/books/1"], false, false),
    (&["*"], None, &["anything at all"], false, true),
    (&["/a", "/b"], None, &["/b"], false, true),
    (&["/b"], None, &["/a", "/b"], false, true),
    (&["/books/{id}"], None, &["/books/1"], false, true),
    (&["/books/{id}"], None, &["/books/1/pages"], false, false),
    (&["/books/{id}"], None, &["/books/a%20b"], false, true),
    (&["/books/{id}"], None, &["/books/{id}"], false, true),
    (&["/books/{+rest}"], None, &["/books/1/pages?x=1#y"], false, true),
    (&["/books{/id,page}"], None, &["/books/1/2"], false, true),
    (&["/books{/id,page}"], None, &["/books/1/2/3"], false, false),
    (&["/books{/id*}"], None, &["/books/1/2/3"], false, true),
    (&["/books{?page,size}"], None, &["/books?page=1&size=2"], false, true),
    (&["/books{?page}"], None, &["/books"], false, true),
    (&["/books{.kind}"], None, &["/books.json"], false, true),
    (&["/books{#part}"], None, &["/books#top/x"], false, true),
    (&["/books;{a"], None, &["/books;1"], false, false),
    (&["/books;{a"], None, &["/books;{a"], false, true),
    (&["/a"], None, &["/a"], true, false),
    (&["/a"], Some(&[]), &["/a"], true, false),
    (&["/a"], Some(&["/b"]), &["/a"], true, false),
    (&["/a"], Some(&["/a"]), &["/a"], true, true),
    (&["/a"], Some(&["*"]), &["/a"], true, true),
    (&["/a/1"], Some(&["/a/{x}"]), &["/a/1"], true, true),
    (&["/a"], Some(&["/b"]), &["/a", "/b"], true, true),
    (&["/b"], Some(&["*"]), &["/a"], true, false),
    (&["*"], Some(&["/users/7{/x}"]), &["/users/7/inbox"], true, true),
    (&["*"], Some(&["/users/7{/x}"]), &["/users/8/inbox"], true, false),
    (&["/a"], Some(&[]), &["/a"], false, true),
];

#[tokio::test]
async fn subscribers_get_what_their_topics_and_tokens_select() {
    let gate = Gate::start_alone(&config("")).await;
    for (number, (wanted, granted, topics, private, gets)) in MATCHES.iter().enumerate() {
        let way = Way::ALL[number % Way::ALL.len()];
        let bearer = granted.map(|topics| format!("Bearer {}", subscriber(topics)));
        let headers: Vec<_> =
            bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
        let wanted = [wanted, &["the-end"][..]].concat();
        let mut events = subscribe(&gate, way, &target(&wanted, &[]), &headers).await;
        let mut fields: Vec<_> = topics.iter().map(|topic| ("topic", *topic)).collect();
        fields.extend([("id", "it")].iter().chain(private.then_some(&("private", "on"))));
        publish(&gate, &fields).await;
        publish(&gate, &[("topic", "the-end"), ("id", "end")]).await;
        let first = events.next().await;
        assert_eq!(first.id(), if *gets { "it" } else { "end" }, "{:?}", MATCHES[number]);
    }
}

#[tokio::test]
async fn subscriptions_are_refused_as_the_deployed_hub_refuses_them() {
    let anonymous = Gate::start_alone(&config("")).await;
    let closed = Gate::start_alone(&config("").replace("anonymous = true", "")).await;
    let good = subscriber(&[]);
    let expired = token(SUBSCRIBERS, &json!({ "exp": now() - 1 }));
    let a = target(&["/a"], &[]);
    let many = target(&["/a"; 101], &[]);
    let template = format!("/{}{{x}}", "x".repeat(2000));
    let templates = target(&[&*template; 3], &[]);
    for way in Way::ALL {
        for (gate, target, headers, status) in [
            (&anonymous, PATH.to_owned(), vec![], 400),
            (&anonymous, format!("{PATH}?topic="), vec![], 400),
            (&anonymous, format!("{PATH}?topic=a%0Ab"), vec![], 400),
            (&anonymous, many.clone(), vec![], 400),
            (&anonymous, templates.clone(), vec![], 400),
            (&closed, a.clone(), vec![], 401),
            (&closed, a.clone(), vec![("Authorization", publisher(&["*"]))], 401),
            (&anonymous, a.clone(), vec![("Authorization", publisher(&["*"]))], 401),
            (&anonymous, a.clone(), vec![("Authorization", expired.clone())], 401),
            (&closed, format!("{a}&authorization={good}&authorization={good}"), vec![], 401),
            (&closed, format!("{a}&authorization={good}"), vec![], 200),
            (&closed, a.clone(), vec![("Authorization", good.clone())], 200),
            (&closed, a.clone(), vec![("Cookie", format!("mercureAuthorization={good}"))], 200),
        ] {
            let value = |(name, value): &(&'static str, String)| match *name {
                "Authorization" => (*name, format!("Bearer {value}")),
                name => (name, value.clone()),
            };
            let headers: Vec<_> = headers.iter().map(value).collect();
            let headers: Vec<_> = headers.iter().map(|(name, it)| (*name, it.as_str())).collect();
            // HEAD has the same answer, and is never held.
            let response = way.connect(gate).await.poll_with("HEAD", &target, &headers).await;
            assert_eq!(response.status, status, "{way:?} {target:.200} {headers:?}");
            let mut poller = way.connect(gate).await;
            if status != 200 {
                let response = poller.poll_with("GET", &target, &headers).await;
                assert_eq!(response.status, status, "{way:?} {target:.200} {headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_event_is_the_publisher_s_in_every_way() {
    let gate = Gate::start_alone(&config("")).await;
    for way in Way::ALL {
        let mut events = subscribe(&gate, way, &target(&["/a"], &[]), &[]).await;
        let head = &events.head;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        assert_eq!(head.header("last-event-id"), None, "nothing was asked for");
        assert_eq!(events.line().await.unwrap(), ":", "the first bytes are a comment");
        let id = "id-[\"https://example.net/foo/\"]";
        let data = "one\r\ntwo\n\nthree\r";
        let fields =
            [("topic", "/a"), ("data", data), ("id", id), ("type", "news"), ("retry", "2500")];
        publish(&gate, &fields).await;
        let mut lines = Vec::new();
        for _ in 0..9 {
            lines.push(events.line().await.unwrap());
        }
        let expected = [
            "event: news",
            "retry: 2500",
            &format!("id: {id}"),
            "data: one",
            "data: two",
            "data: ",
            "data: three",
            "data: ",
            "",
        ];
        assert_eq!(lines, expected);
        let made = publish(&gate, &[("topic", "/a")]).await;
        let event = events.next().await;
        assert_eq!((event.id(), &*event.data, &*event.event), (&*made, "", ""));
        assert!(made.starts_with("urn:uuid:") && made.as_bytes()[23] == b'7', "{made}");
    }
}

async fn ids(events: &mut Events, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(events.next().await.id().to_owned());
    }
    ids
}

#[tokio::test]
async fn a_subscriber_goes_on_after_the_event_it_names() {
    let gate = Gate::start_alone(&config("")).await;
    for (id, topic) in
        [("1", "/a"), ("2", "/b"), ("3", "/a"), ("twice", "/a"), ("5", "/a"), ("twice", "/a")]
    {
        publish(&gate, &[("topic", topic), ("id", id)]).await;
    }
    let all = &["1", "3", "twice", "5", "twice"][..];
    for way in Way::ALL {
        for (query, header, answer, expected) in [
            (&[("lastEventID", "1")][..], None, "1", &all[1..]),
            (&[], Some("3"), "3", &all[2..]),
            // An update for others is as good as one of its own.
            (&[], Some("2"), "2", &all[1..]),
            (&[("lastEventID", "1")], Some("3"), "3", &all[2..]),
            (&[("Last-Event-ID", "3")], None, "3", &all[2..]),
            (&[("lastEventId", "3")], None, "3", &all[2..]),
            (&[("lastEventID", "earliest")], None, "earliest", all),
            (&[("lastEventID", "unknown")], None, "earliest", all),
            // Better twice than missing.
            (&[], Some("twice"), "twice", &all[3..]),
        ] {
            let headers: Vec<_> = header.map(|id| ("Last-Event-ID", id)).into_iter().collect();
            let mut events = subscribe(&gate, way, &target(&["/a"], query), &headers).await;
            assert_eq!(events.head.header("last-event-id"), Some(answer), "{query:?} {header:?}");
            assert_eq!(ids(&mut events, expected.len()).await, expected, "{query:?} {header:?}");
        }
        // The newest one: nothing waits, and the next one comes.
        let newest = publish(&gate, &[("topic", "/c")]).await;
        let after = target(&["/c"], &[("lastEventID", &newest)]);
        let mut events = subscribe(&gate, way, &after, &[]).await;
        let id = publish(&gate, &[("topic", "/c")]).await;
        assert_eq!(events.next().await.id(), id);
    }
}

#[tokio::test]
async fn a_subscriber_that_missed_updates_learns_it_from_the_next_head() {
    let gate = Gate::start_alone(&format!(
        "{}[[channel]]\nmatch = \"mercure\"\nmessages = 3\n",
        config("")
    ))
    .await;
    let topic = target(&["/a"], &[]);
    let mut events = subscribe(&gate, Way::Plain, &topic, &[]).await;
    publish(&gate, &[("topic", "/a"), ("id", "1")]).await;
    assert_eq!(events.next().await.id(), "1");
    // The hub begins anew: its stream ends, and the id it comes back with is not known.
    gate.forget("mercure").await;
    events.end().await;
    for id in ["2", "3", "4", "5"] {
        publish(&gate, &[("topic", "/a"), ("id", id)]).await;
    }
    let mut again = subscribe(&gate, Way::Plain, &topic, &[("Last-Event-ID", "1")]).await;
    assert_eq!(again.head.header("last-event-id"), Some("earliest"));
    assert_eq!(ids(&mut again, 3).await, ["3", "4", "5"]);
    // Many updates for others push what it had out of the history, and it has missed nothing.
    for _ in 0..10 {
        publish(&gate, &[("topic", "/b")]).await;
    }
    publish(&gate, &[("topic", "/a"), ("id", "6")]).await;
    assert_eq!(again.next().await.id(), "6");
}

#[tokio::test]
async fn the_history_outlives_a_restart_with_its_ids() {
    let folder = support::TempDir::new("mercure");
    let snapshot = folder.path().join("history");
    let config = format!("{}[history]\nsnapshot = \"{}\"\n", config(""), snapshot.display());
    let gate = Gate::start_alone(&config).await;
    for id in ["1", "2"] {
        publish(&gate, &[("topic", "/a"), ("id", id)]).await;
    }
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0);
    let gate = Gate::start_alone(&config).await;
    let mut events =
        subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[("Last-Event-ID", "1")]).await;
    assert_eq!(events.head.header("last-event-id"), Some("1"));
    assert_eq!(events.next().await.id(), "2");
}

#[tokio::test]
async fn many_large_updates_come_whole_and_in_order() {
    let gate = Gate::start_alone(&config("")).await;
    let data = "x".repeat(30_000);
    for number in 0..12 {
        publish(&gate, &[("topic", "/a"), ("id", &number.to_string()), ("data", &data)]).await;
    }
    for way in Way::ALL {
        let mut events =
            subscribe(&gate, way, &target(&["/a"], &[("lastEventID", "earliest")]), &[]).await;
        for number in 0..12 {
            let event = events.next().await;
            assert_eq!((event.id(), event.data.len()), (&*number.to_string(), data.len()));
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_or_when_that_is_revoked() {
    let gate = Gate::start_alone(&config("")).await;
    for way in Way::ALL {
        let short = token(SUBSCRIBERS, &json!({ "exp": now() + 2 }));
        let topic = format!("{}&authorization={short}", target(&["/a"], &[]));
        let mut events = subscribe(&gate, way, &topic, &[]).await;
        events.end().await;
        assert_eq!(way.connect(&gate).await.poll(&topic).await.status, 401);
        let long = subscriber(&["/a"]);
        let topic = format!("{}&authorization={long}", target(&["/a"], &[]));
        let mut events = subscribe(&gate, way, &topic, &[]).await;
        let revoked = gate.hook("DELETE", &format!("/grants?credential={long}"), &[], "").await;
        assert_eq!(revoked.json()["revoked"], 1);
        events.end().await;
    }
}

#[tokio::test]
async fn a_drain_ends_streams_with_a_time_to_come_back() {
    let gate = Gate::start_alone(&config("[drain]\nspread = \"0s\"\n")).await;
    let mut events = subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
    gate.wait_for_held(1).await;
    gate.signal("TERM");
    let mut lines = Vec::new();
    while let Some(line) = events.line().await {
        lines.push(line);
    }
    // No empty line, which some clients take for an event.
    assert_eq!(lines, [":", "retry: 500"]);
}

#[tokio::test]
async fn the_hub_s_channel_is_no_poll_s() {
    let rules = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                 [[poll]]\npath = \"/old.php\"\ndialect = \"novcomet\"\nbrowser_publish = true\n\
                 [[poll]]\npath = \"/file.php\"\ndialect = \"timestamp\"\nchannel = \"{query.room}\"\n";
    let gate = Gate::start_alone(&format!("{}{rules}", config(""))).await;
    publish(&gate, &[("topic", "/a"), ("private", "on"), ("data", "a secret")]).await;
    for target in [
        "/comet/mercure?cursor=oldest",
        "/comet/news,mercure?cursor=oldest",
        "/old.php?subscribed[mercure]=1",
        "/old.php?publish=mercure",
        "/file.php?room=mercure&timestamp=1",
    ] {
        for way in Way::ALL {
            let response = way.connect(&gate).await.poll(target).await;
            assert_eq!(response.status, 404, "{target}: {}", response.text());
        }
    }
    assert_eq!(gate.channel("mercure").await["kept"], 1);
    // What the site itself puts there is no update, and harms none.
    let mut events = subscribe(&gate, Way::Plain, &target(&["*"], &[]), &[]).await;
    gate.publish("mercure", "-forged\n*\n\nid: forged\ndata: x\n\n").await;
    let id = publish(&gate, &[("topic", "/a")]).await;
    assert_eq!(events.next().await.id(), id);
}

#[tokio::test]
async fn the_internal_listener_takes_updates_with_either_token() {
    let plain = Gate::start_alone(&config("")).await;
    let guarded =
        Gate::with(&format!("{}[publish]\ntoken = \"secret\"\n", config(""))).alone().start().await;
    let body = form(&[("topic", "/a"), ("id", "own")]);
    let jwt = format!("Bearer {}", publisher(&["/a"]));
    let other = format!("Bearer {}", publisher(&["/b"]));
    for (gate, headers, status) in [
        (&plain, vec![], 401),
        (&plain, vec![("Authorization", &*jwt)], 200),
        (&plain, vec![("Authorization", &*other)], 401),
        (&plain, vec![("Authorization", "Bearer secret")], 401),
        (&guarded, vec![], 401),
        (&guarded, vec![("Authorization", "Bearer wrong")], 401),
        (&guarded, vec![("Authorization", "Bearer secret")], 200),
        (&guarded, vec![("Authorization", &*jwt)], 200),
        // A page in a browser is never the site.
        (&guarded, vec![("Authorization", &*jwt), ("Origin", "https://a.example")], 403),
    ] {
        let mut events = subscribe(gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
        let headers = [&[("Content-Type", FORM)][..], &headers].concat();
        let mut client = Client::connect(gate.internal()).await;
        let response = client.request("POST", PATH, &headers, body.as_bytes()).await;
        assert_eq!(response.status, status, "{headers:?}: {}", response.text());
        if status == 200 {
            assert_eq!((response.text(), events.next().await.id()), ("own".to_owned(), "own"));
        }
    }
    // A subscriber belongs to the public listener.
    assert_eq!(plain.hook("GET", &target(&["/a"], &[]), &[], "").await.status, 405);
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_the_hub() {
    let gate =
        Gate::start_alone(&config("cors_origins = [\"https://a.example\"]\nsubscriptions = true"))
            .await;
    let page = |origin| [("Origin", origin)];
    let a = target(&["/a"], &[]);
    for way in Way::ALL {
        for (method, target, status) in
            [("GET", PATH, 400), ("HEAD", &*a, 200), ("OPTIONS", PATH, 204)]
        {
            let own = way
                .connect(&gate)
                .await
                .poll_with(method, target, &page("https://a.example"))
                .await;
            assert_eq!(own.status, status);
            assert_eq!(
                own.header("access-control-allow-origin"),
                Some("https://a.example"),
                "{method}"
            );
            assert_eq!(own.header("access-control-allow-credentials"), Some("true"));
            assert_eq!(own.header("vary"), Some("Origin"));
            let other = way
                .connect(&gate)
                .await
                .poll_with(method, target, &page("https://b.example"))
                .await;
            assert_eq!((other.status, other.header("access-control-allow-origin")), (status, None));
        }
        let preflight =
            way.connect(&gate).await.poll_with("OPTIONS", PATH, &page("https://a.example")).await;
        let allowed = preflight.header("access-control-allow-headers").unwrap();
        for name in ["authorization", "cache-control", "last-event-id"] {
            assert!(allowed.contains(name), "{allowed}");
        }
        let events = subscribe(&gate, way, &a, &page("https://a.example")).await;
        assert_eq!(events.head.header("access-control-allow-origin"), Some("https://a.example"));
    }
    let wrong = gate.connect().await.request("PUT", PATH, &page("https://a.example"), b"").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
    assert_eq!(wrong.header("access-control-allow-origin"), Some("https://a.example"));
    let refused = post(&gate, "", &page("https://a.example"), "").await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://a.example"));
}

#[tokio::test]
async fn subscribers_are_listed_and_their_coming_and_going_is_an_update() {
    let gate = Gate::start_alone(&config("subscriptions = true")).await;
    let api = format!("{PATH}/subscriptions");
    let watcher = format!(
        "Bearer {}",
        subscriber(&[&format!("{api}{{/topic}}{{/subscriber}}"), &format!("{api}{{/topic}}")])
    );
    let watcher = [("Authorization", watcher.as_str())];
    let all = format!("{api}{{/topic,subscriber}}");
    let mut seen = subscribe(&gate, Way::Plain, &target(&[&all], &[]), &watcher).await;
    // Its own subscription comes first.
    assert_eq!(seen.next().await.json()["topic"], all);
    let member = token(SUBSCRIBERS, &json!({"mercure": {"payload": {"name": "ann"}}}));
    let member = [("Authorization", &*format!("Bearer {member}"))];
    let events = subscribe(&gate, Way::Plain, &target(&["/é/b", "/c"], &[]), &member).await;
    let first = seen.next().await;
    let came = first.json();
    assert_eq!(came["type"], "Subscription");
    assert_eq!(
        (&came["topic"], &came["active"], &came["payload"]["name"]),
        (&json!("/é/b"), &json!(true), &json!("ann"))
    );
    let id = came["id"].as_str().unwrap();
    assert!(id.starts_with(&format!("{api}/%2F%C3%A9%2Fb/urn%3Auuid%3A")), "{id}");
    assert_eq!(first.id(), id);
    assert_eq!(seen.next().await.json()["topic"], "/c");
    // The list, those of a topic, and the one.
    let mut client = gate.connect().await;
    let list = client.request("GET", &api, &watcher, b"").await;
    assert_eq!(list.header("content-type"), Some("application/ld+json"));
    let body = list.json();
    assert_eq!((&body["id"], &body["type"]), (&json!(api), &json!("Subscriptions")));
    assert_eq!(body["subscriptions"].as_array().unwrap().len(), 3);
    let newest = body["lastEventID"].as_str().unwrap();
    assert_eq!(list.header("etag"), Some(newest));
    let known = client.request("GET", &api, &[watcher[0], ("If-None-Match", newest)], b"").await;
    assert_eq!(known.status, 304);
    let of_topic =
        client.request("GET", &format!("{api}/%2F%C3%A9%2Fb"), &watcher, b"").await.json();
    assert_eq!(of_topic["subscriptions"].as_array().unwrap().len(), 1);
    assert_eq!(of_topic["subscriptions"][0]["payload"]["name"], "ann");
    let one = client.request("GET", id, &watcher, b"").await;
    assert_eq!((one.status, &one.json()["id"]), (200, &json!(id)));
    assert_eq!(one.json()["lastEventID"], newest);
    let none = client.request("GET", &format!("{api}/%2F%C3%A9%2Fb/urn%3Ax"), &watcher, b"").await;
    assert_eq!(none.status, 404);
    // Only for tokens that name the very path.
    for (path, headers) in [
        (&*api, vec![]),
        (&api, vec![("Authorization", format!("Bearer {}", subscriber(&["/é/b"])))]),
        (id, vec![("Authorization", format!("Bearer {}", subscriber(&[&api])))]),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(client.request("GET", path, &headers, b"").await.status, 401, "{path}");
    }
    drop(events);
    let gone = seen.next().await.json();
    assert_eq!((&gone["id"], &gone["active"]), (&json!(id), &json!(false)));
    let list = client.request("GET", &api, &watcher, b"").await.json();
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_the_option_the_subscriptions_are_the_site_s() {
    let gate = Gate::start_alone(&config("")).await;
    let response = gate.get(&format!("{PATH}/subscriptions")).await;
    assert_eq!(response.status, 502, "it is forwarded, and there is no site");
}

#[tokio::test]
async fn public_updates_are_mirrored_on_the_channels_that_their_topics_name() {
    let gate = Gate::start_alone(&config("mirror = true")).await;
    publish(&gate, &[("topic", "news"), ("topic", "sport"), ("data", "hello")]).await;
    publish(&gate, &[("topic", "news"), ("data", "a secret"), ("private", "on")]).await;
    publish(&gate, &[("topic", "mercure"), ("data", "x")]).await;
    for channel in ["news", "sport"] {
        let poll = gate.get(&format!("/comet/{channel}?cursor=oldest")).await.json();
        let messages: Vec<_> =
            poll["messages"].as_array().unwrap().iter().map(|it| &it["data"]).collect();
        assert_eq!(messages, [&json!("hello")], "{channel}");
    }
    assert_eq!(gate.channel("mercure").await["kept"], 3);
    let plain = Gate::start_alone(&config("")).await;
    publish(&plain, &[("topic", "news"), ("data", "hello")]).await;
    assert!(plain.channel("news").await["error"].is_string());
}

#[tokio::test]
async fn a_subscriber_that_finds_no_room_comes_back() {
    let gate = Gate::start_alone(&format!("{}[hold]\nmax = 1\n", config(""))).await;
    for way in Way::ALL {
        let held = subscribe(&gate, way, &target(&["/a"], &[]), &[]).await;
        gate.wait_for_held(1).await;
        let busy = way.connect(&gate).await.poll(&target(&["/a"], &[])).await;
        let text = busy.text();
        let retry = text.strip_prefix("retry: ").and_then(|rest| rest.lines().next()?.parse().ok());
        assert_eq!((busy.status, busy.header("content-type")), (200, Some("text/event-stream")));
        assert!(retry.is_some_and(|retry: u32| (5_000..15_000).contains(&retry)), "{text}");
        drop(held);
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn bodies_of_publishers_are_bounded_before_they_are_read() {
    let gate =
        Gate::start_alone(&format!("{}[limits]\nbody_memory = \"64KiB\"\n", config(""))).await;
    let any = format!("Bearer {}", publisher(&["*"]));
    // Without a token nothing of a long body is read.
    let mut client = gate.connect().await;
    client
        .send_raw(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"))
        .await;
    assert_eq!(client.read_response().await.status, 401);
    // A body that is declared too long.
    let mut client = gate.connect().await;
    client.send_raw(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: {any}\r\nContent-Length: 100000000\r\n\r\n")).await;
    assert_eq!(client.read_response().await.status, 413);
    // One that is longer than the memory for all bodies.
    let long = form(&[("topic", "/a"), ("data", &"x".repeat(40_000))]);
    assert_eq!(post(&gate, "", &[("Authorization", &any)], &long).await.status, 503);
    let short = form(&[("topic", "/a"), ("id", "1")]);
    assert_eq!(post(&gate, "", &[("Authorization", &any)], &short).await.status, 200);
    let metrics = gate.hook("GET", "/metrics", &[], b"").await.text();
    assert!(metrics.contains("pollgate_publishes_total{by=\"mercure\"} 1"), "{metrics}");
}

#[tokio::test]
async fn publishers_are_served_over_http2_and_with_chunks() {
    let gate = Gate::start_alone(&config("")).await;
    let any = publisher(&["*"]);
    let mut events = subscribe(&gate, Way::Http2, &target(&["/a"], &[]), &[]).await;
    let mut poller = Way::Http2.connect(&gate).await;
    let target = format!("{PATH}?authorization={any}");
    poller.http2().send("POST", &target, &[("content-type", FORM)], b"topic=/a&id=1").await;
    assert_eq!(poller.answer().await.text(), "1");
    let mut client = gate.connect().await;
    client.send_raw(format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n\
         7\r\ntopic=/\r\n6\r\na&id=2\r\n0\r\n\r\n"
    )).await;
    assert_eq!(client.read_response().await.text(), "2");
    // The connection goes on.
    assert_eq!(client.get(PATH).await.status, 400);
    assert_eq!(ids(&mut events, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn deliveries_are_counted_where_they_are_made() {
    let gate = Gate::start_alone(&config("")).await;
    let mut a = subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
    let _b = subscribe(&gate, Way::Plain, &target(&["/b"], &[]), &[]).await;
    gate.wait_for_held(2).await;
    publish(&gate, &[("topic", "/a"), ("id", "1")]).await;
    assert_eq!(a.next().await.id(), "1");
    let metrics = async || gate.hook("GET", "/metrics", &[], b"").await.text();
    eventually("one delivery", async || metrics().await.contains("pollgate_deliveries_total 1"))
        .await;
    assert!(metrics().await.contains("pollgate_streams{transport=\"sse\"} 2"));
}

#[tokio::test]
async fn a_heartbeat_comes_also_while_updates_for_others_do() {
    let gate = Gate::start_alone(&format!("{}[stream]\nheartbeat = \"300ms\"\n", config(""))).await;
    let mut events = subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
    let others = async {
        loop {
            publish(&gate, &[("topic", "/b")]).await;
        }
    };
    let beats = async {
        for _ in 0..4 {
            assert_eq!(events.line().await.unwrap(), ":");
        }
    };
    tokio::select! {
        () = beats => {}
        () = others => {}
    }
}

#[tokio::test]
async fn a_hub_that_nobody_could_use_does_not_start() {
    for (config, says) in [
        ("[mercure]\npublisher_key = \"some key\"\n", "mercure.subscriber_key: missing"),
        ("[mercure]\nanonymous = true\n", "mercure.publisher_key: missing"),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"\"\n",
            "mercure.publisher_key: must not be empty",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\nalgorithms = [\"none\"]\n",
            "mercure.algorithms[0]",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\nalgorithms = [\"RS256\"]\n",
            "mercure.algorithms: RS256 needs another key",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\npath = \"mercure\"\n",
            "mercure.path: \"mercure\" is no path",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\npublish_origins = [\"a.example\"]\n",
            "mercure.publish_origins[0]",
        ),
        ("[mercure]\nanonymous = true\npublisher_key = \"x\"\ntopics = 1\n", "mercure.topics"),
    ] {
        let finished = Gate::with(config).alone().run_to_exit().await;
        assert_eq!(finished.code, 2, "{config}");
        assert!(finished.stderr.contains(says), "{config}: {}", finished.stderr);
    }
    let sample =
        "[mercure]\nanonymous = true\npublisher_key = \"!ChangeThisMercureHubJWTSecretKey!\"\n";
    let gate = Gate::start_alone(sample).await;
    gate.wait_for_log("everybody knows").await;
}

#[tokio::test]
async fn a_reload_changes_the_hub() {
    let gate = Gate::start_alone(&config("")).await;
    publish(&gate, &[("topic", "/a"), ("id", "1")]).await;
    gate.reconfigure(&config("path = \"/hub\"")).await;
    assert_eq!(post(&gate, "", &[], "").await.status, 502, "the path is the site's again");
    let mut events = Events::open(Way::Plain, &gate, "/hub?topic=/a&lastEventID=earliest").await;
    assert_eq!(events.next().await, Event { id: Some("1".to_owned()), ..Event::default() });
}
