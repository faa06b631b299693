//! Messages between processes while they come together: JSON behind its length in bytes.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest message, in bytes.
const MESSAGE_MAX: u32 = 64 * 1024;

/// Sends a message.
pub(super) async fn send<T: Serialize>(socket: &mut TcpStream, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    socket.write_u32(body.len() as u32).await?;
    socket.write_all(&body).await
}

/// Receives a message. Whoever sends something longer than the largest message is no process of ours.
pub(super) async fn receive<T: DeserializeOwned>(socket: &mut TcpStream) -> io::Result<T> {
    let bytes = socket.read_u32().await?;
    if bytes > MESSAGE_MAX {
        return Err(io::Error::other("this is no process of a faceflow cluster"));
    }
    let mut body = vec![0; bytes as usize];
    socket.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}
