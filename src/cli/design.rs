//! What can be said of a design's energy before it runs: what it computes, what it moves, and how often what it moves is used.
//! Counts, never joules.

use std::fmt::Write;

use crate::engine::LayerReport;

/// What a layer, or all of them together, computes and moves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    macs: u64,
    macs_effective: u64,
    parameters: u64,
    activations: u64,
    weight_bytes: u64,
    activation_bytes: u64,
}

/// A row for every layer that multiplies or has parameters, and one for all; in weighted intensity the reuse of weights counts
/// `weights_share`, that of activations the rest. docs/energy.md has the definitions.
pub(super) fn describe(layers: &[LayerReport], weights_share: f64) -> String {
    let mut text = format!(
        "\n{:>10} {:>10} {:>11} {:>11} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  node\n",
        "MMAC",
        "effective",
        "parameters",
        "activations",
        "weight KiB",
        "act. KiB",
        "MAC/elem",
        "MAC/byte",
        "MAC/param",
        "MAC/act.",
        "weighted",
        "act./par",
        "foot/par"
    );
    let mut all = Counts::default();
    for layer in layers {
        let counts = Counts::of(layer);
        all = all.with(counts);
        if counts.macs > 0 || counts.parameters > 0 {
            let _ = writeln!(text, "{}  {}", counts.row(weights_share), layer.name);
        }
    }
    let _ = writeln!(text, "{}  all layers", all.row(weights_share));
    text
}

impl Counts {
    fn of(layer: &LayerReport) -> Self {
        Self {
            macs: layer.macs,
            macs_effective: layer.macs_effective(),
            parameters: layer.parameters,
            activations: layer.activations,
            weight_bytes: layer.weight_bytes,
            activation_bytes: layer.bytes.saturating_sub(layer.weight_bytes),
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            macs: self.macs + other.macs,
            macs_effective: self.macs_effective + other.macs_effective,
            parameters: self.parameters + other.parameters,
            activations: self.activations + other.activations,
            weight_bytes: self.weight_bytes + other.weight_bytes,
            activation_bytes: self.activation_bytes + other.activation_bytes,
        }
    }

    /// Arithmetic intensity, with all elements alike.
    fn per_element(self) -> Option<f64> {
        ratio(self.macs, self.parameters + self.activations)
    }

    /// The same by what elements weigh in memory.
    fn per_byte(self) -> Option<f64> {
        ratio(self.macs, self.weight_bytes + self.activation_bytes)
    }

    /// Arithmetic intensity with weights and activations apart: the mean of how often either is used.
    fn weighted(self, weights_share: f64) -> Option<f64> {
        let (weights, activations) = (ratio(self.macs, self.parameters)?, ratio(self.macs, self.activations)?);
        Some(weights_share * weights + (1.0 - weights_share) * activations)
    }

    fn row(self, weights_share: f64) -> String {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        format!(
            "{:>10.3} {:>10.3} {:>11} {:>11} {:>10.1} {:>10.1} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
            self.macs as f64 / 1e6,
            self.macs_effective as f64 / 1e6,
            self.parameters,
            self.activations,
            kib(self.weight_bytes),
            kib(self.activation_bytes),
            shown(self.per_element()),
            shown(self.per_byte()),
            shown(ratio(self.macs, self.parameters)),
            shown(ratio(self.macs, self.activations)),
            shown(self.weighted(weights_share)),
            shown(ratio(self.activations, self.parameters)),
            shown(ratio(self.weight_bytes + self.activation_bytes, self.weight_bytes)),
        )
    }
}

fn ratio(a: u64, b: u64) -> Option<f64> {
    (b > 0).then(|| a as f64 / b as f64)
}

/// Nothing for a ratio to nothing.
fn shown(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_sums_and_absent_without_a_denominator() {
        let one = Counts {
            macs: 1000,
            macs_effective: 100,
            parameters: 100,
            activations: 400,
            weight_bytes: 100,
            activation_bytes: 1600,
        };
        assert_eq!([0.0, 0.5, 1.0].map(|share| one.weighted(share)), [2.5, 6.25, 10.0].map(Some));
        let pool = Counts { activations: 500, activation_bytes: 2000, ..Counts::default() };
        assert_eq!((one.per_element(), one.per_byte()), (Some(2.0), Some(1000.0 / 1700.0)));
        let both = one.with(pool);
        assert_eq!(both.per_element(), Some(1.0));
        assert_eq!(both.row(0.5).split_whitespace().last(), Some("37.00"));
        assert_eq!((ratio(pool.macs, pool.parameters), pool.weighted(0.5)), (None, None));
    }
}
