//! The protocol's own vectors, and hostile input.

use super::event::{Event, Mark, Shared};
use super::rest::{Info, Refusal, authorize, batch, events};
use super::*;
use crate::hub::channel::Payload;
use crate::protocol::auth::secret::Secret;
use crate::protocol::http::Request;
use bytes::Bytes;
use http::Method;

fn app() -> App {
    App {
        site: crate::hub::channel::SiteName::NONE,
        id: "3".into(),
        key: "278d425bdf160c739803".into(),
        signer: Signer::new(Secret::new("7ad3773142a6692b25b8")),
        client_events: false,
        origins: vec!["*".to_owned()],
        max_event: 10_240,
    }
}

const SOCKET: SocketId = SocketId(1234, 1234);

#[test]
fn the_published_signatures_are_ours() {
    let app = app();
    let key = "278d425bdf160c739803";
    let verify = |auth: &str, channel, data| {
        app.signer.verify_channel(key, &format!("{key}:{auth}"), SOCKET, channel, data)
    };
    let private = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    let presence = "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c";
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
    assert!(verify(private, "private-foobar", None));
    assert!(verify(presence, "presence-foobar", Some(data)));
    assert!(!verify(private, "private-foobaz", None));
    assert!(!verify(private, "private-foobar", Some("{}")));
    assert!(!verify(presence, "presence-foobar", None));
    let user = "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba";
    let user = format!("{key}:{user}");
    assert!(app.signer.verify_user(key, &user, SOCKET, r#"{"id":"12345"}"#));
    assert!(!app.signer.verify_user(key, &user, SocketId(1, 1), r#"{"id":"12345"}"#));
    for bad in ["", ":", key, "other:58df", &format!("{key}:{}", "g".repeat(64))] {
        assert!(!app.signer.verify_channel(key, bad, SOCKET, "private-foobar", None), "{bad}");
    }
}

const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
                     body_md5=ec365a775a4cd0599faeb73354201b6f";
const SIGNATURE: &str = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

fn request(query: &str) -> Request {
    let mut request = Request::new(Method::POST, &format!("/apps/3/events?{query}"));
    request.body = Bytes::from_static(BODY);
    request
}

#[test]
fn the_published_request_is_authorized_and_nothing_beside_it() {
    let app = app();
    let at = 1_353_088_179;
    let signed = format!("{QUERY}&auth_signature={SIGNATURE}");
    assert_eq!(authorize(&app, &request(&signed), at), Ok(()));
    assert_eq!(authorize(&app, &request(&signed), at + 600), Ok(()));
    assert_eq!(authorize(&app, &request(&signed), at - 600), Ok(()));
    let first = format!("auth_signature={SIGNATURE}&{QUERY}");
    assert_eq!(authorize(&app, &request(&first), at), Ok(()), "whatever the order");
    let refused = |request: &Request, at| authorize(&app, request, at).unwrap_err().status;
    assert_eq!(refused(&request(&signed), at + 601), 401);
    assert_eq!(refused(&request(&signed), 0), 401);
    assert_eq!(refused(&request(QUERY), at), 401);
    assert_eq!(refused(&request(""), at), 401);
    for (from, to) in
        [("=278d", "=378d"), ("=1.0", "=1.1"), ("md5=ec", "md5=ed"), ("=1353", "=1352")]
    {
        assert_eq!(refused(&request(&signed.replace(from, to)), at), 401, "{to}");
    }
    let mut other = request(&signed);
    other.body = Bytes::from_static(b"{}");
    assert_eq!(refused(&other, at), 401);
    let mut other = request(&signed);
    other.method = Method::GET;
    assert_eq!(refused(&other, at), 401);
}

#[test]
fn values_are_signed_as_they_are_and_arrays_joined() {
    let app = app();
    let text = "GET\n/apps/3/channels\nauth_key=278d425bdf160c739803&auth_timestamp=1&\
                auth_version=1.0&filter_by_prefix=presence-a b&info=user_count,cache";
    let signature = app.signer.sign(text.as_bytes());
    for query in [
        "info=user_count,cache&filter_by_prefix=presence-a%20b",
        "filter_by_prefix=presence-a+b&info%5B0%5D=user_count&info%5B1%5D=cache",
    ] {
        let target = format!(
            "/apps/3/channels?{query}&auth_key={}&auth_timestamp=1&auth_version=1.0&auth_signature={signature}",
            app.key
        );
        assert_eq!(authorize(&app, &Request::new(Method::GET, &target), 1), Ok(()), "{query}");
    }
}

#[test]
fn events_are_read_and_bounded() {
    let trigger = events(BODY, 100).unwrap();
    assert_eq!((&*trigger.name, &*trigger.channels), ("foo", &["project-3".to_owned()][..]));
    assert_eq!(trigger.data, r#""{\"some\":\"data\"}""#);
    let refused = |body: &str| events(body.as_bytes(), 10).unwrap_err().status;
    assert_eq!(refused("{"), 400);
    assert_eq!(refused("[]"), 400);
    assert_eq!(refused(r#"{"name":7,"channel":"a","data":""}"#), 400);
    assert_eq!(refused(r#"{"channel":"a","data":""}"#), 422);
    assert_eq!(refused(r#"{"name":"e","data":""}"#), 422);
    assert_eq!(refused(r#"{"name":"e","channel":"a"}"#), 422);
    assert_eq!(refused(r#"{"name":"e","channel":"a b","data":""}"#), 422);
    assert_eq!(refused(r##"{"name":"e","channel":"#other","data":""}"##), 422);
    assert_eq!(refused(r#"{"name":"e","channel":"a","data":"","socket_id":"1"}"#), 422);
    assert_eq!(refused(r#"{"name":"e","channels":["a","private-encrypted-b"],"data":""}"#), 422);
    assert_eq!(refused(r#"{"name":"e","channel":"a","data":"12345678901"}"#), 413);
    assert!(
        events(
            r#"{"name":"e","channel":"a","data":"\u00e4\u00e4\u00e4\u00e4\u00e4"}"#.as_bytes(),
            10
        )
        .is_ok()
    );
    let channels = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("\"c{n}\"")).collect();
        format!(r#"{{"name":"e","channels":[{}],"data":""}}"#, names.join(","))
    };
    assert_eq!(events(channels(100).as_bytes(), 10).unwrap().channels.len(), 100);
    assert_eq!(refused(&channels(101)), 422);
    let one = r#"{"name":"e","channel":"a","data":{"x":1},"info":"user_count,new"}"#;
    let ten = format!(r#"{{"batch":[{}]}}"#, [one; 10].join(","));
    let read = batch(ten.as_bytes(), 10).unwrap();
    assert_eq!((&*read[9].data, read[0].info.users), (r#""{\"x\":1}""#, true));
    let eleven = format!(r#"{{"batch":[{}]}}"#, [one; 11].join(","));
    assert_eq!(batch(eleven.as_bytes(), 10).unwrap_err().status, 422);
    assert_eq!(Info::of(None), Info::default());
    let _: Refusal = Refusal::new(400, "a");
}

#[test]
fn names_are_pusher_s_and_their_prefix_says_what_they_are() {
    use channel::{Kind, is_cache, is_name};
    for good in ["a", "private-a", "A-z0_=@,.;", "#server-to-user-7", &"a".repeat(164)] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "#", "#a", "a b", "a/b", "ä", "a:b", "#server-to-user-a/b", &"a".repeat(165)] {
        assert!(!is_name(bad), "{bad}");
    }
    assert_eq!(Kind::of("private-encrypted-cache-a"), Kind::Private);
    assert_eq!(Kind::of("presence-cache-a"), Kind::Presence);
    assert_eq!(Kind::of("cache-private-a"), Kind::Public);
    assert_eq!(Kind::of("#server-to-user-7"), Kind::User);
    assert!(is_cache("cache-a") && is_cache("presence-cache-a") && !is_cache("private-a-cache-"));
    let app = app();
    assert!(app.guards("3/private-a") && app.guards("3/#server-to-user-1"));
    assert!(!app.guards("3/a") && !app.guards("33/private-a") && !app.guards("private-a"));
}

#[test]
fn commands_are_read_from_objects_and_from_strings() {
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":"k:s"}}"#;
    let Ok(Command::Subscribe { channel, auth, data: None }) = parse(subscribe) else {
        unreachable!("{subscribe}")
    };
    assert_eq!((&*channel, auth.as_deref()), ("a", Some("k:s")));
    let doubled = r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"a\"}"}"#;
    assert!(matches!(parse(doubled), Ok(Command::Unsubscribe { .. })));
    let event = r#"{"event":"client-x","channel":"private-a","data":{"b": 1}}"#;
    let Ok(Command::Event { data, .. }) = parse(event) else { unreachable!("{event}") };
    assert_eq!(data, r#"{"b": 1}"#);
    assert!(matches!(parse(r#"{"event":"pusher:ping"}"#), Ok(Command::Ping)));
    assert!(matches!(parse(r#"{"event":"pusher:pong","data":{}}"#), Ok(Command::Nothing)));
    assert!(matches!(parse(r#"{"event":"pusher:later"}"#), Ok(Command::Nothing)));
    for bad in [
        "",
        "[]",
        "1",
        "{}",
        r#"{"event":"pusher:subscribe"}"#,
        r#"{"event":"pusher:subscribe","data":{}}"#,
        r#"{"event":"pusher:subscribe","data":[]}"#,
        r#"{"event":"pusher:subscribe","data":"x"}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
        r#"{"event":"pusher:signin","data":{"auth":"a"}}"#,
        r#"{"event":"client-x","data":{}}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(parse(&format!(r#"{{"event":"client-{}","channel":"a"}}"#, "x".repeat(200))).is_err());
}

#[test]
fn a_member_s_id_is_a_number_or_a_string() {
    let of = |data: &str| Member::of_channel(data).map(|member| member.id.to_string());
    assert_eq!(of(r#"{"user_id":10,"user_info":{"a":1}}"#).as_deref(), Some("10"));
    assert_eq!(of(r#"{"user_id":"10"}"#).as_deref(), Some("10"));
    for bad in ["", "{}", "[]", r#"{"user_id":null}"#, r#"{"user_id":{}}"#, r#"{"user_id":""}"#] {
        assert_eq!(of(bad), None, "{bad}");
    }
    assert_eq!(of(&format!(r#"{{"user_id":"{}"}}"#, "a".repeat(129))), None);
    let user = Member::of_user(r#"{"id":"7","user_info":{"n":"x"},"watchlist":[]}"#).unwrap();
    assert_eq!((&*user.id, user.info.as_deref()), ("7", Some(r#"{"n":"x"}"#)));
}

#[test]
fn an_event_reaches_all_but_one_as_it_was_published() {
    let mark = Mark::of("1.2");
    let data = r#""{\"a\":\"\u00e4\"}""#;
    let event = Event { event: "App\\Events\\X", data, user: None, except: Some(mark) };
    let payload = event.payload();
    let read: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
    assert_eq!((&read["event"], &read["data"]), (&"App\\Events\\X".into(), &r#"{"a":"ä"}"#.into()));
    let delivery = event::deliver("orders", &payload);
    assert_eq!(
        delivery.frame,
        r#"{"event":"App\\Events\\X","channel":"orders","data":"{\"a\":\"\u00e4\"}"}"#
    );
    let shared = Shared::of(Shared::pack(delivery.except, b"frame"));
    assert_eq!(shared.for_connection(mark), None);
    assert_eq!(shared.for_connection(Mark::of("1.3")).as_deref(), Some(&b"frame"[..]));
    let shared = Shared::of(Shared::pack(None, b"frame"));
    assert_eq!(shared.for_connection(mark).as_deref(), Some(&b"frame"[..]));
}

#[test]
fn what_the_hook_publishes_is_an_event_too() {
    let deliver = |payload| event::deliver("a", &payload).frame;
    let json = |body: &'static str| Payload {
        kind: crate::hub::channel::Kind::Json,
        content_type: "application/json".into(),
        body: body.into(),
    };
    let object = r#"{"event":"x","data":{"b": 1}}"#;
    assert_eq!(deliver(json(object)), r#"{"event":"x","channel":"a","data":"{\"b\": 1}"}"#);
    assert_eq!(deliver(json(r#"{"event":"x"}"#)), r#"{"event":"x","channel":"a","data":"null"}"#);
    let client = r#"{"event":"client-x","data":{"b":1},"user_id":"7"}"#;
    let wanted = r#"{"event":"client-x","channel":"a","data":{"b":1},"user_id":"7"}"#;
    assert_eq!(deliver(json(client)), wanted);
    let wanted = r#"{"event":"message","channel":"a","data":"hi \"you\""}"#;
    assert_eq!(deliver(Payload::text("hi \"you\"")), wanted);
    let wanted = r#"{"event":"message","channel":"a","data":"[1]"}"#;
    assert_eq!(deliver(json("[1]")), wanted);
    assert_eq!(deliver(Payload::empty()), r#"{"event":"message","channel":"a","data":""}"#);
    let binary = Payload {
        kind: crate::hub::channel::Kind::Binary,
        content_type: "application/octet-stream".into(),
        body: Bytes::from_static(b"\xff\x00"),
    };
    assert_eq!(deliver(binary), r#"{"event":"message","channel":"a","data":"/wA="}"#);
}

#[test]
fn lines_are_those_that_pusher_js_reads() {
    let elements = [lines::element("{\"a\":1}").into(), lines::element("b").into()];
    assert_eq!(lines::frames(&elements), b"a[\"{\\\"a\\\":1}\",\"b\"]\n");
    assert_eq!(lines::close(4200, "go \"on\""), "c[4200,\"go \\\"on\\\"\"]\n");
    assert_eq!(lines::read(b"[]").unwrap().len(), 0);
    assert_eq!(lines::read(br#"["{\"event\":\"x\"}"]"#).unwrap(), ["{\"event\":\"x\"}"]);
    for bad in [&b""[..], b"{}", b"[1]", b"\"a\"", b"[\"a\""] {
        assert!(lines::read(bad).is_err());
    }
    let many = format!("[{}]", ["\"a\""; 101].join(","));
    assert!(lines::read(many.as_bytes()).is_err());
    for text in ["", "plain", "ä€", "a𝄞b"] {
        assert_eq!(lines::units(text.as_bytes()), text.encode_utf16().count(), "{text}");
    }
}

#[test]
fn frames_are_the_protocol_s() {
    let established = frame::established(SocketId(1, 2), 30);
    let wanted = r#"{"event":"pusher:connection_established","data":"{\"activity_timeout\":30,\"socket_id\":\"1.2\"}"}"#;
    assert_eq!(established, wanted);
    let read: serde_json::Value = serde_json::from_str(&frame::error(Some(4001), "x")).unwrap();
    assert_eq!((&read["data"]["code"], &read["event"]), (&4001.into(), &"pusher:error".into()));
    for (socket, valid) in
        [("1.2", true), ("123.456789", true), ("1", false), ("1.a", false), (".", false)]
    {
        assert_eq!(SocketId::is_valid(socket), valid, "{socket}");
    }
}

proptest::proptest! {
    #[test]
    fn no_frame_makes_it_panic(text: String, bytes: Vec<u8>) {
        let _ = parse(&text);
        let _ = Member::of_channel(&text);
        let _ = lines::read(&bytes);
        let _ = events(&bytes, 10);
        let _ = batch(&bytes, 10);
        let _ = event::deliver("a", &Payload::text(bytes));
    }
}
