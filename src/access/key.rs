//! API keys: 256 random bits, of which the server keeps a digest alone.
//!
//! A key is found by its SHA-256 in a table whose hash function is keyed at random, and compared in constant time: how long
//! that takes tells nothing of any key. Digests need no salt, since keys are never chosen by people.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::{self, Deserialize, Deserializer};
use subtle::ConstantTimeEq;

#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Digest {
    pub fn of(secret: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, secret);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// A key that nobody has yet.
///
/// # Errors
/// When the system has no random bytes.
pub fn generate() -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    /// Enough to tell two apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_char('…')
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let is_whole = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes: Option<Vec<u8>> = is_whole.then(|| (0..32).filter_map(|place| byte(2 * place)).collect());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        // Whoever put the key itself there must not find it in a log.
        bytes.map(Self).ok_or_else(|| de::Error::custom("expected a SHA-256 as 64 hexadecimal digits"))
    }
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

    #[test]
    fn digests_read_what_they_write() {
        // FIPS 180-2's example.
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let read = |text: &str| toml::from_str::<std::collections::HashMap<String, Digest>>(&format!("a = \"{text}\""));
        assert_eq!(read(&digest.to_string()).unwrap()["a"], digest);
        assert_eq!(read(&digest.to_string().to_uppercase()).unwrap()["a"], digest);
        for wrong in ["", "ba78", &"é".repeat(32), &"+1".repeat(32)] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }
}
