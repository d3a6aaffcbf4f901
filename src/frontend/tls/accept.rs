//! A connection from its first byte to a secure one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Tls;

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the handshake took too long")]
    Slow,
    #[error("the client speaks HTTP without TLS")]
    Plain,
    /// Whoever looks whether a port is open does so.
    #[error("the client left without a word")]
    Silent,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// # Errors
/// When the client breaks off, speaks no TLS, has no certificate where one is demanded, or takes longer than `time_max`.
pub async fn accept(stream: TcpStream, tls: &Tls, time_max: Duration) -> Result<TlsStream<TcpStream>, HandshakeError> {
    timeout(time_max, secured(stream, tls)).await.unwrap_or(Err(HandshakeError::Slow))
}

async fn secured(stream: TcpStream, tls: &Tls) -> Result<TlsStream<TcpStream>, HandshakeError> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err(HandshakeError::Silent),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(HandshakeError::Silent),
        arrived => arrived?,
    };
    // No handshake begins with a letter, and every method of HTTP does.
    if first[0].is_ascii_uppercase() {
        return Err(tell(stream).await.map_or_else(HandshakeError::Broken, |()| HandshakeError::Plain));
    }
    Ok(TlsAcceptor::from(Arc::clone(&tls.current())).accept(stream).await?)
}

/// Tells a client what it should have spoken. What it sends is read for a moment: closing before that would throw the
/// answer away.
async fn tell(mut stream: TcpStream) -> io::Result<()> {
    let answer = format!("{HEAD}{}\r\n\r\n{EXPECTED}", EXPECTED.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let (mut sink, mut read) = ([0; 4096], 0);
    while read < UNREAD_BYTES_MAX {
        match timeout(UNREAD_TIME_MAX, stream.read(&mut sink)).await {
            Ok(Ok(count)) if count > 0 => read += count,
            _ => break,
        }
    }
    Ok(())
}

const HEAD: &str =
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
const EXPECTED: &str = "{\"error\":\"this port expects TLS (https://), got plain HTTP\"}\n";
const UNREAD_BYTES_MAX: usize = 64 << 10;
const UNREAD_TIME_MAX: Duration = Duration::from_millis(500);
