//! The grammar of GRIP, by tables.

use super::filter::{self, Context, Meta};
use super::item;
use super::link::{Link, resolve};
use super::params::{list, params};
use super::{Filter, Instruct, Mode, is_own, patch};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::time::Duration;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn read(lines: &[(&str, &str)]) -> Result<Instruct, String> {
    Instruct::read(200, &headers(lines), Bytes::from_static(b"body"))
}

#[test]
fn values_and_parameters_are_taken_apart_as_they_are_written() {
    let pair = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
    for (text, expected) in [
        ("a", vec![vec![pair("a", None)]]),
        (
            " a ; b = c ;d=\"e;f,\\\"g\" , h",
            vec![
                vec![pair("a", None), pair("b", Some("c")), pair("d", Some("e;f,\"g"))],
                vec![pair("h", None)],
            ],
        ),
        (
            "<http://a/?b=1,2;c>; rel=next",
            vec![vec![pair("<http://a/?b=1,2;c>", None), pair("rel", Some("next"))]],
        ),
        ("user=\"a, b\", x=y", vec![vec![pair("user", Some("a, b"))], vec![pair("x", Some("y"))]]),
        (", ,", vec![]),
        ("a;;b=", vec![vec![pair("a", None), pair("b", Some(""))]]),
    ] {
        assert_eq!(list(text).unwrap(), expected, "{text}");
    }
    assert!(list("a; b=\"c").is_err() && params("a; b=\"c\"d").is_err());
    assert_eq!(params("a,b; c").unwrap(), [pair("a,b", None), pair("c", None)]);
}

#[test]
fn the_headers_of_a_hold_say_what_it_is() {
    let instruct = read(&[
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "a; prev-id=\"x y\"; filter=skip-self; filter=build-id, b"),
        ("Grip-Channel", "c"),
        ("Grip-Timeout", "7"),
        ("Grip-Keep-Alive", "a,b\\r\\n\\x41\\q; format=cstring; timeout=0; mode=interval"),
        ("Grip-Set-Meta", "user=amy, role=\"a, b\""),
        ("Grip-Link", "</next>; rel=next; timeout=9, <ignored>, </bye>; rel=gone"),
        ("Grip-Status", "202 Yes"),
        ("X-A", "1"),
        ("Connection", "close"),
    ])
    .unwrap();
    assert_eq!((instruct.mode, instruct.timeout), (Mode::Stream, Duration::from_secs(7)));
    let names: Vec<_> = instruct.channels.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(instruct.channels[0].prev_id.as_deref(), Some("x y"));
    assert_eq!(instruct.channels[0].filters, [Filter::SkipSelf, Filter::BuildId]);
    let keep_alive = instruct.keep_alive.unwrap();
    assert_eq!(&keep_alive.data[..], b"a,b\r\nA");
    assert_eq!((keep_alive.timeout, keep_alive.interval), (Duration::from_secs(1), true));
    assert_eq!((instruct.meta["user"].as_str(), instruct.meta["role"].as_str()), ("amy", "a, b"));
    let next = instruct.next.unwrap();
    assert_eq!((next.uri.as_str(), next.timeout), ("/next", Duration::from_secs(9)));
    assert_eq!(instruct.gone.as_deref(), Some("/bye"));
    assert_eq!((instruct.response.code, &instruct.response.body[..]), (202, &b"body"[..]));
    assert_eq!(instruct.response.headers, [("x-a".to_owned(), "1".to_owned())]);
}

#[test]
fn what_is_not_said_has_its_default() {
    let instruct = read(&[("Grip-Hold", "response"), ("Grip-Channel", "a")]).unwrap();
    assert_eq!((instruct.mode, instruct.timeout), (Mode::Response, Duration::from_secs(55)));
    assert_eq!((instruct.keep_alive, instruct.next, instruct.gone), (None, None, None));
    let link = read(&[("Grip-Link", "<x>; rel=next")]).unwrap();
    assert_eq!((link.mode, link.next.unwrap().timeout), (Mode::None, Duration::from_secs(120)));
    let raw = [("Grip-Hold", "stream"), ("Grip-Channel", "a"), ("Grip-Keep-Alive", "a=b c")];
    let keep_alive = read(&raw).unwrap().keep_alive.unwrap();
    assert_eq!(
        (&keep_alive.data[..], keep_alive.timeout),
        (&b"a=b c"[..], Duration::from_secs(55))
    );
}

#[test]
fn exposed_headers_are_all_that_pass() {
    let instruct = read(&[
        ("Grip-Hold", "response"),
        ("Grip-Channel", "a"),
        ("Grip-Expose-Headers", "etag, X-B"),
        ("Grip-Expose-Headers", "x-c"),
        ("ETag", "1"),
        ("X-A", "2"),
        ("X-B", "3"),
        ("X-C", "4"),
    ])
    .unwrap();
    let names: Vec<_> = instruct.response.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["etag", "x-b", "x-c"]);
}

#[test]
fn an_instruction_in_json_overrides_the_headers() {
    let lines = headers(&[
        ("Content-Type", "Application/grip-instruct; charset=utf-8"),
        ("Grip-Timeout", "7"),
        ("Grip-Link", "</next>; rel=next"),
        ("X-A", "1"),
    ]);
    let json = json!({
        "hold": {
            "mode": "stream", "timeout": "8", "meta": { "user": "amy" },
            "channels": [{ "name": "a", "prev-id": "1", "filters": ["var-subst"] }, { "name": "a" }],
            "keep-alive": { "content-bin": "AQ==", "timeout": 3 },
        },
        "response": { "code": "201", "headers": { "X-B": "2", "Content-Length": "9" }, "body": "x" },
    });
    let body = |json: &Value| Bytes::from(json.to_string());
    let instruct = Instruct::read(200, &lines, body(&json)).unwrap();
    assert_eq!((instruct.mode, instruct.timeout), (Mode::Stream, Duration::from_secs(8)));
    assert_eq!(instruct.channels.len(), 1, "the last word on a channel counts");
    assert_eq!(instruct.channels[0].prev_id, None);
    assert_eq!(&instruct.keep_alive.unwrap().data[..], [1]);
    assert!(instruct.next.is_some());
    assert_eq!(instruct.response.headers, [("X-B".to_owned(), "2".to_owned())]);
    assert_eq!((instruct.response.code, &instruct.response.body[..]), (201, &b"x"[..]));
    let none = Instruct::read(200, &lines, body(&json!({ "response": { "body": "x" } }))).unwrap();
    assert_eq!(none.mode, Mode::None);
    assert!(Instruct::read(201, &lines, body(&json)).is_err());
    for wrong in [
        json!([]),
        json!({ "hold": [] }),
        json!({ "hold": {} }),
        json!({ "hold": { "channels": [] } }),
        json!({ "hold": { "channels": ["a"] } }),
        json!({ "hold": { "channels": [{ "name": "a\n" }] } }),
        json!({ "hold": { "mode": "wait", "channels": [{ "name": "a" }] } }),
        json!({ "hold": { "channels": [{ "name": "a" }], "timeout": -1 } }),
        json!({ "hold": { "channels": [{ "name": "a", "filters": ["x"] }] } }),
        json!({ "hold": { "channels": [{ "name": "a" }], "meta": { "a": 1 } } }),
        json!({ "response": { "code": 99 } }),
        json!({ "response": { "headers": { "X-A": "b\nc" } } }),
        json!({ "response": { "body-bin": "*" } }),
    ] {
        assert!(Instruct::read(200, &lines, body(&wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_channel_has_five_filters_at_most() {
    let channel = format!("a{}", "; filter=skip-self".repeat(6));
    assert!(read(&[("Grip-Hold", "stream"), ("Grip-Channel", &channel)]).is_err());
    let channel = format!("a{}", "; filter=skip-self".repeat(5));
    assert!(read(&[("Grip-Hold", "stream"), ("Grip-Channel", &channel)]).is_ok());
}

#[test]
fn no_spelling_of_a_grip_header_is_another() {
    for own in ["grip-sig", "GRIP-Hold", "Grip_Sig", "grip.x", "grip-"] {
        assert!(is_own(own), "{own}");
    }
    for other in ["grip", "gripx", "x-grip-sig", "gri-p", ""] {
        assert!(!is_own(other), "{other}");
    }
}

#[test]
fn an_item_is_stored_as_it_was_read() {
    let body = json!({ "items": [{
        "channel": "a", "id": "2", "prev-id": "1", "no-seq": true, "meta": { "sender": "amy" }, "size": 5,
        "formats": {
            "http-response": { "code": "404", "headers": [["A", "b"], ["A", "c"]], "body-patch": [] },
            "http-stream": { "action": "hint" },
            "ws-message": { "type": "binary", "content": "x" },
        },
    }, {
        "channel": "b", "http-stream": { "content-bin": "/w==", "content-filters": ["build-id"] },
    }]});
    let items = item::read(body.to_string().as_bytes()).unwrap();
    let names: Vec<_> = items.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["grip/a", "grip/b"]);
    for (_, item) in items {
        assert_eq!(super::Item::of(&item.stored()).unwrap(), item);
    }
    assert!(super::Item::of(b"hello").is_none());
}

#[test]
fn links_lead_where_rfc_3986_says() {
    let link = |host: Option<&str>, target: &str| {
        Some(Link { host: host.map(str::to_owned), target: target.to_owned() })
    };
    let base = "/a/b/c?d=e";
    for (uri, expected) in [
        ("/x?y", link(None, "/x?y")),
        ("x", link(None, "/a/b/x")),
        ("./x/../y?z=../q", link(None, "/a/b/y?z=../q")),
        ("../../../x", link(None, "/x")),
        ("..", link(None, "/a/")),
        ("?x", link(None, "/a/b/c?x")),
        ("#frag", link(None, "/a/b/c")),
        ("http://h:81/x#y", link(Some("h:81"), "/x")),
        ("HTTPS://h", link(Some("h"), "/")),
        ("//h?x", link(Some("h"), "/?x")),
        ("http://", None),
        ("http://user@h/", None),
        ("ftp://h/x", None),
        ("mailto:x", None),
        ("/a b", None),
        ("/a\r\nb", None),
    ] {
        assert_eq!(resolve(base, uri), expected, "{uri}");
    }
}

#[test]
fn content_filters_fill_in_what_the_hold_says() {
    let meta = |pairs: &[(&str, &str)]| -> Meta {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let hold = meta(&[("user", "amy"), ("id_format", "%(a)s:%(b)s"), ("a)b", "odd")]);
    let hex = meta(&[("id_format", "%(a)s"), ("id_encoding", "hex")]);
    let none = Meta::new();
    let channels = [("a", Some("1")), ("b", None)];
    let made = |hold: &Meta, filter: Filter, text: &str| {
        let context = Context { hold, item: &none, channels: &channels };
        let made = filter::apply(&[filter], &context, Bytes::copy_from_slice(text.as_bytes()));
        made.map(|made| String::from_utf8(made.unwrap().to_vec()).unwrap()).ok()
    };
    for (hold, filter, text, expected) in [
        (&hold, Filter::VarSubst, "a %(user)s %% %(a\\)b)s", Some("a amy % odd")),
        (&hold, Filter::VarSubst, "%(nobody)s", None),
        (&hold, Filter::VarSubst, "%s", None),
        (&hold, Filter::VarSubst, "100%", None),
        (&hold, Filter::VarSubst, "%(user", None),
        (&hold, Filter::VarSubst, "%(user)d", None),
        (&hold, Filter::BuildId, "id: %I %(x)I", Some("id: 1: x")),
        (&hex, Filter::BuildId, "%I", Some("31")),
        (&none, Filter::BuildId, "%I", None),
        (&none, Filter::SkipSelf, "%I", Some("%I")),
    ] {
        assert_eq!(made(hold, filter, text).as_deref(), expected, "{text}");
    }
}

#[test]
fn a_patch_does_what_rfc_6902_says() {
    let document = br#"{"a":{"b":[1,2]},"x/y":1,"~":2}"#;
    for (operations, expected) in [
        (json!([]), Some(r#"{"a":{"b":[1,2]},"x/y":1,"~":2}"#)),
        (
            json!([{"op":"add","path":"/a/b/1","value":9}]),
            Some(r#"{"a":{"b":[1,9,2]},"x/y":1,"~":2}"#),
        ),
        (json!([{"op":"add","path":"","value":[]}]), Some("[]")),
        (
            json!([{"op":"remove","path":"/x~1y"},{"op":"remove","path":"/~0"}]),
            Some(r#"{"a":{"b":[1,2]}}"#),
        ),
        (
            json!([{"op":"move","from":"/a/b","path":"/c"},{"op":"remove","path":"/x~1y"}]),
            Some(r#"{"a":{},"c":[1,2],"~":2}"#),
        ),
        (
            json!([{"op":"copy","from":"/~0","path":"/a/b/-"}]),
            Some(r#"{"a":{"b":[1,2,2]},"x/y":1,"~":2}"#),
        ),
        (
            json!([{"op":"test","path":"/a/b/0","value":1},{"op":"replace","path":"/a","value":0}]),
            Some(r#"{"a":0,"x/y":1,"~":2}"#),
        ),
        (json!([{"op":"test","path":"/a/b/0","value":2}]), None),
        (json!([{"op":"remove","path":"/none"}]), None),
        (json!([{"op":"replace","path":"/none","value":1}]), None),
        (json!([{"op":"add","path":"/a/b/3","value":1}]), None),
        (json!([{"op":"add","path":"/a/b/01","value":1}]), None),
        (json!([{"op":"remove","path":"/a/b/-"}]), None),
        (json!([{"op":"move","from":"/a","path":"/a/b/0"}]), None),
        (json!([{"op":"add","path":"/x~1y/z","value":1}]), None),
        (json!([{"op":"add","path":"/z"}]), None),
        (json!([{"op":"explode","path":"/a"}]), None),
        (json!([5]), None),
    ] {
        let patched = patch::apply(document, operations.as_array().unwrap());
        let patched = patched.ok().map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        let expected = expected.map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(patched, expected, "{operations}");
    }
    // Each copy doubles.
    let copy = |n: usize| json!({"op": "copy", "from": "", "path": format!("/{n}")});
    assert!(patch::apply(b"{}", &(0..40).map(copy).collect::<Vec<_>>()).is_err());
    assert!(patch::apply(b"no json", &[]).is_err());
}
