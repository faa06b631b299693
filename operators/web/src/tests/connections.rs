//! How many connections stay open.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;

/// A server at every loopback address, and how many connections to it are open.
async fn server() -> (u16, watch::Receiver<usize>, JoinSet<()>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    let (tell, open) = watch::channel(0);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            tell.send_modify(|open| *open += 1);
            let tell = tell.clone();
            connections.spawn(async move {
                serve(stream).await;
                tell.send_modify(|open| *open -= 1);
            });
        }
    });
    (port, open, server)
}

/// Answers every request until the connection is closed.
async fn serve(mut stream: TcpStream) {
    let mut request = vec![0; 4_096];
    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn idle_connections_of_all_hosts_have_a_limit_and_the_others_are_used_again() {
    let (port, mut open, _server) = server().await;
    let client = client(|settings| settings.idle_connections_max = 8);
    let get = |host: usize| {
        let (client, url) = (client.clone(), format!("http://127.0.0.{host}:{port}/"));
        async move { page(&client, &url.parse().expect("a URL")).await.expect("an answer") }
    };
    for hosts in [1..50, 50..100] {
        join_all(hosts.map(get)).await;
        let few = open.wait_for(|open| *open <= 8);
        tokio::time::timeout(Duration::from_secs(3), few).await.expect("long before they are too old").expect("counts");
    }
    get(200).await;
    let before = *open.wait_for(|open| *open <= 8).await.expect("counts");
    get(200).await;
    assert_eq!(*open.borrow(), before, "the one used last has stayed open, and is used again");
}
