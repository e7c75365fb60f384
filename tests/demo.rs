//! `pollgate demo`: a chat to try the gate with, without a site of one's own.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use support::{Client, FORM, demo, eventually};

#[tokio::test]
async fn it_says_which_page_to_open_and_serves_it() {
    let (process, gate, _) = demo::start().await;
    assert!(process.stdout().contains(&format!("Open http://{gate}/ ")), "{}", process.stdout());
    let page = Client::connect(&gate).await.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("/pollgate.js") && text.contains("/say"), "{text}");
    assert_eq!(Client::connect(&gate).await.get("/pollgate.js").await.status, 200);
    assert_eq!(Client::connect(&gate).await.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn what_one_says_reaches_everybody_who_waits() {
    let (_process, gate, internal) = demo::start().await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(&gate).await;
        client.send_get("/comet/demo").await;
        waiting.push(client);
    }
    eventually("three held polls", async || {
        Client::connect(&internal).await.get("/status").await.json()["held"] == 3
    })
    .await;
    let mut client = Client::connect(&gate).await;
    let said = client.post("/say", FORM, "name=Ann&text=Hello+%3Cb%3E%C3%BC").await;
    assert_eq!((said.status, said.json()), (200, json!({"ok": true})));
    for client in &mut waiting {
        let answer = client.read_response().await.json();
        let expected = json!({"name": "Ann", "text": "Hello <b>ü"});
        assert_eq!(answer["messages"][0]["data"], expected);
    }
    assert_eq!(client.post("/say", FORM, "name=Ann&text=+").await.status, 400);
}

#[tokio::test]
async fn it_lists_those_who_wait_under_a_name() {
    let (_process, gate, internal) = demo::start().await;
    let mut waiting = Vec::new();
    // By a header, in the address, and without a name.
    for (query, headers) in [
        ("", &[("Authorization", "Bearer J%C3%BCrg")][..]),
        ("?token=%253Cb%253EAnn", &[]),
        ("?token=%2520", &[]),
        ("", &[]),
    ] {
        let mut client = Client::connect(&gate).await;
        client.send("GET", &format!("/comet/demo{query}"), headers, b"").await;
        waiting.push(client);
    }
    eventually("four clients", async || {
        let list = Client::connect(&internal).await.get("/channels/demo/presence").await.json();
        let members = list["members"].as_array().unwrap();
        let mut users: Vec<_> = members.iter().map(|one| one["user"].as_str().unwrap()).collect();
        users.sort_unstable();
        list["connections"] == 4 && list["count"] == 2 && users == ["<b>Ann", "Jürg"]
    })
    .await;
}

#[tokio::test]
async fn a_reload_leaves_it_its_site() {
    let (process, gate, internal) = demo::start().await;
    let reload = async || Client::connect(&internal).await.post("/reload", "", "").await;
    let answer = reload().await.json();
    assert_eq!(answer, json!({ "generation": 2, "changed": [], "restart": [] }));
    process.signal("HUP");
    eventually("a reload by the signal", async || {
        Client::connect(&internal).await.get("/status").await.json()["generation"] == 3
    })
    .await;
    let mut client = Client::connect(&gate).await;
    assert_eq!(client.get("/").await.status, 200);
    let said = client.post("/say", FORM, "text=hi").await;
    assert_eq!(said.status, 200, "{}", said.text());
}

#[tokio::test]
async fn it_ends_like_any_gate() {
    let (process, gate, _) = demo::start().await;
    assert_eq!(Client::connect(&gate).await.get("/").await.status, 200);
    process.signal("INT");
    assert_eq!(process.wait_for_exit().await.code(), Some(0));
}
