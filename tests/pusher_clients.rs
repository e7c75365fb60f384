//! Unmodified clients and server libraries of the Pusher protocol: pusher-js over its three
//! transports in Node and in Chromium, Laravel Echo, the libraries of npm and PyPI, and PHP that
//! signs as Laravel does.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::pusher::{APP, Echo, KEY, SECRET, data, trigger};
use support::pusher_peers::{MODULES, node, python};
use support::{Browser, Gate, PhpSite, Window, eventually};

const TRANSPORTS: [&str; 3] = ["ws", "xhr_streaming", "xhr_polling"];

/// Waits until as many connections subscribe to a channel.
async fn subscribed(gate: &Gate, channel: &str, count: usize) {
    let query = [("info", "subscription_count")];
    let path = format!("/apps/shop/channels/{channel}");
    eventually("subscribers", async || {
        let told = support::pusher::rest(gate, "GET", &path, &query, &Value::Null).await.json();
        told["subscription_count"] == count
    })
    .await;
}

#[tokio::test]
async fn pusher_js_gets_events_over_all_its_transports() {
    for transport in TRANSPORTS {
        let gate = Gate::start_alone(&format!("{APP}client_events = true\n")).await;
        let script = format!(
            "const Pusher = require('pusher-js');
             const pusher = new Pusher('{KEY}', options(['{transport}']));
             const got = [], states = [];
             pusher.connection.bind('state_change', s => states.push(s.current));
             for (const name of ['orders', 'private-orders'])
                 pusher.subscribe(name).bind('n', data => {{
                     got.push([name, data]);
                     if (got.length === 12) print([got, states, pusher.connection.socket_id]);
                 }});"
        );
        let mut other = Echo::connect(&gate).await;
        let (said, ()) = tokio::join!(node(&gate, &script), async {
            // Over HTTP, frames may overtake each other.
            subscribed(&gate, "orders", 1).await;
            subscribed(&gate, "private-orders", 1).await;
            for number in 0..6 {
                let data = json!({ "number": number }).to_string();
                trigger(&gate, "orders", "n", &data, json!({})).await;
                trigger(&gate, "private-orders", "n", &data, json!({ "socket_id": other.id }))
                    .await;
            }
        });
        let of = |name: &str| {
            let got = said[0].as_array().unwrap().iter().filter(|one| one[0] == name);
            got.map(|one| one[1]["number"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("orders"), [0, 1, 2, 3, 4, 5], "{transport}");
        assert_eq!(of("private-orders"), [0, 1, 2, 3, 4, 5], "{transport}");
        assert_eq!(said[1], json!(["connected"]), "{transport}");
        other.is_alive().await;
    }
}

#[tokio::test]
async fn pusher_js_sends_client_events_signs_in_and_pings_over_all_its_transports() {
    for transport in TRANSPORTS {
        let gate = Gate::start_alone(&format!(
            "{APP}client_events = true\nactivity_timeout = \"1s\"\nping = \"3s\"\n"
        ))
        .await;
        let mut other = Echo::connect(&gate).await;
        other.subscribe("private-a").await;
        let script = format!(
            "const Pusher = require('pusher-js');
             const pusher = new Pusher('{KEY}', options(['{transport}']));
             const channel = pusher.subscribe('private-a'), got = [];
             channel.bind('pusher:subscription_succeeded', () => {{
                 got.push('subscribed'); channel.trigger('client-typing', {{ a: 1 }});
             }});
             channel.bind('client-answer', data => {{ got.push(data); pusher.signin(); }});
             pusher.user.bind('hello', data => {{
                 got.push(data);
                 // Several silences later it is still there, on the same connection.
                 const id = pusher.connection.socket_id;
                 setTimeout(() => print([got, id === pusher.connection.socket_id, pusher.connection.state]), 4000);
             }});"
        );
        let (said, ()) = tokio::join!(node(&gate, &script), async {
            let event = other.next().await;
            let wanted =
                json!({ "event": "client-typing", "channel": "private-a", "data": { "a": 1 } });
            assert_eq!(event, wanted);
            other
                .send(&json!({ "event": "client-answer", "channel": "private-a", "data": "yes" }))
                .await;
            subscribed(&gate, "%23server-to-user-7", 1).await;
            trigger(&gate, "#server-to-user-7", "hello", "{}", json!({})).await;
        });
        assert_eq!(said, json!([["subscribed", "yes", {}], true, "connected"]), "{transport}");
    }
}

#[tokio::test]
async fn pusher_js_falls_back_to_http_where_websockets_are_blocked() {
    let gate = Gate::start_alone(APP).await;
    let script = format!(
        "const Pusher = require('pusher-js');
         const pusher = new Pusher('{KEY}', {{ ...options(undefined), wsPort: 1 }});
         pusher.subscribe('a').bind('n', data => print([data, pusher.connection.state]));"
    );
    let (said, ()) = tokio::join!(node(&gate, &script), async {
        subscribed(&gate, "a", 1).await;
        trigger(&gate, "a", "n", "7", json!({})).await;
    });
    assert_eq!(said, json!([7, "connected"]));
}

#[tokio::test]
async fn pusher_js_reads_a_stream_on_that_has_become_too_long() {
    let gate = Gate::start_alone(APP).await;
    let script = format!(
        "const Pusher = require('pusher-js');
         const pusher = new Pusher('{KEY}', options(['xhr_streaming']));
         const got = [], states = [];
         pusher.connection.bind('state_change', s => states.push(s.current));
         pusher.subscribe('a').bind('n', data => {{
             got.push(data.number);
             if (got.length === 150) print([got, states]);
         }});"
    );
    let (said, ()) = tokio::join!(node(&gate, &script), async {
        subscribed(&gate, "a", 1).await;
        for number in 0..150 {
            let data = json!({ "number": number, "text": "ä".repeat(4_000) }).to_string();
            trigger(&gate, "a", "n", &data, json!({})).await;
        }
    });
    assert_eq!(said[0], json!((0..150).collect::<Vec<_>>()));
    assert_eq!(said[1], json!(["connected"]), "on one session");
}

#[tokio::test]
async fn pusher_js_begins_anew_where_its_session_is_lost() {
    for transport in ["xhr_streaming", "xhr_polling"] {
        let gate = Gate::start_alone(APP).await;
        let script = format!(
            "const Pusher = require('pusher-js');
             const pusher = new Pusher('{KEY}', options(['{transport}']));
             const states = [];
             pusher.connection.bind('state_change', s => states.push(s.current));
             let count = 0;
             pusher.subscribe('a').bind('pusher:subscription_succeeded', () => {{
                 if (++count === 2) print(states);
             }});"
        );
        // The new gate lives until the client has its answer.
        let (said, _again) = tokio::join!(node(&gate, &script), async {
            subscribed(&gate, "a", 1).await;
            let address = gate.addr().to_string();
            gate.kill();
            let again = Gate::with(APP).alone().listen([&address]).start().await;
            subscribed(&again, "a", 1).await;
            again
        });
        let said = said.as_array().unwrap();
        assert_eq!(said[0], "connected", "{transport}");
        assert!(
            said.len() >= 3 && said.last() == Some(&json!("connected")),
            "{transport}: {said:?}"
        );
    }
}

#[tokio::test]
async fn the_library_of_npm_publishes_asks_and_ends() {
    let gate = Gate::start_alone(APP).await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("a").await;
    echo.sign_in("7").await;
    let script = format!(
        "const Pusher = require('pusher');
         const pusher = new Pusher({{ appId: 'shop', key: '{KEY}', secret: '{SECRET}',
             host: '127.0.0.1', port: internal, useTLS: false }});
         (async () => {{
             const json = async response => await response.json();
             await pusher.trigger('a', 'one', {{ text: 'ä + &=%' }});
             await pusher.trigger(['a', 'b'], 'two', 'text', {{ socket_id: '1.1' }});
             await pusher.triggerBatch([{{ channel: 'a', name: 'three', data: [1] }}]);
             await pusher.sendToUser('7', 'four', 'x');
             const told = [
                 await json(await pusher.trigger('a', 'five', '', {{ info: 'subscription_count' }})),
                 await json(await pusher.get({{ path: '/channels', params: {{ filter_by_prefix: 'a' }} }})),
                 await json(await pusher.get({{ path: '/channels/a', params: {{ info: 'subscription_count' }} }})),
             ];
             await pusher.terminateUserConnections('7');
             print(told);
         }})().catch(error => print([String(error), error.status, error.body]));"
    );
    let told = node(&gate, &script).await;
    let wanted = json!([
        { "channels": { "a": { "subscription_count": 1 } } },
        { "channels": { "a": {} } },
        { "occupied": true, "subscription_count": 1 },
    ]);
    assert_eq!(told, wanted);
    let mut got = Vec::new();
    for _ in 0..4 {
        let event = echo.next().await;
        got.push((event["event"].as_str().unwrap().to_owned(), data(&event)));
    }
    let wanted = [
        ("one".to_owned(), json!({ "text": "ä + &=%" })),
        ("two".to_owned(), json!("text")),
        ("three".to_owned(), json!([1])),
        ("five".to_owned(), json!("")),
    ];
    assert_eq!(got, wanted);
    assert_eq!(echo.closed().await.1, 4009);
}

#[tokio::test]
async fn encrypted_channels_are_opaque_here() {
    let gate = Gate::start_alone(APP).await;
    let script = format!(
        "const Server = require('pusher'), Pusher = require('pusher-js');
         const server = new Server({{ appId: 'shop', key: '{KEY}', secret: '{SECRET}',
             host: '127.0.0.1', port: internal, useTLS: false,
             encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString('base64') }});
         const client = new Pusher('{KEY}', {{ ...options(['ws']), channelAuthorization: {{
             customHandler: ({{ socketId, channelName }}, done) =>
                 done(null, server.authorizeChannel(socketId, channelName)),
         }} }});
         const channel = client.subscribe('private-encrypted-a');
         channel.bind('n', data => print(data));
         channel.bind('pusher:subscription_succeeded', () =>
             server.trigger('private-encrypted-a', 'n', {{ secret: 'hush' }}));"
    );
    assert_eq!(node(&gate, &script).await, json!({ "secret": "hush" }));
    let shown = gate.hook("GET", "/channels/shop%2Fprivate-encrypted-a/messages", &[], b"").await;
    assert!(shown.text().contains("ciphertext") && !shown.text().contains("hush"));
}

#[tokio::test]
async fn the_library_and_the_client_of_pypi_speak_with_each_other() {
    // That library wants a number for an id.
    let gate = Gate::start_alone(&APP.replace("shop", "42")).await;
    let script = "
import pusher, pysher
got, ready = [], threading.Event()
class Site:
    pass
client = pysher.Pusher(key, custom_host='127.0.0.1', port=port, secure=False, secret=secret, daemon=True)
def event(data):
    got.append(data)
    if len(got) == 2:
        ready.set()
def connected(data):
    for name in ['orders', 'private-orders']:
        channel = client.subscribe(name)
        channel.bind('n', event)
client.connection.bind('pusher:connection_established', connected)
client.connect()
site = pusher.Pusher(app_id='42', key=key, secret=secret, host='127.0.0.1', port=internal, ssl=False)
for _ in range(100):
    told = site.channels_info(attributes=['subscription_count'])['channels']
    if len(told) == 2:
        break
    time.sleep(0.05)
site.trigger(['orders', 'private-orders'], 'n', {'a': 'ä'})
ready.wait(10)
site.trigger_batch([{'channel': 'orders', 'name': 'x', 'data': 'y'}])
print(json.dumps([got, told, site.channel_info('orders', ['subscription_count'])]))
";
    let said = python(&gate, script).await;
    let event = "{\"a\": \"\u{e4}\"}";
    assert_eq!(said[0], json!([event, event]));
    let count = json!({ "subscription_count": 1 });
    assert_eq!(said[1], json!({ "orders": count, "private-orders": count }));
    assert_eq!(said[2], json!({ "occupied": true, "subscription_count": 1 }));
}

/// A site as Laravel's, and the gate before it.
async fn laravel() -> (PhpSite, Gate) {
    let mut site = PhpSite::of("laravel");
    let gate = Gate::start_before(site.addr(), &format!("{APP}client_events = true\n")).await;
    site.env("NODE_MODULES", MODULES);
    for (name, value) in [
        ("REVERB_APP_ID", "shop"),
        ("REVERB_APP_KEY", KEY),
        ("REVERB_APP_SECRET", SECRET),
        ("REVERB_HOST", "127.0.0.1"),
        ("REVERB_SCHEME", "http"),
    ] {
        site.env(name, value);
    }
    site.env("REVERB_PORT", gate.internal().port().to_string()).start().await;
    (site, gate)
}

/// A page of the site's with an Echo, signed in as `user`.
async fn page(browser: &Browser, gate: &Gate, user: &str, transport: &str) -> Window {
    let window = browser.open(&gate.addr().url("/")).await;
    let script = format!(
        "document.cookie = 'user={user}';
         window.got = []; window.states = [];
         window.echo = new Echo.default({{
             broadcaster: 'reverb', key: '{KEY}', wsHost: location.hostname,
             wsPort: location.port, wssPort: location.port, forceTLS: false,
             httpHost: location.hostname, httpPort: location.port, httpsPort: location.port,
             enabledTransports: ['{transport}'],
         }});
         echo.connector.pusher.connection.bind('state_change', s => states.push(s.current));
         echo.channel('orders').listen('OrderShipped', e => got.push(['orders', e.order.id]));
         echo.private('mine').listen('OrderShipped', e => got.push(['mine', e.order.id]))
             .listenForWhisper('typing', e => got.push(['typing', e.name]));
         echo.private('my-secret').error(e => got.push(['refused', e.status]));"
    );
    window.execute(&script, vec![]).await;
    window.wait_until("got.some(one => one[0] === 'refused')").await;
    window
}

#[tokio::test]
async fn laravel_echo_in_chromium_gets_what_php_broadcasts_over_all_transports() {
    let (_site, gate) = laravel().await;
    let browser = Browser::start().await;
    for transport in TRANSPORTS {
        let window = page(&browser, &gate, "7", transport).await;
        subscribed(&gate, "private-mine", 1).await;
        // From the page itself, so that its own connection is left out.
        let ship = "return fetch('/ship', { method: 'POST', headers: arguments[1]
                ? { 'X-Socket-ID': echo.socketId() } : {}, body: new URLSearchParams(arguments[0]) })
            .then(response => response.json())";
        let fields = json!({ "id": "1", "channels": "orders,private-mine" });
        let told = window.execute(ship, vec![fields, json!(false)]).await;
        assert_eq!(told["status"], 200, "{told}");
        let fields = json!({ "id": "2", "channels": "orders" });
        window.execute(ship, vec![fields, json!(true)]).await;
        let fields = json!({ "id": "3", "channels": "orders" });
        window.execute(ship, vec![fields, json!(false)]).await;
        window.wait_until("got.length >= 4").await;
        let got = window.execute("return got", vec![]).await;
        let mut got: Vec<Value> = got.as_array().unwrap().clone();
        got.retain(|one| one[0] != "refused");
        got.sort_by_key(Value::to_string);
        assert_eq!(got, [json!(["mine", 1]), json!(["orders", 1]), json!(["orders", 3])]);
        let states = window.execute("return states", vec![]).await;
        assert_eq!(states, json!(["connected"]), "{transport}");
        window.close().await;
        eventually("the page's end", async || gate.held().await == 0).await;
    }
}

#[tokio::test]
async fn laravel_echo_sees_who_comes_and_goes() {
    let (_site, gate) = laravel().await;
    let browser = Browser::start().await;
    let join = "window.here = []; window.moves = [];
                echo.join('room').here(users => here = users.map(user => user.name))
                    .joining(user => moves.push('+' + user.name))
                    .leaving(user => moves.push('-' + user.name))";
    let one = page(&browser, &gate, "7", "ws").await;
    one.execute(join, vec![]).await;
    one.wait_until("here.length === 1 && here[0] === 'User 7'").await;
    for (user, transport) in [("8", "xhr_streaming"), ("9", "xhr_polling")] {
        let two = page(&browser, &gate, user, transport).await;
        two.execute(join, vec![]).await;
        two.wait_until("here.length === 2 && here[0] === 'User 7'").await;
        one.wait_until(&format!("moves.at(-1) === '+User {user}'")).await;
        two.execute("echo.leave('room')", vec![]).await;
        one.wait_until(&format!("moves.at(-1) === '-User {user}'")).await;
        two.close().await;
    }
    assert_eq!(one.execute("return moves.length", vec![]).await, 4);
    one.close().await;
}

#[tokio::test]
async fn laravel_echo_whispers_from_page_to_page() {
    let (_site, gate) = laravel().await;
    let browser = Browser::start().await;
    let one = page(&browser, &gate, "7", "ws").await;
    let two = page(&browser, &gate, "8", "xhr_polling").await;
    subscribed(&gate, "private-mine", 2).await;
    one.execute("echo.private('mine').whisper('typing', { name: 'one' })", vec![]).await;
    two.wait_until("got.some(one => one[0] === 'typing' && one[1] === 'one')").await;
    two.execute("echo.private('mine').whisper('typing', { name: 'two' })", vec![]).await;
    one.wait_until("got.some(one => one[0] === 'typing' && one[1] === 'two')").await;
    one.close().await;
    two.close().await;
}
