use super::*;
use http::{HeaderName, HeaderValue};

const TOKEN: &str = "hunter2";
const PAGE: &str = "0123456789abcdef";

/// The status with which a request is refused; 200 if it is admitted.
fn ask(token: &str, method: Method, open: bool, headers: &[(&str, &str)]) -> u16 {
    let token = Secret::new(token);
    let names = vec!["gate.example".into()];
    let settings = Settings { token, names, ..Settings::default() };
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name in a test");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value in a test");
        map.append(name, value);
    }
    let visitor = Requester { method: &method, headers: &map, local: false, open, page: false };
    match admit(&settings, &Secret::new(PAGE), &visitor) {
        Ok(_) => 200,
        Err(reply) => {
            let challenged = reply.headers.iter().any(|(name, _)| *name == "WWW-Authenticate");
            assert_eq!(challenged, reply.status == 401);
            reply.status
        }
    }
}

#[test]
fn without_a_token_configured_programs_come_in() {
    assert_eq!(ask("", Method::GET, false, &[]), 200);
    assert_eq!(ask("", Method::POST, false, &[("host", "127.0.0.1:7080")]), 200);
    assert_eq!(ask("", Method::DELETE, false, &[("authorization", "Bearer any")]), 200);
}

#[test]
fn with_a_token_configured_it_is_wanted_except_on_open_paths() {
    let bearer = [("authorization", "Bearer hunter2")];
    let lower = [("authorization", "bearer  hunter2 ")];
    assert_eq!(ask(TOKEN, Method::POST, false, &bearer), 200);
    assert_eq!(ask(TOKEN, Method::POST, false, &lower), 200);
    assert_eq!(ask(TOKEN, Method::GET, false, &[]), 401);
    assert_eq!(ask(TOKEN, Method::GET, true, &[]), 200);
    for wrong in
        ["Bearer hunter3", "Bearer hunter22", "Bearer", "Bearer ", "hunter2", "Basic hunter2"]
    {
        assert_eq!(ask(TOKEN, Method::POST, false, &[("authorization", wrong)]), 401, "{wrong}");
    }
}

#[test]
fn without_a_token_a_host_that_a_stranger_may_own_is_refused() {
    for open in [false, true] {
        for method in [Method::GET, Method::POST] {
            for host in ["evil.example", "localhost.evil.example", "gate", "\u{e4}", ""] {
                assert_eq!(ask("", method.clone(), open, &[("host", host)]), 403, "{host}");
            }
            for host in ["localhost", "127.0.0.1:7080", "[::1]:7080", "gate.example"] {
                assert_eq!(ask("", method.clone(), open, &[("host", host)]), 200, "{host}");
            }
        }
    }
    // With a token, the probes are open under any name, and all else requires it.
    assert_eq!(ask(TOKEN, Method::GET, true, &[("host", "gate")]), 200);
    assert_eq!(ask(TOKEN, Method::GET, false, &[("host", "gate")]), 401);
}

#[test]
fn an_empty_token_is_nobodys_pass() {
    let page = [("authorization", "Bearer "), ("origin", "https://evil.example")];
    assert_eq!(ask("", Method::POST, false, &page), 403);
}

#[test]
fn reads_by_pages_from_elsewhere_are_refused() {
    for (site, status) in
        [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
    {
        let headers = [("sec-fetch-site", site), ("host", "localhost:7080")];
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(ask("", method.clone(), false, &headers), status, "{site}");
            assert_eq!(ask("", method, true, &headers), status, "{site}");
        }
    }
}

#[test]
fn writes_by_any_page_are_refused() {
    for method in [Method::POST, Method::DELETE, Method::PUT, Method::OPTIONS] {
        for mark in [
            ("origin", "http://localhost:7080"),
            ("origin", "null"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", ""),
            ("sec-fetch-site", "\u{e4}"),
        ] {
            let headers = [mark, ("host", "localhost:7080")];
            assert_eq!(ask("", method.clone(), false, &headers), 403, "{mark:?}");
            assert_eq!(ask(TOKEN, method.clone(), false, &headers), 403, "{mark:?}");
            let known = [mark, ("authorization", "Bearer hunter2")];
            assert_eq!(ask(TOKEN, method.clone(), false, &known), 200, "{mark:?}");
        }
        assert_eq!(ask("", method, false, &[("sec-fetch-site", "none")]), 200);
    }
}

#[test]
fn the_internal_page_may_write_only_under_a_host_that_is_ours() {
    for (host, status) in [
        ("127.0.0.1:7080", 200),
        ("10.1.2.3", 200),
        ("[::1]:7080", 200),
        ("localhost", 200),
        ("LOCALHOST:7080", 200),
        ("gate.example:7080", 200),
        ("evil.example", 403),
        ("gate.example.evil.example", 403),
        ("localhost.evil.example:7080", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:7080@evil.example", 403),
        ("", 403),
    ] {
        let headers = [("host", host), ("origin", "http://it"), ("pollgate-page", PAGE)];
        assert_eq!(ask("", Method::POST, false, &headers), status, "{host}");
    }
    let wrong = [("host", "localhost"), ("origin", "http://localhost"), ("pollgate-page", "x")];
    assert_eq!(ask("", Method::POST, false, &wrong), 403);
    let without_host = [("origin", "http://localhost"), ("pollgate-page", PAGE)];
    assert_eq!(ask("", Method::POST, false, &without_host), 403);
}

#[test]
fn the_page_token_does_not_stand_for_the_token() {
    let page = [("host", "localhost"), ("origin", "http://localhost"), ("pollgate-page", PAGE)];
    assert_eq!(ask(TOKEN, Method::POST, false, &page), 401);
}

#[test]
fn without_a_page_its_empty_token_opens_nothing() {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost"));
    headers.insert("origin", HeaderValue::from_static("http://localhost"));
    headers.insert(PAGE_HEADER, HeaderValue::from_static(""));
    let visitor = Requester {
        method: &Method::POST,
        headers: &headers,
        local: false,
        open: false,
        page: false,
    };
    assert!(admit(&Settings::default(), &Secret::default(), &visitor).is_err());
}

#[test]
fn a_link_elsewhere_leads_to_the_page_and_shows_it_to_nobody_else() {
    let settings = Settings::default();
    let method = Method::GET;
    for (page, dest, let_in) in [
        (true, "document", true),
        (true, "iframe", false),
        (true, "empty", false),
        (false, "document", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        headers.insert("sec-fetch-dest", HeaderValue::from_static(dest));
        let visitor =
            Requester { method: &method, headers: &headers, local: false, open: page, page };
        let admitted = admit(&settings, &Secret::new("page"), &visitor).is_ok();
        assert_eq!(admitted, let_in, "{page} {dest}");
    }
}
