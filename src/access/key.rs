//! API keys: 256 random bits, of which the server keeps a digest alone.
//!
//! A key is found by its SHA-256 in a table whose hash function is keyed at random, and compared in constant time: how long
//! that takes tells nothing of any key. Digests need no salt, since keys are never chosen by people.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::{self, Deserialize, Deserializer};

use crate::digest::Digest;

/// A key that nobody has yet.
///
/// # Errors
/// When the system has no random bytes.
pub fn generate() -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// A digest in a file. Whoever put the key itself there must not find it in a log.
pub(super) fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let written = String::deserialize(deserializer)?;
    written.parse().map_err(|_| de::Error::custom("expected a SHA-256 as 64 hexadecimal digits"))
}

/// So that people, and programs that look for leaked secrets, know one when they see it.
const PREFIX: &str = "kinglet_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_have_256_bits() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        let random = URL_SAFE_NO_PAD.decode(one.strip_prefix("kinglet_").unwrap()).unwrap();
        assert_eq!(random.len(), 32);
    }
}
