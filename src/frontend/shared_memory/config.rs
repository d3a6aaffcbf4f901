//! Settings of shared memory.

use std::path::PathBuf;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::units::ByteSize;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SharedMemoryConfig {
    pub enabled: bool,
    /// Where the system has its segments.
    pub path: PathBuf,
    pub prefix: Prefix,
    pub regions_max: usize,
    pub bytes_max: ByteSize,
}

/// What the keys of segments begin with, without the slash in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The file's name that a key stands for, where it is one that clients may use. As the C library has it, the slash in
    /// front may be missing.
    pub fn file_name<'k>(&self, key: &'k str) -> Option<&'k str> {
        let name = key.strip_prefix('/').unwrap_or(key);
        (is_name(name) && name.starts_with(&self.0)).then_some(name)
    }
}

/// Whether a text names a file of a folder and nothing else, and can stand in any log or answer.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) && text != "." && text != ".."
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix('/').ok_or(())?;
        if rest.is_empty() || is_name(rest) { Ok(Self(rest.to_owned())) } else { Err(()) }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |()| D::Error::custom(format!("expected a slash and what keys begin with behind it, got {text:?}"));
        text.parse().map_err(wrong)
    }
}

/// Of a file in a folder, by the system.
pub(super) const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_with_the_prefix() {
        let check = |prefix: &str, key: &str, name: Option<&str>| {
            assert_eq!(prefix.parse::<Prefix>().unwrap().file_name(key), name, "{prefix} {key:?}");
        };
        check("/kinglet_", "/kinglet_a", Some("kinglet_a"));
        check("/kinglet_", "kinglet_a", Some("kinglet_a"));
        check("/kinglet_", "/kinglet_", Some("kinglet_"));
        check("/", "/input:0_0", Some("input:0_0"));
        check("/", "/..a", Some("..a"));
        for key in
            ["", "/", "/other", "/kinglet", "//kinglet_a", "/kinglet_/a", "/kinglet_a/", "/kinglet_\0", "/kinglet_ü"]
        {
            check("/kinglet_", key, None);
        }
        for key in ["/kinglet_ a", "/kinglet_\n", &format!("/kinglet_{}", "a".repeat(NAME_BYTES_MAX))] {
            check("/kinglet_", key, None);
        }
        for key in ["/.", "/..", "..", "/../a", "a/../b"] {
            check("/", key, None);
        }
    }

    #[test]
    fn prefixes_are_no_paths() {
        for wrong in ["", "kinglet_", "//", "/a/b", "/..", "/a b"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong:?}");
        }
    }
}
