//! What a Pusher app's site and its clients learn beside events: webhooks of all kinds, the numbers
//! of subscriptions, and watchlists. Pusher's own libraries and pusher-js read them.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::pusher::{APP, Echo, KEY, SECRET, Session, auth, data, sign, trigger};
use support::pusher_peers::{node, python};
use support::{Gate, PlainSite, eventually};

const ALL: &str = r#"webhook = "/hook"
webhook_events = ["member_added", "member_removed", "channel_occupied", "channel_vacated",
                  "client_event", "cache_miss", "subscription_count"]
subscription_count = true
client_events = true
"#;

/// The events of one kind that the site has got.
fn got(site: &PlainSite, name: &str) -> Vec<Value> {
    let requests = site.requests();
    let hooks = requests.iter().filter(|one| one.line() == "POST /hook");
    let bodies = hooks.map(|one| serde_json::from_slice::<Value>(&one.body).unwrap());
    let events = bodies.flat_map(|body| body["events"].as_array().unwrap().clone());
    events.filter(|event| event["name"] == name).collect()
}

/// The next frame that is not about the number of subscriptions.
async fn next(echo: &mut Echo) -> Value {
    loop {
        let frame = echo.next().await;
        if frame["event"] != "pusher_internal:subscription_count" {
            return frame;
        }
    }
}

/// The next number of subscriptions.
async fn count(echo: &mut Echo) -> Value {
    let frame = echo.next().await;
    assert_eq!(frame["event"], "pusher_internal:subscription_count", "{frame}");
    data(&frame)["subscription_count"].clone()
}

#[tokio::test]
async fn a_client_s_event_is_told_to_the_site_as_pusher_does() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &format!("{APP}{ALL}")).await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.subscribe("private-a").await;
    two.join("presence-b", "7").await;
    let send = |channel: &str, data: Value| json!({ "event": "client-x", "channel": channel, "data": data });
    one.send(&send("private-a", json!({ "text": "ä" }))).await;
    two.send(&send("presence-b", json!("as it \"is\""))).await;
    // Refused ones are not told.
    one.send(&send("presence-b", json!(1))).await;
    assert_eq!(next(&mut one).await["event"], "pusher:error");
    eventually("both", async || got(&site, "client_event").len() == 2).await;
    let mut events = got(&site, "client_event");
    events.sort_by_key(|event| event["channel"].to_string());
    let wanted = [
        json!({ "name": "client_event", "channel": "presence-b", "event": "client-x",
                "data": "as it \"is\"", "socket_id": two.id, "user_id": "7" }),
        json!({ "name": "client_event", "channel": "private-a", "event": "client-x",
                "data": "{\"text\":\"ä\"}", "socket_id": one.id }),
    ];
    assert_eq!(events, wanted);
}

#[tokio::test]
async fn a_miss_is_told_once_however_many_miss_it() {
    let site = PlainSite::start().await;
    let config = format!("{APP}webhook = \"/hook\"\nwebhook_events = [\"cache_miss\"]\n");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut echoes = Vec::new();
    for _ in 0..20 {
        let mut echo = Echo::connect(&gate).await;
        echo.subscribe("cache-a").await;
        assert_eq!(echo.next().await["event"], "pusher:cache_miss");
        echoes.push(echo);
    }
    let misses = async || got(&site, "cache_miss");
    eventually("a miss", async || !misses().await.is_empty()).await;
    let wanted = json!({ "name": "cache_miss", "channel": "cache-a" });
    assert!(misses().await.iter().all(|event| *event == wanted));
    // Once in a second.
    assert!(misses().await.len() < 20, "{:?}", misses().await);
    trigger(&gate, "cache-b", "n", "1", json!({})).await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("cache-b").await;
    assert_eq!(echo.next().await["event"], "n");
    echo.subscribe("cache-c").await;
    let told = async |channel: &str| misses().await.iter().any(|one| one["channel"] == channel);
    eventually("another miss", async || told("cache-c").await).await;
    assert!(!told("cache-b").await);
    assert!(got(&site, "channel_occupied").is_empty());
}

#[tokio::test]
async fn subscribers_are_told_how_many_they_are() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &format!("{APP}{ALL}")).await;
    let mut one = Echo::connect(&gate).await;
    one.subscribe("a").await;
    assert_eq!(count(&mut one).await, 1);
    let mut two = Echo::connect(&gate).await;
    two.subscribe("a").await;
    assert_eq!(count(&mut two).await, 2);
    assert_eq!(count(&mut one).await, 2);
    // A fallback is as good.
    let (mut three, _) = Session::open(&gate, "abcd1234").await;
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "a" } });
    assert_eq!(three.send(&gate, &[subscribe]).await.status, 204);
    let frames = three.frames().await;
    assert_eq!(data(&frames[1]), json!({ "subscription_count": 3 }), "{frames:?}");
    assert_eq!((count(&mut one).await, count(&mut two).await), (json!(3), json!(3)));
    drop(two);
    assert_eq!(count(&mut one).await, 2);
    assert_eq!(data(&three.frames().await[0]), json!({ "subscription_count": 2 }));
    one.unsubscribe("a").await;
    // Of presence channels they know the members, and of themselves all.
    one.join("presence-a", "7").await;
    one.sign_in("7").await;
    one.is_alive().await;
    let told = |number: usize| {
        let event =
            json!({ "name": "subscription_count", "channel": "a", "subscription_count": number });
        got(&site, "subscription_count").contains(&event)
    };
    eventually("the site's numbers", async || told(3) && told(2) && told(1)).await;
    assert!(got(&site, "subscription_count").iter().all(|event| event["channel"] == "a"));
}

#[tokio::test]
async fn pusher_s_libraries_verify_all_webhooks() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &format!("{APP}{ALL}")).await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("private-a").await;
    assert_eq!(count(&mut echo).await, 1);
    echo.subscribe("cache-a").await;
    let sent = json!({ "ä": "\u{2028}" });
    echo.send(&json!({ "event": "client-x", "channel": "private-a", "data": sent })).await;
    let names = ["channel_occupied", "client_event", "cache_miss", "subscription_count"];
    eventually("all", async || names.iter().all(|name| !got(&site, name).is_empty())).await;
    let hooks: Vec<Value> = site
        .requests()
        .iter()
        .filter(|one| one.line() == "POST /hook")
        .map(|one| {
            let header = |name: &str| one.header(name).unwrap().to_owned();
            json!({
                "type": header("content-type"),
                "key": header("x-pusher-key"),
                "signature": header("x-pusher-signature"),
                "body": String::from_utf8(one.body.clone()).unwrap(),
            })
        })
        .collect();
    let hooks = serde_json::to_string(&hooks).unwrap();
    let script = format!(
        "const Pusher = require('pusher');
         const pusher = new Pusher({{ appId: 'shop', key: '{KEY}', secret: '{SECRET}', cluster: '' }});
         const hooks = {hooks}.map(one => pusher.webhook({{ rawBody: one.body, headers: {{
             'content-type': one.type, 'x-pusher-key': one.key, 'x-pusher-signature': one.signature,
         }} }}));
         print([hooks.every(one => one.isValid()), hooks.every(one => one.getTime() > 0),
                [...new Set(hooks.flatMap(one => one.getEvents()).map(one => one.name))].sort()]);"
    );
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(node(&gate, &script).await, json!([true, true, sorted]));
    let script = format!(
        "import pusher
client = pusher.Pusher(app_id='42', key=key, secret=secret)
hooks = json.loads({})
told = [client.validate_webhook(one['key'], one['signature'], one['body']) for one in hooks]
forged = client.validate_webhook(key, hooks[0]['signature'], hooks[0]['body'] + ' ')
print(json.dumps([sorted({{event['name'] for one in told for event in one['events']}}), forged]))",
        // A string of JSON is one of Python, too.
        serde_json::to_string(&hooks).unwrap()
    );
    assert_eq!(python(&gate, &script).await, json!([sorted, null]));
}

#[tokio::test]
async fn pusher_js_sees_numbers_of_subscriptions_and_its_watchlist() {
    let config = format!("{APP}subscription_count = true\nwatchlists = true\n");
    let channel = "[[channel]]\nmatch = \"shop/*\"\npresence = true\nstream_grace = \"1s\"\n";
    for transport in ["ws", "xhr_streaming", "xhr_polling"] {
        let gate = Gate::start_alone(&format!("{channel}{config}")).await;
        let mut seven = Echo::connect(&gate).await;
        seven.sign_in("7").await;
        let script = format!(
            "const Pusher = require('pusher-js');
             const pusher = new Pusher('{KEY}', {{ ...options(['{transport}']),
                 userAuthentication: {{ customHandler: ({{ socketId }}, done) => {{
                     const user_data = JSON.stringify({{ id: 1, watchlist: ['7', 8] }});
                     done(null, {{ auth: sign(`${{socketId}}::user::${{user_data}}`), user_data }});
                 }} }} }});
             const numbers = [], moves = [];
             const end = () => {{
                 if (numbers.length > 1 && moves.length > 3) print([numbers, moves]);
             }};
             pusher.subscribe('a').bind('pusher:subscription_count', one => {{
                 numbers.push(one.subscription_count); end();
             }});
             for (const name of ['online', 'offline'])
                 pusher.user.watchlist.bind(name, one => {{ moves.push([one.name, one.user_ids]); end(); }});
             pusher.signin();"
        );
        let (said, _eight) = tokio::join!(node(&gate, &script), async {
            support::pusher::rest(&gate, "GET", "/apps/shop/channels", &[], &Value::Null).await;
            eventually("the watcher", async || {
                let path = "/apps/shop/channels/a";
                let query = [("info", "subscription_count")];
                let told = support::pusher::rest(&gate, "GET", path, &query, &Value::Null).await;
                told.json()["subscription_count"] == 1
            })
            .await;
            eventually("its sign-in", async || {
                let list =
                    gate.hook("GET", "/channels/shop%2F%23server-to-user-1/presence", &[], b"");
                list.await.json()["count"] == 1
            })
            .await;
            let mut eight = Echo::connect(&gate).await;
            eight.subscribe("a").await;
            eight.sign_in("8").await;
            drop(seven);
            eight
        });
        assert_eq!(said[0], json!([1, 2]), "{transport}");
        let wanted =
            json!([["online", ["7"]], ["offline", ["8"]], ["online", ["8"]], ["offline", ["7"]],]);
        assert_eq!(said[1], wanted, "{transport}");
    }
}

/// Signs in with a list; the frames that come before the answer to a ping.
async fn watch(echo: &mut Echo, user: &str, list: Value) -> Vec<Value> {
    let user = json!({ "id": user, "watchlist": list }).to_string();
    let auth = format!("{KEY}:{}", sign(&format!("{}::user::{user}", echo.id)));
    let fields = json!({ "auth": auth, "user_data": user });
    echo.send(&json!({ "event": "pusher:signin", "data": fields })).await;
    echo.send(&json!({ "event": "pusher:ping", "data": {} })).await;
    let mut frames = Vec::new();
    loop {
        let frame = echo.next().await;
        if frame["event"] == "pusher:pong" {
            return frames;
        }
        frames.push(frame);
    }
}

#[tokio::test]
async fn a_watchlist_is_bounded_and_whatever_stands_in_it_is_harmless() {
    let gate = Gate::start_alone(&format!("{APP}watchlists = true\n")).await;
    let names = |frames: &[Value]| -> Vec<String> {
        frames.iter().map(|one| one["event"].as_str().unwrap().to_owned()).collect()
    };
    let long: Vec<u32> = (0..101).collect();
    let mut echo = Echo::connect(&gate).await;
    let frames = watch(&mut echo, "1", json!(long)).await;
    assert_eq!(names(&frames), ["pusher:signin_success", "pusher:error"]);
    assert_eq!(frames[1]["data"]["code"], 4302);
    echo.is_alive().await;
    let mut echo = Echo::connect(&gate).await;
    let odd = json!(["1", 1, "a b", "", null, { "id": 1 }, [], "x".repeat(500), "#", "9"]);
    let frames = watch(&mut echo, "2", odd).await;
    assert_eq!(names(&frames), ["pusher:signin_success", "pusher_internal:watchlist_events"]);
    let events = data(&frames[1])["events"].clone();
    assert_eq!(events[0], json!({ "name": "online", "user_ids": ["1"] }));
    assert!(events[1]["user_ids"].as_array().unwrap().contains(&json!("9")), "{events}");
    for list in [json!("no list"), json!(null), json!([]), json!({})] {
        let mut echo = Echo::connect(&gate).await;
        assert_eq!(names(&watch(&mut echo, "3", list).await), ["pusher:signin_success"]);
    }
    // It takes no room of a connection's channels; the user's own is one of them.
    let mut echo = Echo::connect(&gate).await;
    let most: Vec<u32> = (0..100).collect();
    let frames = watch(&mut echo, "4", json!(most)).await;
    let events = data(&frames[1])["events"].clone();
    let offline = events.as_array().unwrap().iter().find(|one| one["name"] == "offline").unwrap();
    assert!(offline["user_ids"].as_array().unwrap().len() >= 96, "{events}");
    for number in 0..99 {
        echo.subscribe(&format!("a{number}")).await;
    }
    let refused = echo.ask("private-a", json!({ "auth": auth(&echo.id, "private-a", None) })).await;
    assert_eq!(refused["event"], "pusher:subscription_error", "{refused}");
}

#[tokio::test]
async fn without_the_keys_nothing_of_this_is_sent() {
    let site = PlainSite::start().await;
    let config = format!("{APP}webhook = \"/hook\"\nclient_events = true\n");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("private-a").await;
    echo.subscribe("cache-a").await;
    assert_eq!(echo.next().await["event"], "pusher:cache_miss");
    echo.send(&json!({ "event": "client-x", "channel": "private-a", "data": 1 })).await;
    assert_eq!(watch(&mut echo, "7", json!(["8"])).await.len(), 1);
    eventually("two channels", async || got(&site, "channel_occupied").len() == 2).await;
    for name in ["client_event", "cache_miss", "subscription_count"] {
        assert!(got(&site, name).is_empty(), "{name}");
    }
}
