//! Clients of others at the Mercure hub: Symfony's publisher for PHP, a publisher for Python, and
//! the event sources of npm.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod mercure {
    pub(crate) mod hub;
}
mod support;

use mercure::hub::{PATH, PUBLISHERS, config, publish, publisher, subscribe, subscriber, target};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Addr, Events, Gate, Way};

const SYMFONY: &str = "/usr/share/php/Symfony/Component/Mercure/autoload.php";

/// Output of a program; `missing` says how to get what it needs.
async fn output(mut command: Command, missing: &str) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{error}; {missing}"));
    let output =
        tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Publishes with Symfony's own classes at a hub; the ids that it got.
async fn symfony(addr: &Addr, token: &str, updates: &str) -> Vec<String> {
    let missing = "run scripts/setup test (or: make test)";
    assert!(Path::new(SYMFONY).exists(), "php-symfony-mercure is missing: {missing}");
    let code = format!(
        "require '{SYMFONY}';
         require 'Symfony/Component/HttpClient/autoload.php';
         use Symfony\\Component\\Mercure\\{{Hub, Update}};
         use Symfony\\Component\\Mercure\\Jwt\\StaticTokenProvider;
         $hub = new Hub('{}', new StaticTokenProvider('{token}'));
         $ids = [];
         foreach ([{updates}] as $update) $ids[] = $hub->publish($update);
         echo json_encode($ids);",
        addr.url(PATH)
    );
    let mut php = Command::new("php");
    php.args(["-d", "error_reporting=E_ALL & ~E_DEPRECATED", "-r", &code]);
    serde_json::from_str(&output(php, missing).await).unwrap()
}

#[tokio::test]
async fn symfony_publishes_on_both_listeners() {
    let gate = Gate::start_alone(&config("")).await;
    let token = publisher(&["https://example.com/{+any}"]);
    let reader = format!("Bearer {}", subscriber(&["https://example.com/users/7"]));
    let reader = [("Authorization", reader.as_str())];
    let topics = ["https://example.com/books/{id}", "https://example.com/users/7"];
    for addr in [gate.addr(), gate.internal()] {
        let mut all = subscribe(&gate, Way::Plain, &target(&topics, &[]), &reader).await;
        let mut public = subscribe(&gate, Way::Http2, &target(&topics, &[]), &[]).await;
        let updates =
            "new Update('https://example.com/books/1', json_encode(['title' => \"a\\nb\"])),
            new Update(['https://example.com/users/7', 'https://example.com/x'], 'private', true),
            new Update('https://example.com/books/2', 'two', false, 'own-id', 'book', 3000)";
        let ids = symfony(addr, &token, updates).await;
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(all.next().await);
        }
        assert_eq!(ids, got.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>());
        assert_eq!(got[0].json(), json!({"title": "a\nb"}));
        assert_eq!((&*got[1].data, &*got[2].event, got[2].retry), ("private", "book", Some(3000)));
        assert_eq!(ids[2], "own-id");
        assert_eq!(public.next().await.id(), ids[0]);
        assert_eq!(public.next().await.id(), "own-id", "the private one is not for all");
    }
}

#[tokio::test]
async fn symfony_reports_a_refusal() {
    let gate = Gate::start_alone(&config("")).await;
    let other = publisher(&["https://example.com/other"]);
    let code = "(function () { return new Update('https://example.com/books/1', 'x'); })()";
    let refused = tokio::spawn({
        let addr = gate.addr().clone();
        async move { symfony(&addr, &other, code).await }
    });
    assert!(refused.await.is_err(), "Symfony throws at a 401");
    assert!(gate.channel("mercure").await["error"].is_string());
}

/// Runs JavaScript in Node, with the hub's URL as `hub`; what it prints, as JSON.
fn node(gate: &Gate, script: &str) -> impl Future<Output = Value> + use<> {
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules");
    let missing = "run scripts/setup test (or: make test)";
    assert!(
        Path::new(clients).join("eventsource").exists(),
        "npm's clients are missing: {missing}"
    );
    let script = format!("const hub = '{}';\n{script}", gate.addr().url(PATH));
    let mut node = Command::new("node");
    node.args(["-e", &script]).env("NODE_PATH", clients);
    async move { serde_json::from_str(&output(node, missing).await).unwrap() }
}

/// Streams that end again and again, so that their clients have to come back.
const SHORT: &str = "[stream]\nmax = \"400ms\"\nretry = \"500ms\"\n[drain]\nspread = \"0s\"\n";

/// Publishes while its client is there and while it is on its way back, in turn.
async fn publish_between(gate: &Gate, count: usize) {
    for number in 0..count {
        // The first update gives the client an id to come back with.
        gate.wait_for_held(u64::from(number % 2 == 0)).await;
        let number = number.to_string();
        publish(gate, &[("topic", "https://example.com/a/1"), ("data", &number)]).await;
    }
}

async fn loses_nothing(source: &str) {
    let gate = Gate::start_alone(&format!("{}{SHORT}", config(""))).await;
    let script = format!(
        "const url = new URL(hub);
         url.searchParams.append('topic', 'https://example.com/a/{{id}}');
         {source}
         const got = [];
         source.onmessage = event => {{
             got.push(event.data);
             if (got.length === 8) {{ source.close(); console.log(JSON.stringify(got)); process.exit(); }}
         }};"
    );
    let client = tokio::spawn(node(&gate, &script));
    publish_between(&gate, 8).await;
    let numbers: Value = (0..8).map(|number| number.to_string()).collect();
    assert_eq!(client.await.unwrap(), numbers);
}

#[tokio::test]
async fn npm_s_eventsource_loses_nothing_between_its_streams() {
    loses_nothing(
        "const { EventSource } = require('eventsource'); const source = new EventSource(url);",
    )
    .await;
}

#[tokio::test]
async fn the_polyfill_comes_back_by_the_query() {
    // It has no access to headers of old browsers, so it names its place in the query.
    loses_nothing(
        "const { EventSourcePolyfill } = require('event-source-polyfill');
         const source = new EventSourcePolyfill(url.href,
             { lastEventIdQueryParameterName: 'lastEventID' });",
    )
    .await;
}

#[tokio::test]
async fn npm_s_eventsource_gets_private_updates_with_a_token() {
    let gate = Gate::start_alone(&config("").replace("anonymous = true", "")).await;
    let script = format!(
        "const {{ EventSource }} = require('eventsource');
         const source = new EventSource(hub + '?topic=' + encodeURIComponent('/users/{{id}}'), {{
             fetch: (url, init) => fetch(url, {{ ...init,
                 headers: {{ ...init.headers, Authorization: 'Bearer {}' }} }}),
         }});
         source.addEventListener('note', event => {{
             source.close();
             console.log(JSON.stringify([event.data, event.lastEventId]));
             process.exit();
         }});",
        subscriber(&["/users/7"])
    );
    let client = tokio::spawn(node(&gate, &script));
    gate.wait_for_held(1).await;
    for user in ["8", "7"] {
        let topic = format!("/users/{user}");
        let fields =
            [("topic", &*topic), ("data", user), ("private", "on"), ("type", "note"), ("id", user)];
        publish(&gate, &fields).await;
    }
    assert_eq!(client.await.unwrap(), json!(["7", "7"]));
}

#[tokio::test]
async fn a_publisher_for_python_publishes() {
    let gate = Gate::start_alone(&config("")).await;
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pypi/bin/python");
    let missing = "PyPI's clients are missing: run scripts/setup test (or: make test)";
    let mut events: Events =
        subscribe(&gate, Way::Plain, &target(&["https://example.com/a"], &[]), &[]).await;
    let code = format!(
        "from mercure_publisher import MercureConfig, MercurePublisher
config = MercureConfig(hub_url='{}', publisher_jwt_key='{PUBLISHERS}', publish_topics=['*'])
with MercurePublisher(config) as publisher:
    print(publisher.publish(topic=['https://example.com/a', 'b'], data={{'n': 1}}, id='py', retry=2000))",
        gate.addr().url(PATH),
    );
    let mut python = Command::new(python);
    python.args(["-c", &code]);
    assert_eq!(output(python, missing).await.trim(), "py");
    let event = events.next().await;
    assert_eq!((event.id(), event.json(), event.retry), ("py", json!({"n": 1}), Some(2000)));
}
