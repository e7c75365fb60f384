#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::hub::channel::{Cursor, Take};
use crate::hub::{self, PollOutcome, Subscription, Waiter};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

fn publisher(settings: hub::Settings) -> Publisher {
    let hub = Hub::new(settings, 1);
    let max_message =
        Arc::new(ArcSwap::from_pointee(Settings { max_message: 8, ..Settings::default() }));
    Publisher::new(
        hub,
        None,
        Arc::new(|| Time(1_700_000_000_000_000)),
        max_message,
        Arc::default(),
        Arc::default(),
    )
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn hold(publisher: &Publisher, channels: &[&str]) -> Waiter {
    let subscription =
        |channel: &&str| Subscription { channel: name(channel), cursor: Cursor::Now };
    let subscriptions: Vec<_> = channels.iter().map(subscription).collect();
    match publisher.hub().poll(&subscriptions, Take::All, true, publisher.now()).unwrap() {
        PollOutcome::Waiting(waiter) => waiter,
        PollOutcome::Answer(answer) => panic!("not held: {answer:?}"),
    }
}

#[tokio::test]
async fn a_receipt_tells_position_stamp_and_released() {
    let publisher = publisher(hub::Settings::default());
    let waiter = hold(&publisher, &["live"]);
    let posts = vec![(name("live"), Payload::text("hi"))];
    let receipts = publisher.publish(posts, Source::Watch).await.unwrap();
    assert_eq!(receipts[0].id.seq, 1);
    assert_eq!(receipts[0].stamp.to_string(), "1700000000.000000");
    assert_eq!(receipts[0].released, 1);
    waiter.notified().await;
    assert_eq!(publisher.counts().of(Source::Watch), 1);
}

#[tokio::test]
async fn a_poll_on_two_channels_counts_as_released_once() {
    let publisher = publisher(hub::Settings::default());
    let _waiter = hold(&publisher, &["a", "b"]);
    let posts = vec![(name("a"), Payload::empty()), (name("b"), Payload::empty())];
    let receipts = publisher.publish(posts, Source::Hook).await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.released).sum::<usize>(), 1);
}

#[tokio::test]
async fn one_message_that_is_too_long_stops_them_all() {
    let publisher = publisher(hub::Settings::default());
    let posts = vec![(name("a"), Payload::text("fits")), (name("b"), Payload::text("too long!"))];
    let error = publisher.publish(posts, Source::Hook).await.unwrap_err();
    assert_eq!(error.to_string(), "the message for \"b\" has 9 bytes, more than 8");
    assert_eq!(publisher.hub().channels(), 0);
    assert_eq!(publisher.counts().of(Source::Hook), 0);
}

#[tokio::test]
async fn a_crowd_is_rung_after_the_receipt_and_whole() {
    let publisher = publisher(hub::Settings::default());
    let crowd: Vec<_> = (0..1_000).map(|_| hold(&publisher, &["live"])).collect();
    let receipts =
        publisher.publish(vec![(name("live"), Payload::empty())], Source::Hook).await.unwrap();
    assert_eq!(receipts[0].released, 1_000);
    let all = async {
        for waiter in &crowd {
            waiter.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
}

#[test]
fn outside_of_a_runtime_a_crowd_is_rung_as_well() {
    let publisher = publisher(hub::Settings::default());
    let crowd: Vec<_> = (0..300).map(|_| hold(&publisher, &["live"])).collect();
    // Ready at once: the hub assigns the position.
    let publishing = pin!(publisher.publish(vec![(name("live"), Payload::empty())], Source::Watch));
    assert!(publishing.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for waiter in &crowd {
            waiter.notified().await;
        }
    });
}

#[tokio::test]
async fn forgetting_releases_and_is_told_apart_from_nothing() {
    let publisher = publisher(hub::Settings::default());
    assert_eq!(publisher.forget(&name("live")).await, Ok(None));
    let mut waiter = hold(&publisher, &["live"]);
    assert_eq!(publisher.forget(&name("live")).await, Ok(Some(1)));
    waiter.notified().await;
    assert!(waiter.look(publisher.now()).unwrap()[0].found.reset);
}
