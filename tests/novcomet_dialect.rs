//! The NovComet dialect as its clients see it (`docs/dialects/novcomet.md`).

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use support::rules::NOVCOMET;
use support::{FORM, Gate, PlainSite, Poller, Way, eventually};

/// The rule with further keys.
fn rule(more: &str) -> String {
    format!("{NOVCOMET}{more}\n")
}

fn now_in_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn poll(poller: &mut Poller, query: &str) -> Value {
    poller.poll(&format!("/comet.php?{query}")).await.json()
}

/// Waits until `id` has not changed within the rule's slack.
async fn wait_out_the_slack(gate: &Gate, id: &str) {
    eventually("the end of the slack", async || {
        let target = format!("/comet.php?subscribed[{id}]=0");
        gate.get(&target).await.json() == json!({"s": 0})
    })
    .await;
}

#[tokio::test]
async fn a_held_poll_is_told_what_has_changed() {
    for way in Way::ALL {
        let gate = Gate::start_alone(NOVCOMET).await;
        let mut poller = gate.hold(way, "/comet.php?subscribed[news]=0&subscribed[b]=0").await;
        assert!(poller.is_quiet().await);
        let published = gate.publish("news", "").await;
        assert_eq!(published["released"], 1);

        let response = poller.answer().await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        // JSON's number has lost the zeros at its end.
        let stamp = format!("{:.6}", published["stamp"].as_f64().unwrap());
        assert_eq!(response.text(), format!(r#"{{"s":1,"k":{{"news":{stamp}}}}}"#));
    }
}

#[tokio::test]
async fn every_id_that_changed_is_in_the_answer_and_no_other() {
    for way in Way::ALL {
        let gate = Gate::start_alone(NOVCOMET).await;
        let mut poller = way.connect(&gate).await;
        let a = gate.publish("a", "").await;
        let c = gate.publish("c", "").await;
        let ids = "subscribed[a]=0&subscribed[b]=0&subscribed[c]=0";
        let answer = poll(&mut poller, ids).await;
        assert_eq!(answer, json!({"s": 1, "k": {"a": a["stamp"], "c": c["stamp"]}}));

        // The client keeps its stamps, and is held until something changes after them.
        let known = format!("subscribed[a]={}&subscribed[c]={}", a["stamp"], c["stamp"]);
        poller.ask(&format!("/comet.php?{known}")).await;
        gate.wait_for_held(1).await;
        let later = gate.publish("c", "").await;
        assert_eq!(poller.answer().await.json(), json!({"s": 1, "k": {"c": later["stamp"]}}));
    }
}

#[tokio::test]
async fn the_last_stamp_gives_every_change_between_two_polls() {
    for way in Way::ALL {
        let gate = Gate::start_alone(NOVCOMET).await;
        let mut poller = gate.hold(way, "/comet.php?subscribed[a]=0").await;
        let first = gate.publish("a", "").await;
        assert_eq!(poller.answer().await.json()["k"]["a"], first["stamp"]);

        gate.publish("a", "").await;
        let newest = gate.publish("a", "").await;
        let answer = poll(&mut poller, &format!("subscribed[a]={}", first["stamp"])).await;
        assert_eq!(answer, json!({"s": 1, "k": {"a": newest["stamp"]}}));
    }
}

#[tokio::test]
async fn a_quiet_poll_ends_with_s_0() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("timeout = \"50ms\"")).await;
        let mut poller = way.connect(&gate).await;
        let response = poller.poll("/comet.php?subscribed[a]=0").await;
        assert_eq!(response.text(), r#"{"s":0}"#);
        assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
    }
}

#[tokio::test]
async fn what_changes_between_two_quiet_polls_is_not_missed() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("timeout = \"50ms\"")).await;
        let mut poller = way.connect(&gate).await;
        assert_eq!(poll(&mut poller, "subscribed[a]=0").await, json!({"s": 0}));
        let published = gate.publish("a", "").await;
        let answer = poll(&mut poller, "subscribed[a]=0").await;
        assert_eq!(answer, json!({"s": 1, "k": {"a": published["stamp"]}}));
    }
}

#[tokio::test]
async fn brackets_may_be_encoded_and_other_parameters_are_ignored() {
    for way in Way::ALL {
        let gate = Gate::start_alone(NOVCOMET).await;
        for query in [
            "subscribed[a]=0",
            "subscribed%5Ba%5D=0",
            "subscribed%5ba%5d=0",
            "_=17&subscribed[a]=0&publish=&x[y]=1&timestamp=9",
            "subscribed[%61]=0",
        ] {
            let mut poller = gate.hold(way, &format!("/comet.php?{query}")).await;
            let published = gate.publish("a", "").await;
            let expected = json!({"s": 1, "k": {"a": published["stamp"]}});
            assert_eq!(poller.answer().await.json(), expected, "{query}");
            // The next round begins without a change within the slack.
            gate.forget("a").await;
        }
    }
}

#[tokio::test]
async fn a_change_is_told_even_when_its_message_is_gone() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("[history]\nage = \"50ms\"\n{NOVCOMET}")).await;
        let first = gate.publish("a", "x").await;
        let newest = gate.publish("a", "y").await;
        gate.wait_for_kept("a", 0).await;
        let mut poller = way.connect(&gate).await;
        let answer = poll(&mut poller, &format!("subscribed[a]={}", first["stamp"])).await;
        assert_eq!(answer, json!({"s": 1, "k": {"a": newest["stamp"]}}));
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_means_now() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("slack = \"50ms\"\ntimeout = \"100ms\"")).await;
        gate.publish("a", "").await;
        wait_out_the_slack(&gate, "a").await;
        let mut poller = way.connect(&gate).await;
        for cursor in ["0", "", "-5", "0.0", "x", "NaN", "-1e9", "0x10", "1.2.3", "%00"] {
            let answer = poll(&mut poller, &format!("subscribed[a]={cursor}")).await;
            assert_eq!(answer, json!({"s": 0}), "{cursor}");
        }
        let answer = poll(&mut poller, "subscribed[a][b]=1").await;
        assert_eq!(answer, json!({"s": 0}));
    }
}

#[tokio::test]
async fn now_reaches_back_as_far_as_the_slack() {
    for way in Way::ALL {
        // A slack that the test cannot outlast.
        let gate = Gate::start_alone(&rule("slack = \"1h\"")).await;
        let published = gate.publish("a", "").await;
        let mut poller = way.connect(&gate).await;
        for cursor in ["0", "-1", "", "x"] {
            let answer = poll(&mut poller, &format!("subscribed[a]={cursor}")).await;
            assert_eq!(answer["k"]["a"], published["stamp"], "{cursor}");
        }
    }
}

#[tokio::test]
async fn a_cursor_ahead_of_the_clock_counts_as_now() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("slack = \"50ms\"")).await;
        for cursor in [format!("{}", now_in_seconds() + 3600), "9".repeat(30), "1e300".into()] {
            let target = format!("/comet.php?subscribed[a]={cursor}");
            let mut poller = gate.hold(way, &target).await;
            let published = gate.publish("a", "").await;
            assert_eq!(poller.answer().await.json()["k"]["a"], published["stamp"], "{cursor}");
            gate.forget("a").await;
        }
    }
}

#[tokio::test]
async fn the_clients_first_cursor_is_its_own_clock() {
    for way in Way::ALL {
        let gate = Gate::start_alone(NOVCOMET).await;
        let target = format!("/comet.php?subscribed[a]={}", now_in_seconds());
        let mut poller = gate.hold(way, &target).await;
        let published = gate.publish("a", "").await;
        assert_eq!(poller.answer().await.json()["k"]["a"], published["stamp"]);
    }
}

#[tokio::test]
async fn a_publish_of_a_browser_goes_to_the_site() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), NOVCOMET).await;
    let held = gate.hold(Way::Plain, "/comet.php?subscribed[a]=0").await;
    for target in ["/comet.php?publish=a", "/comet.php?publish=a&subscribed[a]=0"] {
        assert_eq!(gate.get(target).await.text(), format!("site: GET {target}"));
    }
    assert_eq!(gate.held().await, 1, "only the hook releases");
    drop(held);
}

#[tokio::test]
async fn a_rule_can_let_browsers_publish_an_empty_message() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &rule("browser_publish = true")).await;
    let mut held = gate.hold(Way::Plain, "/comet.php?subscribed[a]=0").await;
    let response = gate.get("/comet.php?publish=a").await;
    assert_eq!((response.status, response.text().as_str()), (200, "true"));
    let newest = gate.channel("a").await;
    assert_eq!(newest["bytes"], 0);
    assert_eq!(held.answer().await.json()["k"]["a"], newest["newest"]["stamp"]);
    assert_eq!(gate.get("/comet.php?publish=%01").await.status, 400);
    assert_eq!(site.requests().len(), 0);
}

#[tokio::test]
async fn ids_cannot_be_made_to_run_in_a_browser() {
    let gate = Gate::start_alone(NOVCOMET).await;
    let id = "</script>&\"\u{2028}";
    gate.publish(id, "").await;
    let escaped = "%3C/script%3E%26%22%E2%80%A8";
    let mut poller = Way::Plain.connect(&gate).await;
    let response = poller.poll(&format!("/comet.php?subscribed[{escaped}]=0")).await;
    let text = response.text();
    assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
    assert!(text.contains(r"\u003c/script\u003e\u0026\"), "{text}");
    assert!(response.json()["k"][id].is_number(), "{text}");
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn a_form_polls_as_a_query_does() {
    let gate = Gate::start_alone(NOVCOMET).await;
    let multipart = "--edge\r\nContent-Disposition: form-data; name=\"subscribed[a]\"\r\n\r\n\
                     0\r\n--edge--\r\n";
    for (kind, body) in [
        (FORM, "subscribed%5Ba%5D=0&x=1"),
        ("application/x-www-form-urlencoded; charset=UTF-8", "subscribed[a]=0"),
        ("multipart/form-data; boundary=edge", multipart),
        ("multipart/form-data; boundary=\"edge\"", multipart),
    ] {
        let mut client = gate.connect().await;
        client.send("POST", "/comet.php", &[("Content-Type", kind)], body.as_bytes()).await;
        gate.wait_for_held(1).await;
        let published = gate.publish("a", "").await;
        assert_eq!(client.read_response().await.json()["k"]["a"], published["stamp"], "{kind}");
        gate.forget("a").await;
    }
}

#[tokio::test]
async fn stamps_are_written_in_the_channels_tick() {
    let ticks = r#"
        [[channel]]
        match = "ms"
        stamp = "millis"
        [[channel]]
        match = "s"
        stamp = "seconds"
    "#;
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("{NOVCOMET}{ticks}")).await;
        let mut poller = way.connect(&gate).await;
        for (id, digits) in [("ms", 13), ("s", 10)] {
            // A burst within one tick: every change has a stamp of its own.
            let mut last = 0;
            for _ in 0..3 {
                let published = gate.publish(id, "").await;
                let answer = poll(&mut poller, &format!("subscribed[{id}]={last}")).await;
                assert_eq!(answer["k"][id], published["stamp"]);
                let stamp = published["stamp"].as_u64().unwrap();
                assert!(stamp > last && stamp.to_string().len() == digits, "{stamp}");
                last = stamp;
            }
            poller.ask(&format!("/comet.php?subscribed[{id}]={last}")).await;
            gate.wait_for_held(1).await;
            let published = gate.publish(id, "").await;
            assert_eq!(poller.answer().await.json()["k"][id], published["stamp"]);
        }
    }
}

#[tokio::test]
async fn ids_that_no_channel_has_are_refused() {
    for way in Way::ALL {
        let gate = Gate::start_alone(NOVCOMET).await;
        let long = "a".repeat(256);
        for id in ["%0A", "a%01", "%7F", &long] {
            let mut poller = way.connect(&gate).await;
            let response = poller.poll(&format!("/comet.php?subscribed[{id}]=0")).await;
            assert_eq!(response.status, 400, "{id}");
        }
    }
}

#[tokio::test]
async fn without_any_rule_novcomet_is_polled_at_comet() {
    let gate = Gate::start_alone("").await;
    for way in Way::ALL {
        let mut poller = gate.hold(way, "/comet?subscribed[a]=0").await;
        gate.publish("a", "").await;
        assert_eq!(poller.answer().await.json()["s"], 1);
        gate.forget("a").await;
    }
}
