//! What a call's metadata says before its message is looked at: how long the client waits.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::frontend::Refusal;

/// Until when the client of a call that began at `began` waits; `None` where it does not say.
///
/// # Errors
/// When the metadata has a deadline that cannot be read.
pub(super) fn deadline(metadata: &MetadataMap, began: Instant) -> Result<Option<Instant>, Refusal> {
    let Some(value) = metadata.get(TIMEOUT) else { return Ok(None) };
    Ok(began.checked_add(timeout(value.as_encoded_bytes())?))
}

/// One to eight digits and a unit, as the gRPC protocol has it.
fn timeout(text: &[u8]) -> Result<Duration, Refusal> {
    let wrong = || {
        let got = String::from_utf8_lossy(&text[..text.len().min(SHOWN_MAX)]).into_owned();
        Refusal::invalid(format!("metadata {TIMEOUT} expects 1 to 8 digits and one of H, M, S, m, u, n, got {got:?}"))
    };
    let (unit, digits) = text.split_last().ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(wrong()),
    }
}

const TIMEOUT: &str = "grpc-timeout";
/// An error message repeats at most this much of what a client sent.
const SHOWN_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, expected: Option<Duration>) {
        let mut metadata = MetadataMap::new();
        metadata.insert(TIMEOUT, text.parse().unwrap());
        let began = Instant::now();
        let got = deadline(&metadata, began).map(|deadline| deadline.unwrap() - began);
        assert_eq!(got.ok(), expected, "{text}");
    }

    #[test]
    fn timeouts_have_every_unit() {
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("250m", Some(Duration::from_millis(250)));
        check("7u", Some(Duration::from_micros(7)));
        check("0n", Some(Duration::ZERO));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789S", "1.5S", "+5S"] {
            check(wrong, None);
        }
        assert_eq!(deadline(&MetadataMap::new(), Instant::now()).unwrap(), None);
    }
}
