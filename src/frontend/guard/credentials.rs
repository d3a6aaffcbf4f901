//! The one secret that a request shows, by whichever header clients of its kind have.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use crate::access::Denied;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub(super) text: String,
    /// Whether a browser adds it by itself, whoever's page asks.
    pub(super) is_ambient: bool,
}

/// # Errors
/// When there is none, or it cannot be read.
pub(super) fn secret(headers: &HeaderMap) -> Result<Secret, Denied> {
    let stated = |text: &str| Secret { text: text.trim().to_owned(), is_ambient: false };
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        let key = headers.get(API_KEY).ok_or(Denied::Missing)?;
        return key.to_str().map(stated).map_err(|_| Denied::Unreadable);
    };
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denied::Unreadable)?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Ok(stated(rest)),
        "basic" => password(rest.trim()).map(|text| Secret { text, is_ambient: true }).ok_or(Denied::Unreadable),
        _ => Err(Denied::Unreadable),
    }
}

/// Whatever the name beside it: a key tells whose it is.
fn password(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

const API_KEY: &str = "x-api-key";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(headers: &[(&'static str, &'static str)], wanted: Result<(&str, bool), Denied>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let wanted = wanted.map(|(text, is_ambient)| Secret { text: text.to_owned(), is_ambient });
        assert_eq!(secret(&headers.collect()), wanted);
    }

    #[test]
    fn secrets_stand_in_three_places() {
        check(&[("authorization", "Bearer abc")], Ok(("abc", false)));
        check(&[("authorization", "bearer  abc ")], Ok(("abc", false)));
        check(&[("x-api-key", "abc")], Ok(("abc", false)));
        check(&[("authorization", "Bearer abc"), ("x-api-key", "other")], Ok(("abc", false)));
        // "anybody:a:b"
        check(&[("authorization", "Basic YW55Ym9keTphOmI=")], Ok(("a:b", true)));
        check(&[], Err(Denied::Missing));
        for wrong in ["abc", "Digest abc", "Basic abc", "Basic YWJj", "Bearer"] {
            check(&[("authorization", wrong)], Err(Denied::Unreadable));
        }
    }
}
