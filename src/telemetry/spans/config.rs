//! Settings of traces.

use std::fmt;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::units::Span;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TracingConfig {
    #[serde(deserialize_with = "endpoint")]
    pub endpoint: Option<Uri>,
    pub protocol: Protocol,
    pub headers: Vec<Header>,
    /// Of requests whose client says nothing of a trace.
    pub sample_ratio: f64,
    pub service_name: String,
    pub resource_attributes: Vec<Pair>,
    /// Requests and batches.
    pub queue_max: usize,
    pub batch_max: usize,
    pub interval: Span,
    pub timeout: Span,
    pub flush_time_max: Span,
    /// Whether the trace extension may change what is recorded.
    pub settings_over_network: bool,
}

/// How a collector is spoken to, by the names of OpenTelemetry's variables.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Protocol {
    #[serde(rename = "http/protobuf")]
    Http,
    #[serde(rename = "grpc")]
    Grpc,
}

/// `name=value`, percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
}

/// A header of every call to the collector. It may be a secret, so it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    pub name: HeaderName,
    pub value: HeaderValue,
}

impl Pair {
    fn parse(text: &str) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(String::from);
        let (name, value) = text.split_once('=')?;
        Some(Self { name: decoded(name).filter(|name| !name.is_empty())?, value: decoded(value)? })
    }
}

impl Header {
    fn parse(text: &str) -> Option<Self> {
        let Pair { name, value } = Pair::parse(text)?;
        Some(Self { name: name.to_ascii_lowercase().parse().ok()?, value: value.parse().ok()? })
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=...", self.name)
    }
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, Self::parse, "attributes as \"name=value\", percent-encoded")
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, Self::parse, "headers as \"name=value\", percent-encoded")
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uri>, D::Error> {
    let expected = "\"\" or a collector such as \"http://localhost:4318\" (TLS is not spoken)";
    parsed(deserializer, |text| if text.is_empty() { Some(None) } else { http_uri(text).map(Some) }, expected)
}

fn http_uri(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let plain = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    (plain && uri.query().is_none()).then_some(uri)
}

fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Option<T>,
    expected: &str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("expected {expected}, got {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        for (text, wanted) in [
            ("a=b", Some(("a", "b"))),
            (" Authorization = Basic%20YQ== ", Some(("Authorization", "Basic YQ=="))),
            ("a=", Some(("a", ""))),
            ("=b", None),
            ("a", None),
            ("a=%ff", None),
        ] {
            let pair = Pair::parse(text);
            assert_eq!(pair.as_ref().map(|pair| (pair.name.as_str(), pair.value.as_str())), wanted, "{text}");
        }
        let header = Header::parse("Authorization=Basic%20YQ==").unwrap();
        assert_eq!((header.name.as_str(), header.value.as_bytes()), ("authorization", &b"Basic YQ=="[..]));
        assert_eq!(format!("{header:?}"), "authorization=...");
        assert!(Header::parse("a b=c").is_none() && Header::parse("a=%0a").is_none());
    }

    #[test]
    fn endpoints_are_plain_http() {
        for good in ["http://localhost:4318", "http://[::1]:4317/", "http://collector/otlp"] {
            assert!(http_uri(good).is_some(), "{good}");
        }
        for bad in ["localhost:4318", "https://localhost:4318", "http://", "/v1/traces", "http://a/?b"] {
            assert!(http_uri(bad).is_none(), "{bad}");
        }
    }
}
