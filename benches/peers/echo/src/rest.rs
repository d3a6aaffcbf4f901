//! A bare hyper HTTP/1.1 server that answers every request with its own body.
//!
//! The body is read whole before the answer starts, as inference must, but is not copied: the frames that came are the frames that go.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub async fn serve(address: SocketAddr) -> Result<(), crate::AnyError> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = hyper::service::service_fn(echo);
            // A client that hangs up is the normal end of a connection here.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Collected<Bytes>>, hyper::Error> {
    let length = request.headers().get(CONTENT_LENGTH).cloned();
    let body = request.into_body().collect().await?;
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // `Collected` does not tell its size; without the header the answer would be chunked.
    headers.insert(CONTENT_LENGTH, length.unwrap_or(HeaderValue::from_static("0")));
    Ok(response)
}
