//! Weights of few bits as kernels take them: codes, and what these mean. A table of small integers is multiplied as such,
//! where rows may be rounded to integers; a table of other numbers as floats.

use kinglet_kernels::Activation;
use kinglet_kernels::f32_gemm::{Codebook, CodebookGemm, CodedWeights, IntegerGemm};

use super::super::tuning::Probe;
use super::Lowering;
use super::dense::Dense;
use crate::engine::graph::coded::{Along, Coded, Scales, integers};
use crate::engine::graph::taps_first;

/// Weights `[tap][depth][column]`.
pub(super) struct LowBit {
    codes: Vec<u8>,
    /// Taps, depth, columns.
    size: [usize; 3],
    meaning: Meaning,
}

enum Meaning {
    Numbers { table: Vec<f32>, scales: Vec<f32> },
    Integers { table: Vec<i8>, scales: Vec<f32>, zeros: Vec<f32>, block: usize },
}

impl LowBit {
    /// Of a matrix `[depth, column]`, unless its scales lie so that no kernel has them.
    pub(super) fn of_matrix(coded: &Coded) -> Option<Self> {
        let &[depth, columns] = &coded.shape[..] else { return None };
        let (table, zeros) = settled(coded);
        let block = match coded.scales.as_ref().map(|scales| scales.along) {
            None | Some(Along::Axis(1)) => depth.max(1),
            Some(Along::Blocks { axis: 0, size }) => size,
            Some(_) => return None,
        };
        let scales = coded.scales.as_ref().map_or_else(|| vec![1.0; columns], |scales| scales.of.clone());
        let meaning = match integers(&table) {
            Some((integers, unit)) if IntegerGemm::fits(depth, table.len(), block) => Meaning::Integers {
                table: integers,
                scales: scales.iter().map(|scale| scale * unit).collect(),
                zeros: zeros.iter().map(|zero| zero / unit).collect(),
                block,
            },
            _ if block >= depth && zeros.is_empty() => Meaning::Numbers { table, scales },
            _ => return None,
        };
        Some(Self { codes: coded.codes.to_vec(), size: [1, depth, columns], meaning })
    }

    /// Of filters `[column, depth, taps..]`, if each has one scale.
    pub(super) fn of_filters(coded: &Coded) -> Option<Self> {
        let (&[columns, depth], taps) = coded.shape.split_first_chunk()?;
        let (taps, (table, zeros)) = (taps.iter().product(), settled(coded));
        let scales = match &coded.scales {
            None => vec![1.0; columns],
            Some(Scales { along: Along::Axis(0), of, .. }) => of.clone(),
            Some(_) => return None,
        };
        (zeros.is_empty() && taps <= CodebookGemm::TAPS_MAX).then(|| Self {
            codes: taps_first(&coded.codes, [depth, taps], 0..columns),
            size: [taps, depth, columns],
            meaning: Meaning::Numbers { table, scales },
        })
    }

    /// `probe` has windows like those that the product will run over.
    pub(super) fn pack(
        &self,
        lowering: Lowering<'_>,
        bias: Option<&[f32]>,
        activation: Activation,
        probe: Option<&Probe>,
    ) -> Dense {
        let ([taps, depth, columns], level) = (self.size, lowering.level);
        let weights = CodedWeights { elements: &self.codes[..], taps, depth, columns };
        match &self.meaning {
            Meaning::Numbers { table, scales } => {
                let pack = |vectors| {
                    let given = [&table[..], scales];
                    Dense::Numbers(CodebookGemm::pack(level, &weights, given, bias, activation, vectors))
                };
                let operation = format!("f32_gemm of {} numbers", table.len());
                Dense::chosen(lowering, &operation, self.size, probe, &CodebookGemm::widths(level), pack)
            }
            Meaning::Integers { table, scales, zeros, block } => {
                let codebook = Codebook { table, scales, zeros, block: *block };
                let pack =
                    |vectors| Dense::Integers(IntegerGemm::pack(level, &weights, &codebook, bias, activation, vectors));
                let operation = format!("s16_gemm of {} numbers in blocks of {block}", table.len());
                Dense::chosen(lowering, &operation, self.size, probe, &IntegerGemm::widths(level), pack)
            }
        }
    }
}

/// The table, with zeros taken off that are all the same, and the others.
fn settled(coded: &Coded) -> (Vec<f32>, Vec<f32>) {
    let zeros = coded.scales.as_ref().map_or(&[][..], |scales| &scales.zeros);
    match zeros.first() {
        Some(first) if zeros.iter().all(|zero| zero.to_bits() == first.to_bits()) => {
            (coded.table.iter().map(|number| number - first).collect(), Vec::new())
        }
        _ => (coded.table.clone(), zeros.to_vec()),
    }
}
