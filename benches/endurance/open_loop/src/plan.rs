//! What to send, where and when: the command line.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Uri};

use crate::AnyError;

pub struct Plan {
    pub is_http2: bool,
    pub address: SocketAddr,
    /// Requests a second.
    pub rate: f64,
    pub length: Duration,
    /// Connections opened before the first request.
    pub connections: usize,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Plan {
    pub fn parse(arguments: &[String]) -> Result<Self, AnyError> {
        let [wire, address, path, body, rate, seconds, connections, headers @ ..] = arguments else {
            return Err(USAGE.into());
        };
        let is_http2 = match wire.as_str() {
            "http1" => false,
            "http2" => true,
            other => return Err(format!("expected http1 or http2, got {other:?}").into()),
        };
        let headers = headers.iter().map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("expected NAME:VALUE, got {line:?}"))?;
            Ok((name.trim().parse()?, value.trim().parse()?))
        });
        // HTTP/2 carries the address in its URI, HTTP/1.1 in a header.
        let uri = if is_http2 { format!("http://{address}{path}") } else { path.clone() };
        Ok(Self {
            is_http2,
            address: address.parse()?,
            rate: rate.parse()?,
            length: Duration::from_secs_f64(seconds.parse()?),
            connections: connections.parse()?,
            uri: uri.parse()?,
            headers: headers.collect::<Result<_, AnyError>>()?,
            body: std::fs::read(body)?.into(),
        })
    }

    pub fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        if !self.is_http2 {
            let host = HeaderValue::from_str(&self.address.to_string());
            headers.insert(hyper::header::HOST, host.expect("an address has only ASCII characters"));
        }
        headers.extend(self.headers.iter().cloned());
        request
    }

    /// When each request is due, from the start on: a Poisson process, the same at every run.
    pub fn arrivals(&self) -> impl Iterator<Item = Duration> + use<> {
        let (rate, length) = (self.rate, self.length);
        let (mut state, mut at) = (SEED, 0.0);
        std::iter::from_fn(move || {
            // xorshift64*: good enough for gaps, and no dependency.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let draw = (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64;
            at -= (1.0 - draw).ln() / rate;
            Some(Duration::from_secs_f64(at))
        })
        .take_while(move |due| *due < length)
    }
}

const USAGE: &str =
    "expected http1|http2 ADDRESS PATH BODY_FILE REQUESTS_PER_SECOND SECONDS CONNECTIONS [NAME:VALUE]...";
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
