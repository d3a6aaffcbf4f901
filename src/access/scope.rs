//! What a caller may do: `infer:digits`, `read:vision-*`, `admin`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Tells what there is and how it does.
    Read,
    /// Runs a model.
    Infer,
    /// Loads and unloads.
    Load,
    /// Registers shared memory, which is the server's whole.
    Memory,
    /// Changes the server, or tells what only operators need.
    Admin,
}

/// What it does that to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Server,
    Model(&'a str),
    /// One that is named where only its handler reads.
    SomeModel,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `None` is all of them.
    verb: Option<Verb>,
    models: Models,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Models {
    Named(String),
    Beginning(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a scope such as \"infer:digits\", \"read:vision-*\", \"load:*\", \"memory\", \"admin\" or \"*\", got {0:?}"
)]
pub struct WrongScope(String);

impl Verb {
    const ALL: [Self; 5] = [Self::Read, Self::Infer, Self::Load, Self::Memory, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Infer => "infer",
            Self::Load => "load",
            Self::Memory => "memory",
            Self::Admin => "admin",
        }
    }

    /// Whether it is about a model.
    fn is_of_models(self) -> bool {
        matches!(self, Self::Read | Self::Infer | Self::Load)
    }

    /// Who may run or load a model may read what it is.
    fn covers(self, wanted: Self) -> bool {
        self == wanted || (wanted == Self::Read && self.is_of_models())
    }
}

impl Scope {
    pub(super) fn everything() -> Self {
        Self { verb: None, models: Models::any() }
    }

    pub fn allows(&self, wanted: Verb, target: Target<'_>) -> bool {
        if wanted == Verb::Read && target == Target::Server {
            // What server this is may know who may anything.
            return true;
        }
        let model = match target {
            Target::Model(name) => self.models.has(name),
            Target::Server | Target::SomeModel => true,
        };
        self.verb.is_none_or(|verb| verb.covers(wanted)) && model
    }
}

impl Models {
    fn any() -> Self {
        Self::Beginning(String::new())
    }

    fn has(&self, model: &str) -> bool {
        match self {
            Self::Named(name) => name == model,
            Self::Beginning(start) => model.starts_with(start.as_str()),
        }
    }
}

impl FromStr for Scope {
    type Err = WrongScope;

    fn from_str(text: &str) -> Result<Self, WrongScope> {
        let wrong = || WrongScope(text.to_owned());
        if text == "*" {
            return Ok(Self::everything());
        }
        let (verb, models) = text.split_once(':').map_or((text, None), |(verb, models)| (verb, Some(models)));
        let verb = Verb::ALL.into_iter().find(|known| known.as_str() == verb).ok_or_else(wrong)?;
        let models = match models {
            Some(models) if verb.is_of_models() => match models.strip_suffix('*') {
                Some(start) if !start.contains('*') => Models::Beginning(start.to_owned()),
                None if !models.is_empty() => Models::Named(models.to_owned()),
                _ => return Err(wrong()),
            },
            None if !verb.is_of_models() => Models::any(),
            _ => return Err(wrong()),
        };
        Ok(Self { verb: Some(verb), models })
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => Ok(()),
            Self::Model(name) => write!(f, ":{name}"),
            Self::SomeModel => f.write_str(":<model>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scope: &str, allowed: &[(Verb, &'static str)], refused: &[(Verb, &'static str)]) {
        let scope: Scope = scope.parse().unwrap();
        let target = |name: &'static str| if name.is_empty() { Target::Server } else { Target::Model(name) };
        for (verb, name) in allowed {
            assert!(scope.allows(*verb, target(name)), "{scope:?} {verb:?} {name}");
        }
        for (verb, name) in refused {
            assert!(!scope.allows(*verb, target(name)), "{scope:?} {verb:?} {name}");
        }
    }

    #[test]
    fn scopes_allow_what_they_say_and_no_more() {
        use Verb::{Admin, Infer, Load, Memory, Read};
        check(
            "infer:digits",
            &[(Infer, "digits"), (Read, "digits"), (Read, "")],
            &[(Infer, "digits2"), (Infer, "digit"), (Load, "digits"), (Memory, ""), (Admin, ""), (Read, "wine")],
        );
        check("read:v*", &[(Read, "vowels"), (Read, "v")], &[(Infer, "vowels"), (Read, "wine"), (Load, "v")]);
        check("load:*", &[(Load, "a"), (Read, "a")], &[(Infer, "a"), (Admin, "")]);
        check("admin", &[(Admin, ""), (Read, "")], &[(Read, "a"), (Infer, "a"), (Load, "a"), (Memory, "")]);
        check("memory", &[(Memory, "")], &[(Admin, ""), (Infer, "a")]);
        check("*", &[(Admin, ""), (Memory, ""), (Infer, "a"), (Load, "a"), (Read, "a")], &[]);
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in ["", "infer", "infer:", "write:a", "admin:a", "memory:*", "infer:a*b*", "INFER:a", " infer:a", "**"]
        {
            let error = text.parse::<Scope>().unwrap_err();
            assert!(error.to_string().ends_with(&format!("got {text:?}")), "{error}");
        }
        assert!("infer:*".parse::<Scope>().is_ok());
    }
}
