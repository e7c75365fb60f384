use super::*;
use crate::hub::channel::Cursor;
use crate::hub::channel::Take;
use crate::hub::{self, Hub, PollOutcome, Subscription};
use crate::protocol::address::Address;
use crate::protocol::auth::{Upstream, Url};
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::native::Native;
use crate::server::gate::proxy::forwarded::Client;
use std::sync::atomic::AtomicUsize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const NOW: Time = Time(1_700_000_000_000_000);

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn waiter(hub: &Hub, channel: &str) -> Waiter {
    let subscription = Subscription { channel: name(channel), cursor: Cursor::Now };
    match hub.poll(&[subscription], Take::All, true, NOW).unwrap() {
        PollOutcome::Waiting(waiter) => waiter,
        PollOutcome::Answer(answer) => unreachable!("{answer:?}"),
    }
}

fn allowed(grants: &Grants, credential: &str, expires: Option<Seconds>) -> Allowed {
    let credentials = [grants.shared.hasher.hash_one(credential.as_bytes())].as_slice().into();
    let grant = grants.number();
    let seen = grants.seen();
    Allowed { grant, credentials, expires, user: None, member: None, seen }
}

#[test]
fn leave_lasts_until_its_second_or_until_it_is_taken_back() {
    let grants = Grants::default();
    let hub = Hub::new(hub::Settings::default(), 1);
    let soon = NOW.0 / 1_000_000 + 1;
    let first = grants.take(allowed(&grants, "a", Some(soon)), &waiter(&hub, "x"));
    assert_eq!(first.left(NOW), Some(Duration::from_secs(1)));
    assert_eq!(first.check(NOW), Ok(()));
    assert_eq!(first.check(Time(NOW.0 + 1_000_000)), Err(Rejection::Expired));
    let second = grants.take(allowed(&grants, "b", None), &waiter(&hub, "y"));
    assert_eq!(
        (second.left(NOW), grants.revoke(&SiteName::NONE, Some(&name("x")), Some("b"))),
        (None, 0)
    );
    assert_eq!(grants.revoke(&SiteName::NONE, None, Some("b")), 1);
    assert_eq!((first.check(NOW), second.check(NOW)), (Ok(()), Err(Rejection::Revoked)));
    drop((first, second));
    assert_eq!(grants.revoke(&SiteName::NONE, None, None), 0);
}

#[test]
fn leave_that_is_taken_back_between_the_look_and_the_hold_is_found_gone() {
    let grants = Grants::default();
    let hub = Hub::new(hub::Settings::default(), 1);
    let found = allowed(&grants, "a", None);
    let other = allowed(&grants, "b", None);
    grants.revoke(&SiteName::NONE, None, Some("a"));
    let waiter = waiter(&hub, "x");
    assert_eq!(grants.take(found, &waiter).check(NOW), Err(Rejection::Revoked));
    assert_eq!(grants.take(other.clone(), &waiter).check(NOW), Ok(()));
    // So many that the first ones are no longer known.
    for _ in 0..=MAX_RECENT {
        grants.revoke(&SiteName::NONE, None, Some("c"));
    }
    assert_eq!(grants.take(other, &waiter).check(NOW), Err(Rejection::Revoked));
}

#[tokio::test]
async fn equal_questions_at_the_same_time_are_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Address::tcp(listener.local_addr().unwrap());
    let upstream = crate::server::gate::upstream::Upstream::new(&[server]).unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut seen = [0; 1024];
            let _ = stream.read(&mut seen).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    });
    let grants = Grants::default();
    let cache = Duration::ZERO;
    let timeout = Duration::from_secs(10);
    let auth = Auth::Upstream(Upstream {
        url: Url::Path("/auth".to_owned()),
        cache,
        timeout,
        session: "PHPSESSID".to_owned(),
        anonymous: true,
    });
    let path = "/comet/*".parse().unwrap();
    let rule = Rule::new(path, Dialect::Native(Native::default()));
    let ask = async |cookie: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", cookie.parse().unwrap());
        let client = Client { peer: None, trusted: false, address: None };
        let visitor = Requester {
            way: Way { client, tls: false },
            rule: &rule,
            target: "/comet/a",
            path: "/comet/a",
            query: &Query::default(),
            headers: &headers,
            host: "gate.example",
            client: None,
            upstream: &upstream,
        };
        let Authorization::Site(asking) = grants.look(&auth, &visitor, &[name("a")], NOW) else {
            unreachable!("nothing is remembered")
        };
        matches!(asking.verdict().await, Verdict::Allowed(..))
    };
    assert_eq!(
        tokio::join!(ask("s=1"), ask("s=1"), ask("s=2"), ask("s=1")),
        (true, true, true, true)
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // Nothing is cached, so the upstream is asked again.
    assert!(ask("s=1").await);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}
