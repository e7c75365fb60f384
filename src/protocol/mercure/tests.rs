use super::*;
use http::{HeaderMap, HeaderValue};

fn settings() -> Settings {
    Settings {
        site: crate::hub::channel::SiteName::NONE,
        path: "/.well-known/mercure".to_owned(),
        publisher: None,
        subscriber: None,
        anonymous: true,
        publish_origins: Vec::new(),
        cors_origins: Vec::new(),
        subscriptions: true,
        mirror: false,
    }
}

fn subscriber(query: &str) -> Result<Subscriber, Refused> {
    settings().subscriber(Parameters::new(query), &HeaderMap::new(), 0)
}

#[test]
fn paths_below_the_hub_are_its_api() {
    let of = |path: &str| settings().target(path);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of("/.well-known/mercure"), Some(Target::Hub));
    assert_eq!(of("/.well-known/%6dercure"), Some(Target::Hub));
    let below = "/.well-known/mercure/subscriptions";
    assert_eq!(of(below), Some(Target::Subscriptions(None, None)));
    let topic = Some(Target::Subscriptions(some("https://a/b c"), None));
    assert_eq!(of(&format!("{below}/https%3A%2F%2Fa%2Fb+c")), topic);
    let one = Some(Target::Subscriptions(some("a"), some("urn:uuid:1")));
    assert_eq!(of(&format!("{below}/a/urn%3Auuid%3A1")), one);
    for other in ["/", "/.well-known", "/.well-known/mercure/", "/.well-known/mercure/x"] {
        assert_eq!(of(other), None, "{other}");
    }
    assert_eq!(of(&format!("{below}x")), None);
    assert_eq!(of(&format!("{below}/a/b/c")), None);
    let without = Settings { subscriptions: false, ..settings() };
    assert_eq!(without.target(below), None);
}

#[test]
fn a_subscription_is_bounded() {
    assert!(subscriber("topic=a&topic=%2Fb%2F%7Bid%7D").is_ok());
    for bad in ["", "topic=", "x=y", "topic=a%0Ab"] {
        assert_eq!(subscriber(bad).unwrap_err().reply().status, 400, "{bad}");
    }
    let many = vec!["topic=a"; 1001].join("&");
    assert!(subscriber(&many).is_err());
    let templates = vec![format!("topic={}%7Ba%7D", "x".repeat(500)); 9].join("&");
    assert!(subscriber(&templates).is_err());
}

#[test]
fn a_private_update_needs_the_topic_and_the_token() {
    let update = |private| Update {
        topics: vec!["/books/1".to_owned(), "/alternate".to_owned()],
        data: String::new(),
        private,
        id: "i".to_owned(),
        kind: String::new(),
        retry: 0,
    };
    let gets = |topic: &str, granted: &[&str], private| {
        let mut subscriber = subscriber(&format!("topic={topic}")).unwrap();
        subscriber.private = Selectors::new(granted).unwrap();
        subscriber.gets(&Stored::of(&update(private).payload()).unwrap())
    };
    assert!(gets("/books/1", &[], false) && gets("/alternate", &[], false));
    assert!(!gets("/other", &["*"], false));
    assert!(!gets("/books/1", &[], true) && !gets("/books/1", &["/other"], true));
    assert!(gets("/books/1", &["/books/{id}"], true));
    // Any topic of the update will do for each of the two.
    assert!(gets("/books/1", &["/alternate"], true));
}

#[test]
fn the_cursor_comes_from_the_header_before_the_query() {
    let with = |header: Option<&'static str>, query: &str| {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("last-event-id", HeaderValue::from_static(value));
        }
        last_event_id(Parameters::new(query), &headers)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(with(Some("h"), "lastEventID=q"), some("h"));
    assert_eq!(with(Some(""), "Last-Event-ID=old&lastEventID=q"), some("q"));
    assert_eq!(with(None, "lastEventID=&Last-Event-ID=old"), some("old"));
    assert_eq!(with(None, "lastEventId=yaffle"), some("yaffle"));
    assert_eq!(with(None, "topic=a"), None);
}

#[test]
fn made_ids_are_uuids_of_their_version() {
    let id = made_id(0x0123_4567_89ab, u128::MAX);
    assert_eq!(id, "urn:uuid:01234567-89ab-7fff-bfff-ffffffffffff");
    assert_eq!(subscriber_id(0), "urn:uuid:00000000-0000-4000-8000-000000000000");
}
