//! Published messages and requests cannot make the gate send more than it should: no header of
//! their own, no script in a response, no access for a foreign page, no secret.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Gate, Way};

const RULES: &str = r#"
    [publish]
    token = "hunter2-hunter2-hunter2"
    [[poll]]
    path    = "/comet/*"
    dialect = "native"
    origins = ["https://ours.example"]
    [[poll]]
    path    = "/novcomet"
    when    = ["subscribed"]
    dialect = "novcomet"
    [[poll]]
    path    = "/timestamp"
    dialect = "timestamp"
    channel = "c"
    first   = "oldest"
    callback = "callback"
    [[poll]]
    path    = "/bare"
    dialect = "timestamp"
    channel = "c"
    first   = "oldest"
    fields  = { message = "." }
"#;

const TOKEN: &str = "hunter2-hunter2-hunter2";

async fn start() -> Gate {
    Gate::with(RULES).alone().token(TOKEN).start().await
}

const TARGETS: [&str; 4] =
    ["/comet/c?cursor=oldest", "/novcomet?subscribed[c]=0.1", "/timestamp", "/bare"];

#[tokio::test]
async fn what_is_published_adds_no_header_and_is_taken_for_no_page() {
    let gate = start().await;
    let evil = "<script>alert(1)</script>\r\nSet-Cookie: a=b\r\n\r\n";
    for kind in ["text/html", "image/svg+xml", "text/plain; x=a"] {
        gate.publish_as("c", kind, evil).await;
        for way in Way::ALL {
            for target in TARGETS {
                let answer = way.connect(&gate).await.poll(target).await;
                let what = format!("{way:?} {target} {kind}: {answer:?}");
                assert_eq!(answer.status, 200, "{what}");
                assert_eq!(answer.header("set-cookie"), None, "{what}");
                let shown = answer.header("content-type").unwrap_or_default();
                assert!(!shown.contains("svg"), "{what}");
                let html = shown.is_empty() || shown.starts_with("text/html");
                let harmless = !answer.text().contains('<');
                let nosniff = answer.header("x-content-type-options") == Some("nosniff");
                let json = shown.starts_with("application/json");
                // The bare message is what the site would have printed, so that it may be a page.
                let bare = target == "/bare" && nosniff;
                assert!(bare || harmless || !html && (nosniff || json), "{what}");
            }
        }
    }
    // An invalid content type is not accepted as one.
    for kind in ["text/html\u{7f}", "\u{e4}", "text"] {
        let headers = [("Content-Type", kind)];
        let answer = gate.hook("POST", "/channels/c", &headers, "x").await;
        assert!(matches!(answer.status, 200 | 400), "{kind:?}: {}", answer.text());
    }
    for name in ["a(1)//", "a\"", "<script>", "a%0d%0aX: y", "a b", "a;b"] {
        let target = format!("/timestamp?callback={}", name.replace(' ', "%20"));
        let answer = gate.get(&target).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(!answer.text().contains('<'), "{}", answer.text());
    }
}

#[tokio::test]
async fn no_page_of_another_origin_is_told_anything() {
    let gate = start().await;
    gate.publish("c", "x").await;
    for way in Way::ALL {
        for origin in ["https://evil.example", "null", "https://ours.example.evil.example"] {
            for target in TARGETS {
                let mut poller = way.connect(&gate).await;
                let answer = poller.poll_with("GET", target, &[("Origin", origin)]).await;
                let told = answer.headers.iter().any(|(name, value)| {
                    name.to_lowercase().starts_with("access-control") || value.contains(origin)
                });
                assert!(!told, "{way:?} {target} {origin}: {answer:?}");
            }
        }
        let mut poller = way.connect(&gate).await;
        let headers = [("Origin", "https://ours.example")];
        let answer = poller.poll_with("GET", TARGETS[0], &headers).await;
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://ours.example"), "{way:?}");
    }
}

#[tokio::test]
async fn secrets_are_shown_nowhere() {
    let gate = start().await;
    gate.get("/comet/c?timeout=0&token=letmein-1&Authorization=letmein-2").await;
    let wrong = [("Authorization", "Bearer letmein-3")];
    let headers = [("Authorization", "Basic letmein-4")];
    gate.hook("POST", "/channels/c?token=letmein-5", &wrong, "x").await;
    gate.connect().await.request("GET", "/comet/c?timeout=0", &headers, b"").await;
    for path in ["/status", "/config", "/metrics", "/nothing", "/reload"] {
        let answer = gate.hook(if path == "/reload" { "POST" } else { "GET" }, path, &[], "").await;
        assert!(!answer.text().contains(TOKEN), "{path}: {}", answer.text());
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    gate.signal("TERM");
    gate.wait_for_exit().await;
    let log = gate.log();
    assert!(log.contains("/comet/c"), "{log}");
    assert!(!log.contains("letmein") && !log.contains(TOKEN), "{log}");
}
