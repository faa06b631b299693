//! A web server without any HTTP library, so that it can break every rule.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// What a server does about one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Writes these bytes and waits for the next request.
    Bytes(Vec<u8>),
    /// Writes these bytes and closes the connection.
    Close(Vec<u8>),
    /// Writes these bytes and says nothing more.
    Hang(Vec<u8>),
    /// Writes these bytes, then the piece again and again with pauses, for ever.
    Repeat(Vec<u8>, Vec<u8>, Duration),
}

/// A running server; dropping it stops it.
pub struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers each request by its path, and by how many requests came before it.
    pub async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(String, usize) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::by_head(move |head, before| handler(head.split(' ').nth(1).unwrap_or_default().to_owned(), before)).await
    }

    async fn by_head<H, F>(handler: H) -> Self
    where
        H: Fn(String, usize) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let heads = Arc::new(Mutex::new(vec![]));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&heads);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, seen) = (handler.clone(), Arc::clone(&seen));
                // An error here is the client that went away, which is what many tests are about.
                connections.spawn(async move { drop(serve(stream, handler, seen).await) });
            }
        });
        Self { port, heads, _tasks: tasks }
    }

    /// Answers every path alike.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_, _| std::future::ready(reply.clone())).await
    }

    /// Answers by path alone.
    pub async fn paths(handler: fn(&str) -> Reply) -> Self {
        Self::start(move |path, _| std::future::ready(handler(&path))).await
    }

    /// Answers by the whole head of a request, and by how many came before it.
    pub async fn heads_start(handler: fn(&str, usize) -> Reply) -> Self {
        Self::by_head(move |head, before| std::future::ready(handler(&head, before))).await
    }

    pub fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).expect("a URL")
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no test panics here").clone()
    }

    /// The paths of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
    }
}

async fn serve<H, F>(mut stream: TcpStream, handler: H, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()>
where
    H: Fn(String, usize) -> F,
    F: Future<Output = Reply>,
{
    stream.set_nodelay(true)?;
    loop {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let before = {
            let mut seen = seen.lock().expect("no test panics here");
            seen.push(head.clone());
            seen.len() - 1
        };
        match handler(head, before).await {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::Close(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Hang(bytes) => {
                stream.write_all(&bytes).await?;
                stream.read_u8().await?;
            }
            Reply::Repeat(bytes, piece, pause) => {
                stream.write_all(&bytes).await?;
                loop {
                    stream.write_all(&piece).await?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// An answer with its true length.
pub fn response(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} Words\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A 200 with its true length.
pub fn ok(body: &str) -> Reply {
    Reply::Bytes(response(200, "Content-Type: text/html\r\n", body.as_bytes()))
}

/// A redirect.
pub fn moved(to: &str) -> Reply {
    Reply::Bytes(response(302, &format!("Location: {to}\r\n"), b"over there"))
}
