//! What subscribers ask for, what they may have, and what they get.

use super::hub::{
    PATH, SUBSCRIBERS, config, now, publish, publisher, subscribe, subscriber, target, token,
};
use crate::support::{Gate, Way};
use serde_json::json;

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
