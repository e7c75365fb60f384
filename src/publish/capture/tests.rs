#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn statuses_are_classes_and_numbers() {
    let on: Statuses = "2xx, 302".parse().unwrap();
    assert!(on.has(200) && on.has(299) && on.has(302) && !on.has(301) && !on.has(500));
    assert_eq!(on.to_string(), "2xx,302");
    for bad in ["", "1xx", "20", "2xx,", "ok", "6xx"] {
        assert!(bad.parse::<Statuses>().is_err(), "{bad}");
    }
}

#[test]
fn a_member_of_json_is_found_by_its_path() {
    let json: Box<RawValue> = serde_json::from_str(r#"{"a":{"b":[1, 2.50]},"c":"x"}"#).unwrap();
    let at = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        member(&json, &path).map(RawValue::get)
    };
    assert_eq!(at(&["a", "b"]), Some("[1, 2.50]"));
    assert_eq!(at(&["c"]), Some("\"x\""));
    assert_eq!((at(&["c", "d"]), at(&["d"])), (None, None));
}

#[test]
fn a_body_beyond_the_bound_is_not_kept() {
    let mut body = Body { bytes: Some(Vec::new()), most: 4, over: false };
    body.add(b"ab");
    body.add(b"cd");
    assert_eq!(body.whole(), Ok(b"abcd".as_slice()));
    body.add(b"e");
    assert!(body.whole().is_err() && body.bytes.unwrap().is_empty());
}
