//! CloudEvents over HTTP: what is asked and answered stands in an event, whose attributes are headers (binary mode) or
//! stand beside it in the body (structured mode).
//!
//! What the data means is the dialect's matter. Answers are new events with the attributes that KServe gives them.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde::de::Error;
use serde_json::value::RawValue;

use crate::frontend::Refusal;
use crate::infer::ModelName;
use crate::telemetry::trace::random;

/// Where the attributes of an event stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Binary,
    Structured,
}

/// The mode of a request that is an event.
///
/// # Errors
/// When it has a form of events that is not served, or lacks an attribute.
pub(super) fn mode(headers: &HeaderMap) -> Result<Option<Mode>, Refusal> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
    let kind = text(header::CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with(BATCH_MEDIA) {
        return Err(Refusal::unsupported("batches of events are not served, expected one event a request"));
    }
    if kind.split(';').next().is_some_and(|kind| kind.trim() == MEDIA) {
        return Ok(Some(Mode::Structured));
    }
    let Some(version) = text("ce-specversion") else { return Ok(None) };
    check_version(version).map_err(Refusal::invalid)?;
    match ["ce-id", "ce-source", "ce-type"].into_iter().find(|name| text(name).is_none_or(str::is_empty)) {
        None => Ok(Some(Mode::Binary)),
        Some(missing) => {
            Err(Refusal::invalid(format!("the event lacks header {missing}, expected it beside ce-specversion")))
        }
    }
}

/// What is asked within a structured event.
///
/// # Errors
/// When the text is no event.
pub(super) fn data(text: &[u8]) -> Result<Cow<'_, [u8]>, serde_json::Error> {
    let event: Event<'_> = serde_json::from_slice(text)?;
    check_version(&event.specversion).map_err(Error::custom)?;
    let attributes = [("id", &event.id), ("source", &event.source), ("type", &event.kind)];
    if let Some((name, _)) = attributes.iter().find(|(_, value)| value.is_empty()) {
        return Err(Error::custom(format!("the event's {name} is empty")));
    }
    match (event.data, event.data_base64) {
        (Some(data), None) => Ok(Cow::Borrowed(data.get().as_bytes())),
        (None, Some(text)) => {
            let wrong = |error| Error::custom(format!("data_base64 expects base64: {error}"));
            STANDARD.decode(text.as_bytes()).map(Cow::Owned).map_err(wrong)
        }
        _ => Err(Error::custom("the event expects either data or data_base64")),
    }
}

/// An answer in JSON as the data of a structured event.
pub(super) fn structured(model: &ModelName, json: &[u8]) -> Vec<u8> {
    let id = id();
    let mut event = format!(
        "{{\"specversion\":\"{VERSION}\",\"id\":\"{id}\",\"source\":\"{SOURCE}{model}\",\"type\":\"{TYPE}\",\
         \"datacontenttype\":\"application/json\",\"data\":"
    )
    .into_bytes();
    event.extend_from_slice(json);
    event.push(b'}');
    event
}

/// The attributes of an answer in binary mode.
pub(super) fn write(model: &ModelName, headers: &mut HeaderMap) {
    let text = |text: String| HeaderValue::try_from(text).expect("digits, and names of letters, digits and signs");
    headers.insert("ce-specversion", HeaderValue::from_static(VERSION));
    headers.insert("ce-id", text(id()));
    headers.insert("ce-source", text(format!("{SOURCE}{model}")));
    headers.insert("ce-type", HeaderValue::from_static(TYPE));
}

/// The attributes that are asked for; all others are let be.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
}

fn check_version(got: &str) -> Result<(), String> {
    match got {
        VERSION => Ok(()),
        got => {
            let got: String = got.chars().take(SHOWN_MAX).collect();
            Err(format!("events expect specversion {VERSION:?}, got {got:?}"))
        }
    }
}

/// Of one event among all.
fn id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

pub(super) const MEDIA: &str = "application/cloudevents+json";
const BATCH_MEDIA: &str = "application/cloudevents-batch";
const VERSION: &str = "1.0";
const SOURCE: &str = "io.kserve.inference.";
const TYPE: &str = "io.kserve.inference.response";
const SHOWN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn mode_of(pairs: &[(&'static str, &'static str)]) -> Result<Option<Mode>, String> {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        mode(&headers.collect()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn headers_tell_the_mode() {
        assert_eq!(mode_of(&[("content-type", "application/json")]), Ok(None));
        assert_eq!(
            mode_of(&[("content-type", "application/CloudEvents+json; charset=utf-8")]),
            Ok(Some(Mode::Structured))
        );
        let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "b")];
        assert_eq!(mode_of(&binary), Ok(Some(Mode::Binary)));
        let lacks = "the event lacks header ce-type, expected it beside ce-specversion";
        assert_eq!(mode_of(&binary[..3]), Err(lacks.into()));
        let old = "events expect specversion \"1.0\", got \"0.3\"";
        assert_eq!(mode_of(&[("ce-specversion", "0.3")]), Err(old.into()));
        assert!(mode_of(&[("content-type", "application/cloudevents-batch+json")]).unwrap_err().contains("one event"));
    }

    #[test]
    fn data_is_found_among_the_attributes() {
        let event = |rest: &str| format!(r#"{{"specversion":"1.0","id":"1","x":[1],"source":"s","type":"t"{rest}}}"#);
        let read = |text: &str| data(text.as_bytes()).map(Cow::into_owned).map_err(|error| error.to_string());
        assert_eq!(read(&event(r#","data":{"a": [1]}"#)), Ok(br#"{"a": [1]}"#.to_vec()));
        assert_eq!(read(&event(r#","data_base64":"e30=""#)), Ok(b"{}".to_vec()));
        assert!(read(&event("")).unwrap_err().starts_with("the event expects either data or data_base64"));
        assert!(read(&event(r#","data_base64":"?""#)).unwrap_err().starts_with("data_base64 expects base64"));
        assert!(read(r#"{"specversion":"1.0","id":"1","source":"s"}"#).unwrap_err().contains("missing field `type`"));
        assert!(read(r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#).unwrap_err().contains("id is empty"));
    }

    #[test]
    fn an_answer_is_an_event_of_its_own() {
        let model: ModelName = "m".parse().unwrap();
        let text = structured(&model, b"{\"predictions\":[1]}");
        let event: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&event["source"], &event["type"]), (&"io.kserve.inference.m".into(), &TYPE.into()));
        assert_eq!(event["data"]["predictions"][0], 1);
        assert_ne!(structured(&model, b"{}"), structured(&model, b"{}"), "ids differ");
        let mut headers = HeaderMap::new();
        write(&model, &mut headers);
        assert_eq!(headers["ce-source"], "io.kserve.inference.m");
        assert_eq!(headers["ce-specversion"], "1.0");
    }
}
