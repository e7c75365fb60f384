//! Webhooks to real PHP (`docs/webhooks.md`): signed, in order, repeated, and never without a bound.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::tls::{Identity, TlsFront};
use support::{Gate, Metrics, PhpSite, PlainSite, TempDir, Way, eventually};

const CONFIG: &str = r#"
[[channel]]
match = "room-*"
presence = true
grace = "1s"
stream_grace = "1s"

[[poll]]
path = "/comet/*"
dialect = "native"
auth = { kind = "jwt", key = "jwt secret" }

[[webhook]]
url = "/hook.php"
secret = "hush"
"#;

/// A site whose `hook.php` takes webhooks of the secret `hush`.
async fn receiver() -> PhpSite {
    let mut site = PhpSite::of("webhooks");
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/php/Pollgate.php");
    site.env("POLLGATE_CLIENT", client.display().to_string()).workers(4).start().await;
    site
}

/// Lets it fail, hang or work.
fn mode(site: &PhpSite, mode: &str) {
    std::fs::write(site.root().join("mode"), mode).unwrap();
}

/// The target of a poll of `user`.
fn room(channel: &str, user: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let claims = json!({"channels": ["*"], "sub": user}).to_string();
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"jwt secret");
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    format!("/comet/{channel}?token={signed}.{tag}")
}

fn seen(site: &PhpSite) -> Vec<String> {
    let text = std::fs::read_to_string(site.root().join("seen")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn counts(gate: &Gate) -> [f64; 3] {
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], b"").await.text());
    ["sent", "failed", "dropped"].map(|result| {
        metrics.value(&format!("pollgate_webhook_events_total{{result=\"{result}\"}}"))
    })
}

#[tokio::test]
async fn php_learns_who_comes_and_goes_in_order_though_it_fails_and_hangs() {
    let site = receiver().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    let poll = gate.hold(Way::Plain, &room("room-1", "7")).await;
    let first = ["channel_occupied room-1", "member_added room-1 7"];
    eventually("the first events", async || seen(&site) == first).await;
    mode(&site, "hang");
    poll.close();
    gate.wait_for_held(0).await;
    let _other = gate.hold(Way::Plain, &room("room-1", "8")).await;
    gate.wait_for_log("does not answer").await;
    mode(&site, "fail");
    assert_eq!(seen(&site), first);
    mode(&site, "");
    let all = [&first[..], &["member_added room-1 8", "member_removed room-1 7"]].concat();
    eventually("the repetition", async || seen(&site) == all).await;
    assert_eq!(counts(&gate).await[1..], [0.0, 0.0]);
    assert_eq!(counts(&gate).await[0], 4.0);
}

#[tokio::test]
async fn a_channel_is_vacated_some_seconds_after_its_last_client_whatever_it_is_about() {
    let site = receiver().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    // No presence here, and a client that comes back within the time.
    for _ in 0..3 {
        gate.hold(Way::Plain, &room("plain", "7")).await.close();
        gate.wait_for_held(0).await;
    }
    let all = ["channel_occupied plain", "channel_vacated plain"];
    eventually("all", async || seen(&site) == all).await;
}

#[tokio::test]
async fn a_webhook_of_another_secret_is_refused_by_the_php_client() {
    let site = receiver().await;
    let config = CONFIG.replace("hush", "another");
    let gate = Gate::start_before(site.addr(), &config).await;
    let _poll = gate.hold(Way::Plain, &room("room-1", "7")).await;
    let refused = "the webhook is not signed with this secret";
    eventually("a refusal", async || seen(&site).first().is_some_and(|it| it == refused)).await;
    assert!(!gate.log().contains("another"), "{}", gate.log());
}

#[tokio::test]
async fn a_request_is_json_with_its_time_and_only_the_events_that_are_wanted() {
    let mut site = PlainSite::start_by_hand().await;
    let config = CONFIG
        .replace("secret = \"hush\"", "events = [\"member_added\"]\nhost = \"www.example.org\"");
    let gate = Gate::start_before(site.addr(), &config).await;
    let _polls = (
        gate.hold(Way::Plain, &room("room-1", "ann")).await,
        gate.hold(Way::Http2, &room("room-1", "b\"ob")).await,
    );
    let mut visit = site.visit().await;
    assert_eq!(visit.request.line(), "POST /hook.php");
    assert_eq!(visit.request.header("host"), Some("www.example.org"));
    assert_eq!(visit.request.header("content-type"), Some("application/json"));
    assert_eq!(visit.request.header("pollgate-signature"), None);
    let text = visit.read_until("]}").await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert!(body["time_ms"].as_u64().unwrap() > 1_600_000_000_000);
    let event = |user: &str| json!({"name": "member_added", "channel": "room-1", "user": user});
    assert_eq!(body["events"], json!([event("ann"), event("b\"ob")]));
    // It comes again, the same, until it is taken.
    visit.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let mut again = site.visit().await;
    assert_eq!(again.read_until("]}").await, text);
    again.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    eventually("it is sent", async || counts(&gate).await == [2.0, 0.0, 0.0]).await;
}

/// The config of a gate whose receiver is at `https://localhost:port`, trusting `ca`.
fn secured(port: u16, ca: &Path) -> String {
    let url = format!("\"https://localhost:{port}/hook.php\"\nca = \"{}\"", ca.display());
    CONFIG.replace("\"/hook.php\"", &url)
}

/// Writes a certificate; returns its file.
fn written(folder: &TempDir, name: &str, identity: &Identity) -> std::path::PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, &identity.cert).unwrap();
    file
}

#[tokio::test]
async fn a_receiver_behind_tls_gets_the_same_events() {
    let site = receiver().await;
    let folder = TempDir::new("ca");
    let front = TlsFront::before(site.addr(), Identity::any()).await;
    let ca = written(&folder, "ca.pem", Identity::any());
    let gate = Gate::start_alone(&secured(front.port(), &ca)).await;
    let _poll = gate.hold(Way::Plain, &room("room-1", "7")).await;
    let first = ["channel_occupied room-1", "member_added room-1 7"];
    eventually("the first events", async || seen(&site) == first).await;
    // The machine's authorities do not know it.
    gate.write_config(&secured(front.port(), &ca).replace("ca = ", "# ca = "));
    let reloaded = gate.reload().await;
    if reloaded.status == 200 {
        let _other = gate.hold(Way::Plain, &room("room-1", "8")).await;
        gate.wait_for_log("signed by nobody we trust").await;
    } else {
        assert!(reloaded.text().contains("this machine trusts no authority"));
    }
    assert_eq!(seen(&site), first);
}

#[tokio::test]
async fn a_receiver_whose_certificate_is_not_trusted_is_sent_nothing_and_the_reason_is_seen() {
    let site = receiver().await;
    let folder = TempDir::new("ca");
    let front = TlsFront::before(site.addr(), Identity::any()).await;
    let elsewhere = Identity::of(&["other.example"]);
    let misnamed = TlsFront::before(site.addr(), &elsewhere).await;
    let failures = async |gate: &Gate, cause: &str| {
        let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], b"").await.text());
        metrics.value(&format!("pollgate_webhook_failures_total{{cause=\"{cause}\"}}"))
    };
    let cases = [
        (
            front.port(),
            Identity::make(),
            "signed by nobody we trust; name the file of the authority",
        ),
        (misnamed.port(), elsewhere, "not for localhost, only for other.example"),
    ];
    for (index, (port, trusted, reason)) in cases.into_iter().enumerate() {
        let ca = written(&folder, &format!("{index}.pem"), &trusted);
        let gate = Gate::start_alone(&secured(port, &ca)).await;
        let _poll = gate.hold(Way::Plain, &room("room-1", "7")).await;
        gate.wait_for_log(reason).await;
        eventually("it is counted", async || failures(&gate, "tls").await > 0.0).await;
        assert_eq!(failures(&gate, "connection").await, 0.0);
    }
    // Nor is one that speaks no TLS.
    let Some(plain) = site.addr().to_string().rsplit(':').next().and_then(|it| it.parse().ok())
    else {
        panic!("{} has no port", site.addr())
    };
    let ca = written(&folder, "any.pem", Identity::any());
    let gate = Gate::start_alone(&secured(plain, &ca)).await;
    let _poll = gate.hold(Way::Plain, &room("room-1", "7")).await;
    eventually("it is counted", async || failures(&gate, "tls").await > 0.0).await;
    assert_eq!(seen(&site), [""; 0]);
}

#[tokio::test]
async fn a_receiver_that_is_away_fills_a_queue_that_has_a_bound() {
    let config = CONFIG.replace("grace = \"1s\"", "grace = \"0s\"");
    let gate = Gate::start_alone(&config).await;
    let mut client = gate.connect().await;
    let mut sent = 0;
    while counts(&gate).await[2] == 0.0 {
        for _ in 0..500 {
            client.send_get(&format!("{}&timeout=0", room("room-1", &sent.to_string()))).await;
            sent += 1;
        }
        for _ in 0..500 {
            assert_eq!(client.read_response().await.status, 200);
        }
        assert!(sent < 20_000, "there is no bound");
    }
    assert!(sent >= 4_500, "{sent} users are two events each");
}

#[tokio::test]
async fn mistakes_are_reported_and_secrets_are_not_shown() {
    for (from, to, mistake) in [
        ("url = \"/hook.php\"", "", "missing; write the path of a script"),
        ("\"/hook.php\"", "\"ftp://a.example/\"", "cannot be asked"),
        ("\"/hook.php\"", "\"https://a b/\"", "cannot be asked"),
        ("\"/hook.php\"", "\"/hook.php\"\nca = \"/ca.pem\"", "is for https://"),
        (
            "\"/hook.php\"",
            "\"https://a.example/\"\nca = \"/nowhere/ca.pem\"",
            "there is no file /nowhere/ca.pem",
        ),
        ("\"/hook.php\"", "\"/hook.php\"\nevents = [\"member_add\"]", "member_added"),
        ("\"/hook.php\"", "\"/hook.php\"\nevents = []", "at least one event"),
        ("\"/hook.php\"", "\"http://a.example/\"\nhost = \"b.example\"", "a host of its own"),
    ] {
        let gate = Gate::start_alone(CONFIG).await;
        gate.write_config(&CONFIG.replace(from, to));
        let refused = gate.reload().await;
        assert_eq!(refused.status, 422);
        assert!(refused.text().contains(mistake), "{mistake}: {}", refused.text());
        let shown = gate.hook("GET", "/config", &[], b"").await.text();
        assert!(shown.contains("[[webhook]]") && !shown.contains("hush"), "{shown}");
    }
}
