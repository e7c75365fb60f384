#![allow(clippy::unwrap_used)]
use super::*;
use crate::hub::channel::Kind;

fn of(content_type: &str, body: impl Into<Bytes>) -> Result<PublishRequest, Reply> {
    read(Some(content_type), &body.into())
}

fn json(body: &str) -> Result<PublishRequest, Reply> {
    of("application/json", body.to_owned())
}

fn form(body: &str) -> Result<PublishRequest, Reply> {
    of("application/x-www-form-urlencoded", body.to_owned())
}

/// Channels and bodies, for reading.
fn shown(posts: &PublishRequest) -> Vec<String> {
    let shown = |(channel, payload): &(ChannelName, Payload)| {
        format!("{channel}={}", String::from_utf8_lossy(&payload.body))
    };
    posts.posts.iter().map(shown).collect()
}

fn status(read: Result<PublishRequest, Reply>) -> u16 {
    read.err().map_or(200, |reply| reply.status)
}

#[test]
fn json_names_one_channel_or_several_or_is_an_array_of_these() {
    let one = json(r#" {"channel":"live","data":{"b":1.10, "a":[ ]}}"#).unwrap();
    assert_eq!((one.many, shown(&one)), (false, vec![r#"live={"b":1.10, "a":[ ]}"#.to_owned()]));
    assert_eq!(one.posts[0].1.kind, Kind::Json);
    let several = json(r#"{"channels":["a","b","a"],"data":"x"}"#).unwrap();
    assert_eq!((several.many, shown(&several)), (true, vec!["a=x".to_owned(), "b=x".to_owned()]));
    assert_eq!(several.posts[0].1.kind, Kind::Text);
    let array = json(r#"[{"channel":"a","data":1},{"channels":["b","a"]}]"#).unwrap();
    assert_eq!(shown(&array), ["a=1", "b=", "a="]);
    assert!(json(r#"[{"channel":"a"}]"#).unwrap().many);
}

#[test]
fn null_is_a_message_and_no_data_is_a_touch() {
    let null = json(r#"{"channel":"a","data":null}"#).unwrap();
    assert_eq!((null.posts[0].1.kind, shown(&null)), (Kind::Json, vec!["a=null".to_owned()]));
    assert_eq!(json(r#"{"channel":"a"}"#).unwrap().posts[0].1, Payload::empty());
}

#[test]
fn json_that_says_something_else_is_refused_with_the_place() {
    for body in [
        "",
        "{",
        "[",
        "null",
        "1",
        "\"live\"",
        "{}",
        "[]",
        "[{}]",
        "[[\"live\"]]",
        "[\"live\"]",
        "[{\"channel\":\"a\"},3]",
        r#"{"channel":1}"#,
        r#"{"channel":["a"]}"#,
        r#"{"channels":"a"}"#,
        r#"{"channels":[]}"#,
        r#"{"channels":[1]}"#,
        r#"{"channel":"a","channels":["b"]}"#,
        r#"{"chanel":"a"}"#,
        r#"{"channel":"a","data":1,"data":2}"#,
        r#"{"channel":"a","data":tru}"#,
        r#"{"channel":"a"} x"#,
        r#"{"channel":"a","data":"\ud800"}"#,
        "{\"channel\":\"a\",\"data\":\"\0\"}",
    ] {
        assert_eq!(status(json(body)), 422, "{body}");
    }
    assert_eq!(status(of("application/json", b"{\"channel\":\"\xff\"}".to_vec())), 422);
    let reply = json(r#"[{"channel":"a"},{"channel":2}]"#).unwrap_err();
    let body = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(body.contains("entry 1"), "{body}");
}

#[test]
fn depth_and_number_are_bounded() {
    assert_eq!(status(json(&"[".repeat(100_000))), 422);
    let deep = format!(r#"{{"channel":"a","data":{}{}}}"#, "[".repeat(129), "]".repeat(129));
    assert_eq!(status(json(&deep)), 422);
    let many = |entry: &str| vec![entry; MAX_POSTS + 1].join(",");
    assert_eq!(status(json(&format!("[{}]", many("{}")))), 422);
    assert_eq!(status(json(&format!(r#"{{"channels":[{}]}}"#, many("\"a\"")))), 422);
    assert_eq!(status(form(&"channel[]=a&".repeat(MAX_POSTS + 20))), 422);
    let names: Vec<_> = (0..101).map(|n| format!("\"{n}\"")).collect();
    let product = vec![format!(r#"{{"channels":[{}]}}"#, names.join(",")); 100].join(",");
    assert_eq!(status(json(&format!("[{product}]"))), 422);
}

#[test]
fn a_bad_name_stops_them_all() {
    for name in ["", "a\\u0000", "a\\nb", "\\u0085", &"x".repeat(256)] {
        let body = format!(r#"[{{"channel":"good"}},{{"channel":"{name}"}}]"#);
        assert_eq!(status(json(&body)), 400, "{name:?}");
    }
}

#[test]
fn a_form_is_what_http_build_query_makes() {
    let one = form("channel=live&data=caf%C3%A9+%26").unwrap();
    assert_eq!((one.many, shown(&one)), (false, vec!["live=café &".to_owned()]));
    assert_eq!(one.posts[0].1.kind, Kind::Text);
    let several = form("channel%5B0%5D=a&channel%5B1%5D=b&channel[]=a&data=1").unwrap();
    assert_eq!((several.many, shown(&several)), (true, vec!["a=1".to_owned(), "b=1".to_owned()]));
    assert_eq!(shown(&form("channel=a").unwrap()), ["a="]);
    let upper = of("Application/X-WWW-Form-URLencoded; charset=UTF-8", "channel=a");
    assert_eq!(status(upper), 200);
}

#[test]
fn a_form_that_says_something_else_is_refused() {
    for body in [
        "",
        "data=x",
        "channel[a][b]=1",
        "channel[][]=a",
        "channel=a&data[]=1",
        "channel=a&data=%ff",
        " {\"channel\":\"a\"}",
        "[{\"channel\":\"a\"}]",
    ] {
        assert_eq!(status(form(body)), 422, "{body}");
    }
    assert_eq!(
        status(of("application/x-www-form-urlencoded", b"channel=a&data=\xff".to_vec())),
        422
    );
    for body in ["channel=", "channel=%00", "channel=%ff", "channel[]=a&channel[]=%0A"] {
        assert_eq!(status(form(body)), 400, "{body}");
    }
    let reply = form("{\"channel\":\"a\"}").unwrap_err();
    assert!(String::from_utf8_lossy(&reply.body).contains("application/json"));
}

#[test]
fn other_content_types_are_refused() {
    for content_type in
        ["", "text/plain", "multipart/form-data; boundary=x", "application/jsonp", "\u{fffd}"]
    {
        assert_eq!(status(of(content_type, "channel=a")), 415, "{content_type}");
    }
    assert_eq!(status(read(None, &Bytes::from_static(b"channel=a"))), 415);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, text: String, json: bool) {
        let name = if json { "application/json" } else { "application/x-www-form-urlencoded" };
        let _ = of(name, body);
        let _ = of(name, text);
    }
}
