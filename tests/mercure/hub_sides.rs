//! Both listeners, other origins, subscriptions, mirrored channels.

use super::hub::{
    PATH, SUBSCRIBERS, config, form, post, publish, publisher, subscribe, subscriber, target, token,
};
use crate::support::{Client, FORM, Gate, Way};
use serde_json::json;

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
