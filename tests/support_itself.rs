//! The support of the tests can fail: an assertion that cannot is worse than none.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Addr, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A connection to a server that writes `bytes` once the client has begun to listen.
async fn answered_late(bytes: &'static [u8]) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(listener.local_addr().unwrap());
    let client = Client::connect(&addr).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        stream.write_all(bytes).await.unwrap();
        // The connection stays open until the client leaves.
        let _ = stream.read(&mut [0]).await;
    });
    client
}

#[tokio::test]
async fn a_connection_that_gets_something_in_a_moment_is_not_quiet() {
    assert!(!answered_late(b"HTTP/1.1 200 OK\r\n").await.is_quiet().await);
    assert!(answered_late(b"").await.is_quiet().await);
}

#[tokio::test]
async fn a_connection_that_closes_is_not_quiet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::connect(&Addr::Tcp(listener.local_addr().unwrap())).await;
    drop(listener.accept().await.unwrap());
    assert!(!client.is_quiet().await);
}
