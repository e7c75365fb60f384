//! Publishes, their tokens and their forms.

use super::hub::{PUBLISHERS, SUBSCRIBERS, config, form, now, post, publisher, token};
use crate::support::Gate;
use serde_json::json;

/// One publish: the headers and the query of its token, its form, and the answer to it.
struct Publish<'a> {
    name: &'a str,
    headers: Vec<(&'a str, String)>,
    query: String,
    body: String,
    status: u16,
    says: &'a str,
}

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("Authorization", format!("Bearer {token}"))]
}

fn publish_cases() -> Vec<Publish<'static>> {
    let any = publisher(&["*"]);
    let one = || form(&[("topic", "/a"), ("data", "x"), ("id", "own")]);
    let case = |name, headers, status, says| Publish {
        name,
        headers,
        query: String::new(),
        body: one(),
        status,
        says,
    };
    let with =
        |body: String, status, says| Publish { body, ..case("form", bearer(&any), status, says) };
    let claims = |claims| bearer(&token(PUBLISHERS, &claims));
    let cookie = |more: &[(&'static str, &str)]| {
        let cookie = [("Cookie", format!("a=b; mercureAuthorization={any}"))].into_iter();
        cookie
            .chain(more.iter().map(|(name, value)| (*name, (*value).to_owned())))
            .collect::<Vec<_>>()
    };
    let unsigned = {
        let signed = publisher(&["*"]);
        let claims = signed.split('.').nth(1).unwrap();
        format!("eyJhbGciOiJub25lIn0.{claims}.")
    };
    let many = |count| (0..count).map(|n| format!("topic=/{n}")).collect::<Vec<_>>().join("&");
    let query = |query: String, status| Publish { query, ..case("query", vec![], status, "") };
    vec![
        case("no token", vec![], 401, ""),
        case(
            "another key",
            bearer(&token(SUBSCRIBERS, &json!({"mercure": {"publish": ["*"]}}))),
            401,
            "",
        ),
        case("no bearer", vec![("Authorization", "Basic YTpi".repeat(6))], 401, ""),
        case("short", bearer("short"), 401, ""),
        case("no signature", bearer(&unsigned), 401, ""),
        case("two headers", [bearer(&any), bearer(&any)].concat(), 401, ""),
        case("no claim", claims(json!({})), 401, ""),
        case("a subscriber", claims(json!({"mercure": {"subscribe": ["*"]}})), 401, ""),
        case("no topics", claims(json!({"mercure": {"publish": []}})), 401, ""),
        case("a broken claim", claims(json!({"mercure": {"publish": "*"}})), 401, ""),
        case("expired", claims(json!({"mercure": {"publish": ["*"]}, "exp": now() - 1})), 401, ""),
        case(
            "too early",
            claims(json!({"mercure": {"publish": ["*"]}, "nbf": now() + 60})),
            401,
            "",
        ),
        case("another topic", bearer(&publisher(&["/b", "/a/{x}"])), 401, ""),
        case("all", bearer(&any), 200, "own"),
        case("its topic", bearer(&publisher(&["/a"])), 200, "own"),
        case("its template", bearer(&publisher(&["/{x}"])), 200, "own"),
        case(
            "with a namespace",
            claims(json!({"https://mercure.rocks/": {"publish": ["/a"]}})),
            200,
            "own",
        ),
        case(
            "in time",
            claims(json!({"mercure": {"publish": ["*"]}, "exp": now() + 60})),
            200,
            "own",
        ),
        case("lower case", vec![("authorization", format!("bearer {any}"))], 200, "own"),
        query(format!("?authorization={any}"), 200),
        query(format!("?authorization={any}&authorization={any}"), 401),
        query("?authorization=short".to_owned(), 401),
        case("a cookie alone", cookie(&[]), 401, ""),
        case("of elsewhere", cookie(&[("Origin", "https://evil.example")]), 401, ""),
        case(
            "of no origin",
            cookie(&[("Origin", "null"), ("Referer", "https://a.example/")]),
            401,
            "",
        ),
        case("of the site", cookie(&[("Origin", "https://a.example")]), 200, "own"),
        case("of a page", cookie(&[("Referer", "https://a.example/x?y")]), 200, "own"),
        case("of a part", cookie(&[("Origin", "https://b.wild.example")]), 200, "own"),
        with("data=x".to_owned(), 400, "Missing \"topic\" parameter."),
        with(String::new(), 400, "Missing"),
        with("topic=".to_owned(), 400, ""),
        with("topic=%2Fa&id=1%0D%0Adata%3A%20forged".to_owned(), 400, ""),
        with("topic=%2Fa&type=1%0Adata%3A%20forged".to_owned(), 400, ""),
        with("topic=%2Fa&id=%00".to_owned(), 400, ""),
        with("topic=%2Fa&retry=soon".to_owned(), 400, ""),
        with(form(&[("topic", "https://a.example/.well-known/mercure/subscriptions/x")]), 403, ""),
        with(format!("topic=/{}", "x".repeat(2048)), 400, ""),
        with(many(1000), 200, "urn:uuid:"),
        with(many(1001), 400, ""),
        with(
            form(&[("topic", "/a"), ("id", "id-[\"https://example.net/foo/é\"]")]),
            200,
            "id-[\"https://example.net/foo/é\"]",
        ),
        with(form(&[("topic", "/a"), ("data", &"x".repeat(40_000)), ("id", "big")]), 413, ""),
        Publish {
            headers: [bearer(&any), vec![("Content-Type", "application/json".to_owned())]].concat(),
            ..with(r#"{"topic":"/a"}"#.to_owned(), 400, "Missing")
        },
        Publish {
            headers: [bearer(&any), vec![("Content-Type", "text/plain".to_owned())]].concat(),
            ..with(one(), 400, "Missing")
        },
    ]
}

#[tokio::test]
async fn publishes_are_answered_as_the_deployed_hub_answers_them() {
    let origins = "publish_origins = [\"https://a.example\", \"https://*.wild.example\"]";
    let gate = Gate::start_alone(&format!(
        "{}[history]\nmax_message = \"32KiB\"\nmessages = 1000\n",
        config(origins)
    ))
    .await;
    let mut taken = 0;
    for Publish { name, headers, query, body, status, says } in publish_cases() {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let response = post(&gate, &query, &headers, &body).await;
        assert_eq!(response.status, status, "{name} {query} {body:.80}: {}", response.text());
        assert!(response.text().starts_with(says), "{name} {body:.80}: {}", response.text());
        assert_eq!(response.header("www-authenticate").is_some(), status == 401, "{name}");
        taken += u64::from(status == 200);
    }
    assert_eq!(gate.channel("mercure").await["kept"], taken, "what was refused is not there");
}
