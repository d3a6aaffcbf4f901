//! Which weights of a layer may stay, so that the zeros lie where a kernel can leave them out.

use std::fmt;
use std::str::FromStr;

use ndarray::Array2;

use crate::engine::WeightLayer;

/// How zeros lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// Anywhere.
    #[default]
    Unstructured,
    /// In blocks of so many outputs, by so many inputs at one tap.
    Block { outputs: usize, inputs: usize },
    /// So many of each few inputs at one tap stay.
    Nm { stay: usize, of: usize },
    /// All weights that meet a channel, which then goes with the weights that make it.
    Channels,
}

/// A name that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown pattern {0:?}, expected unstructured, block, block:ROWSxCOLUMNS, nm, nm:N:M or channels")]
pub struct UnknownPattern(String);

impl FromStr for Pattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, UnknownPattern> {
        let unknown = || UnknownPattern(text.to_owned());
        let pair = |pair: Option<(&str, &str)>| {
            let (a, b) = pair.ok_or_else(unknown)?;
            let number = |text: &str| text.parse().ok().filter(|number| (1..=SIDE_MAX).contains(number));
            number(a).zip(number(b)).ok_or_else(unknown)
        };
        match text.split_once(':') {
            None if text == "unstructured" => Ok(Self::Unstructured),
            None if text == "channels" => Ok(Self::Channels),
            None if text == "block" => Ok(Self::Block { outputs: 4, inputs: 1 }),
            None if text == "nm" => Ok(Self::Nm { stay: 2, of: 4 }),
            Some(("block", sides)) => {
                pair(sides.split_once('x')).map(|(outputs, inputs)| Self::Block { outputs, inputs })
            }
            Some(("nm", counts)) => match pair(counts.split_once(':'))? {
                (stay, of) if stay < of => Ok(Self::Nm { stay, of }),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.write_str("unstructured"),
            Self::Channels => f.write_str("channels"),
            Self::Block { outputs, inputs } => write!(f, "block:{outputs}x{inputs}"),
            Self::Nm { stay, of } => write!(f, "nm:{stay}:{of}"),
        }
    }
}

impl Pattern {
    /// The share of zeros that it has by itself.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Nm { stay, of } => Some(1.0 - stay as f64 / of as f64),
            Self::Unstructured | Self::Block { .. } | Self::Channels => None,
        }
    }

    /// Which weights stay when a share of them goes: those of the greatest scores, a line for each output. `taps` columns
    /// in a row meet one channel.
    pub(super) fn keep(self, scores: &Array2<f64>, share: f64, taps: usize) -> Array2<bool> {
        let (lines, depth) = scores.dim();
        match self {
            Self::Unstructured => by_unit(scores, share, lines * depth, |line, column| line * depth + column),
            Self::Channels => by_unit(scores, share, depth / taps, |_, column| column / taps),
            Self::Block { outputs, inputs } => {
                let (high, wide) = (lines.div_ceil(outputs), (depth / taps).div_ceil(inputs));
                by_unit(scores, share, high * taps * wide, |line, column| {
                    (line / outputs * taps + column % taps) * wide + column / taps / inputs
                })
            }
            Self::Nm { stay, of } => {
                let mut keep = Array2::from_elem((lines, depth), false);
                for (line, tap) in (0..lines).flat_map(|line| (0..taps).map(move |tap| (line, tap))) {
                    let columns: Vec<usize> = (tap..depth).step_by(taps).collect();
                    for some in columns.chunks(of) {
                        let of_these: Vec<f64> = some.iter().map(|&column| scores[[line, column]]).collect();
                        let kept = greatest(&of_these, (some.len() * stay).div_ceil(of));
                        kept.into_iter().for_each(|at| keep[[line, some[at]]] = true);
                    }
                }
                keep
            }
        }
    }
}

/// Keeps units of weights of the greatest mean scores whole.
fn by_unit(scores: &Array2<f64>, share: f64, units: usize, unit: impl Fn(usize, usize) -> usize) -> Array2<bool> {
    // Units at an edge have fewer weights.
    let mut sums = vec![(0.0, 0.0); units];
    for ((line, column), score) in scores.indexed_iter() {
        let (sum, count) = &mut sums[unit(line, column)];
        (*sum, *count) = (*sum + score, *count + 1.0);
    }
    let means: Vec<f64> = sums.iter().map(|(sum, count)| sum / count).collect();
    let mut stays = vec![false; units];
    greatest(&means, stay(units, share)).into_iter().for_each(|at| stays[at] = true);
    Array2::from_shape_fn(scores.dim(), |(line, column)| stays[unit(line, column)])
}

/// Taps of a layer's window.
pub(super) fn taps(layer: &WeightLayer) -> usize {
    layer.windows.as_ref().map_or(1, |windows| windows.kernel.iter().product())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
fn stay(count: usize, share: f64) -> usize {
    ((1.0 - share) * count as f64).round() as usize
}

/// Where the greatest scores are, the first of equal ones.
fn greatest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    if count < places.len() {
        places.select_nth_unstable_by(count, |&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        places.truncate(count);
    }
    places
}

/// Outputs or inputs of a block.
const SIDE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pattern: &str, shape: (usize, usize), share: f64, taps: usize, scores: &[f64]) -> Vec<usize> {
        let scores = Array2::from_shape_vec(shape, scores.to_vec()).unwrap();
        let keep = pattern.parse::<Pattern>().unwrap().keep(&scores, share, taps);
        keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(at, _)| at).collect()
    }

    #[test]
    fn the_greatest_stay() {
        let scores = [5.0, 1.0, 4.0, 0.0, 3.0, 2.0];
        assert_eq!(kept("unstructured", (2, 3), 0.5, 1, &scores), [0, 2, 4]);
        assert_eq!(kept("unstructured", (2, 3), 1.0, 1, &scores), [0; 0]);
        assert_eq!(kept("unstructured", (2, 3), 0.0, 1, &scores), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept("unstructured", (2, 2), 0.5, 1, &[1.0; 4]), [0, 1]);
    }

    #[test]
    fn blocks_go_whole() {
        // Columns are 5+0, 1+3 and 4+2.
        let scores = [5.0, 1.0, 4.0, 0.0, 3.0, 2.0];
        assert_eq!(kept("block:2x1", (2, 3), 0.66, 1, &scores), [2, 5]);
        // Two channels of two taps: a block is both channels at one tap.
        assert_eq!(kept("block:1x2", (1, 4), 0.5, 2, &[1.0, 2.0, 1.0, 2.0]), [1, 3]);
        // The last block has one line.
        assert_eq!(kept("block:2x1", (3, 1), 0.5, 1, &[3.0, 4.0, 5.0]), [2]);
    }

    #[test]
    fn channels_go_with_all_that_meets_them() {
        // Two channels of two taps, met by two outputs.
        assert_eq!(kept("channels", (2, 4), 0.5, 2, &[9.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]), [0, 1, 4, 5]);
    }

    #[test]
    fn some_of_each_few_stay() {
        let scores = [1.0, 2.0, 3.0, 4.0, 0.0, 9.0];
        assert_eq!(kept("nm", (1, 6), 0.5, 1, &scores), [2, 3, 5]);
        // Two taps of three channels each: of two channels one, of the third its only one.
        assert_eq!(kept("nm:1:2", (1, 6), 0.5, 2, &scores), [2, 3, 4, 5]);
    }

    #[test]
    fn patterns_have_names() {
        for name in ["unstructured", "block:4x1", "block:1x4", "nm:2:4", "nm:1:8", "channels"] {
            assert_eq!(name.parse::<Pattern>().unwrap().to_string(), name);
        }
        for name in ["", "blocks", "block:", "block:0x1", "block:4", "nm:4:2", "nm:2:2", "nm:2", "unstructured:1"] {
            let refusal = name.parse::<Pattern>().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("unknown pattern {name:?}, expected")), "{refusal}");
        }
    }
}
