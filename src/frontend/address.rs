//! Where a listener listens: an address with a port, or a socket that is a file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// Of the file.
    Unix(PathBuf),
}

/// Who may connect to a socket that is a file: its permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an address with a port, such as \"127.0.0.1:8000\" or \"localhost:8000\", or \"unix:/path/of/a.socket\", got {0:?}"
)]
pub struct AddressError(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected permissions of a file in octal digits, such as \"0660\", got {0:?}")]
pub struct ModeError(String);

impl Address {
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether listeners with these addresses are one. Port 0 names no port that could be shared.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        self == other && self.tcp().is_none_or(|address| address.port() != 0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// `localhost` is the one name that needs no resolver.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        numeric.as_deref().unwrap_or(text).parse().map(Self::Tcp).map_err(|_| wrong())
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= MODE_MAX && !text.starts_with('+'));
        mode.map(Self).ok_or_else(|| ModeError(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const UNIX: &str = "unix:";
/// Read, write and execute for owner, group and others.
const MODE_MAX: u32 = 0o777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_or_is_a_file() {
        for (text, shown) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("localhost:2", "127.0.0.1:2"),
            ("[::1]:3", "[::1]:3"),
            ("unix:/run/kinglet.socket", "unix:/run/kinglet.socket"),
            ("unix:beside", "unix:beside"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for wrong in ["", "8000", ":80", "unix:", "host:80", "/run/kinglet.socket"] {
            let message = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(message.ends_with(&format!("got {wrong:?}")), "{message}");
        }
    }

    #[test]
    fn only_what_can_be_found_again_is_shared() {
        for (text, shareable) in [("127.0.0.1:1", true), ("127.0.0.1:0", false), ("unix:/a", true)] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.is_shared_with(&address), shareable, "{text}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!("0660".parse(), Ok(Mode(0o660)));
        assert_eq!("600".parse(), Ok(Mode(0o600)));
        for wrong in ["", "rw", "1000", "0o600", "+600", "888", "-1"] {
            assert_eq!(wrong.parse::<Mode>(), Err(ModeError(wrong.to_owned())));
        }
    }
}
