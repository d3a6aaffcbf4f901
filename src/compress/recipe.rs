//! What is to be done to a model's layers, as the command line says it.

use std::fmt;
use std::str::FromStr;

use super::CompressError;
use super::pattern::Pattern;
use super::ranges::Ranges;
use crate::engine::{Draft, WeightLayer};

/// What is done to every layer but those that are left alone.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    pub factorize: Option<Factorize>,
    pub prune: Option<Prune>,
    pub quantize: Option<Format>,
    /// How bytes between layers get their ranges.
    pub ranges: Ranges,
    /// Names of layers that stay as they are.
    pub leave: Vec<String>,
}

/// Which layers become two: those that so have fewer weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factorize {
    /// The part of their responses' energy that they keep.
    pub energy: f64,
    /// Blocks that convolutions are split by at most.
    pub blocks: usize,
}

/// Which share of weights becomes zero, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prune {
    /// From 0 to 1, of all weights together.
    pub share: f64,
    pub pattern: Pattern,
    pub scope: Scope,
}

/// How the share is spread over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The same for each.
    #[default]
    Layer,
    /// The least magnitudes of all layers go.
    Global,
    /// More where calibration rows show less of it.
    Sensitivity,
}

/// What weights are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Bytes with a scale for each output channel, multiplied with bytes.
    Int8,
    /// The upper half of FP32.
    Bf16,
    /// Four bits with a scale for each 32 inputs.
    Int4,
    /// -1, 0 and 1 with a scale for each output channel.
    Ternary,
    /// -1 and 1 with a scale for each output channel.
    Binary,
    /// Bytes that stand for so many numbers.
    Codebook(usize),
}

/// A name that is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {0:?}, expected int8, bf16, int4, ternary, binary, or codebook:K with K from 2 to 256")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let unknown = || UnknownFormat(name.to_owned());
        if let Some(entries) = name.strip_prefix("codebook:") {
            let entries = entries.parse().ok().filter(|entries| (2..=256).contains(entries));
            return entries.map(Self::Codebook).ok_or_else(unknown);
        }
        let known = PLAIN.iter().find(|(_, known)| *known == name);
        known.map(|(format, _)| *format).ok_or_else(unknown)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codebook(entries) => write!(f, "codebook:{entries}"),
            plain => f.write_str(PLAIN.iter().find(|(format, _)| format == plain).map_or("", |(_, name)| name)),
        }
    }
}

impl Format {
    /// The greatest integer, of formats that have some.
    pub(super) fn bound(self) -> f64 {
        match self {
            Self::Int8 => 127.0,
            Self::Int4 => 7.0,
            _ => 1.0,
        }
    }

    /// The version of operators from which on it can be said.
    fn opset(self) -> i64 {
        match self {
            // Scales along an axis, and bf16, are of 13.
            Self::Int8 | Self::Ternary | Self::Binary | Self::Bf16 => 13,
            Self::Int4 => 21,
            Self::Codebook(_) => 1,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(Factorize { energy, blocks }) = self.factorize {
            let blocks = if blocks > 1 { format!(" by up to {blocks} blocks") } else { String::new() };
            parts.push(format!("factorize {energy}{blocks}"));
        }
        if let Some(Prune { share, pattern, scope }) = self.prune {
            let scope = match scope {
                Scope::Layer => "of each layer",
                Scope::Global => "of all layers",
                Scope::Sensitivity => "by sensitivity",
            };
            parts.push(format!("prune {share} {scope}, {pattern}"));
        }
        parts.extend(self.quantize.map(|format| format!("quantize {format}")));
        if !self.leave.is_empty() {
            parts.push(format!("keep {}", self.leave.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Recipe {
    /// Whether it can be done to a model at all.
    pub(super) fn check(&self, draft: &Draft, has_rows: bool) -> Result<(), CompressError> {
        let layers = draft.layers();
        if layers.is_empty() {
            return Err(CompressError::NoLayers);
        }
        if let Some(name) = self.leave.iter().find(|name| !layers.iter().any(|layer| layer.name == **name)) {
            let known = layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(CompressError::UnknownLayer { name: name.clone(), known });
        }
        if !has_rows && self.quantize == Some(Format::Int8) {
            return Err(CompressError::NeedsRows { option: "--quantize int8" });
        }
        if !has_rows && self.prune.is_some_and(|prune| prune.scope == Scope::Sensitivity) {
            return Err(CompressError::NeedsRows { option: "--sensitivity" });
        }
        if let Some(prune) = self.prune
            && let Some(share) = prune.pattern.share().filter(|share| (share - prune.share).abs() > 1e-9)
        {
            return Err(CompressError::OtherShare(prune.pattern, share));
        }
        if self.prune.is_some_and(|prune| prune.pattern == Pattern::Channels) {
            let with = match self.prune.map(|prune| prune.scope) {
                Some(Scope::Global) => Some("--global"),
                Some(Scope::Sensitivity) => Some("--sensitivity"),
                // Of four bits two share a byte.
                _ => (self.quantize == Some(Format::Int4)).then_some("--quantize int4"),
            };
            if let Some(with) = with {
                return Err(CompressError::NotTogether { option: "--pattern channels", with });
            }
        }
        if let Some(needed) = self.quantize.map(Format::opset).filter(|needed| draft.opset_within_reach() < *needed) {
            return Err(CompressError::Opset { option: "--quantize", needed, got: draft.opset() });
        }
        for layer in self.of(layers) {
            let elements = draft.weights(&layer).elements;
            let count = elements.iter().filter(|weight| !weight.is_finite()).count();
            if count > 0 {
                return Err(CompressError::NotFinite { layer: layer.name, count, total: elements.len() });
            }
        }
        Ok(())
    }

    /// Layers that something is done to.
    pub(super) fn of(&self, layers: Vec<WeightLayer>) -> Vec<WeightLayer> {
        layers.into_iter().filter(|layer| !self.leave.contains(&layer.name)).collect()
    }
}

/// Formats without a number in their name.
const PLAIN: [(Format, &str); 5] = [
    (Format::Int8, "int8"),
    (Format::Bf16, "bf16"),
    (Format::Int4, "int4"),
    (Format::Ternary, "ternary"),
    (Format::Binary, "binary"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_names() {
        for name in ["int8", "bf16", "int4", "ternary", "binary", "codebook:16"] {
            assert_eq!(name.parse::<Format>().unwrap().to_string(), name);
        }
        for name in ["int2", "", "codebook", "codebook:1", "codebook:257", "codebook:x"] {
            let refusal = name.parse::<Format>().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("unknown format {name:?}, expected int8, bf16,")), "{refusal}");
        }
    }

    #[test]
    fn recipes_say_what_was_asked_for() {
        let prune = Prune { share: 0.9, pattern: Pattern::Block { outputs: 4, inputs: 1 }, scope: Scope::Global };
        let leave = vec!["a".into(), "b".into()];
        let factorize = Some(Factorize { energy: 0.95, blocks: 4 });
        let recipe = Recipe { factorize, prune: Some(prune), quantize: Some(Format::Int8), ranges: Ranges::Mse, leave };
        let told = recipe.to_string();
        assert_eq!(
            told,
            "factorize 0.95 by up to 4 blocks; prune 0.9 of all layers, block:4x1; quantize int8; keep a, b"
        );
    }
}
