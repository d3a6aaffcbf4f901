//! The pool step: one vector for each text, from the vectors of its tokens, as sentence-transformers has it.

use serde::Deserialize;

use super::{Built, Step, StepLimits, batch_axis, tensor};
use crate::engine::{BatchInput, Cores, Dim, EngineError, Merging, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    #[serde(default)]
    pub mode: PoolMode,
    /// Whether vectors become 1 long.
    #[serde(default)]
    pub normalize: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// Of the tokens that the mask has.
    #[default]
    Mean,
    /// The first token's vector, whatever the mask has.
    Cls,
    /// The greatest of each element, of the tokens that the mask has.
    Max,
}

#[derive(Debug)]
struct Pool {
    settings: PoolSettings,
    limits: StepLimits,
}

pub(super) fn build(settings: PoolSettings, limits: &StepLimits) -> Built {
    let free = |name: &str| Dim::Free(Some(name.into()));
    let vectors = vec![batch_axis(), free("tokens"), free("width")];
    let mut inputs = vec![TensorSpec { name: "token_embeddings".into(), dtype: DType::F32, dims: vectors }];
    if settings.mode != PoolMode::Cls {
        let dims = vec![batch_axis(), free("tokens")];
        inputs.push(TensorSpec { name: "attention_mask".into(), dtype: DType::I64, dims });
    }
    let output = TensorSpec { name: "embedding".into(), dtype: DType::F32, dims: vec![batch_axis(), free("width")] };
    let step = Box::new(Pool { settings, limits: limits.clone() });
    Built { name: "pool", inputs, outputs: vec![output], merging: Merging::Rows, memory_bytes: 0, step }
}

impl Step for Pool {
    fn run(&self, inputs: &[BatchInput], _cores: &Cores) -> Result<Vec<Tensor>, EngineError> {
        let [rows, tokens, width] = [0, 1, 2].map(|axis| inputs[0].shape[axis]);
        if tokens == 0 {
            return Err(EngineError::InvalidShape("expected at least one token, got none".into()));
        }
        if let Some(mask) = inputs.get(1).filter(|mask| mask.shape[1] != tokens) {
            let got = mask.shape[1];
            return Err(EngineError::InvalidShape(format!("expected a mask of {tokens} tokens, got {got}")));
        }
        self.limits.check_run(rows, width.saturating_mul(4))?;
        let vectors = inputs[0].to_tensor();
        let mask = inputs.get(1).map(BatchInput::to_tensor);
        let mut out = Vec::with_capacity(rows * width * 4);
        for row in 0..rows {
            let vectors = &vectors.bytes().as_chunks::<4>().0[row * tokens * width..][..tokens * width];
            let mask = mask.as_ref().map(|mask| &mask.bytes().as_chunks::<8>().0[row * tokens..][..tokens]);
            let mut pooled = self.pooled(vectors, mask.unwrap_or_default(), width);
            if self.settings.normalize {
                normalized(&mut pooled);
            }
            out.extend(pooled.into_iter().flat_map(f32::to_le_bytes));
        }
        Ok(vec![tensor(DType::F32, Shape::new(&[rows, width]), out)])
    }
}

impl Pool {
    fn pooled(&self, vectors: &[[u8; 4]], mask: &[[u8; 8]], width: usize) -> Vec<f32> {
        let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        let tokens = vectors.chunks_exact(width.max(1)).zip(mask.iter().map(|bytes| i64::from_le_bytes(*bytes)));
        match self.settings.mode {
            PoolMode::Cls => vectors[..width].iter().map(number).collect(),
            PoolMode::Mean => {
                let mut sums = vec![0.0; width];
                let mut weights = 0.0;
                for (vector, weight) in tokens {
                    let weight = weight as f32;
                    weights += weight;
                    sums.iter_mut().zip(vector).for_each(|(sum, bytes)| *sum += number(bytes) * weight);
                }
                let weights = weights.max(WEIGHTS_MIN);
                sums.into_iter().map(|sum| sum / weights).collect()
            }
            PoolMode::Max => {
                let mut greatest = vec![f32::NEG_INFINITY; width];
                for (vector, weight) in tokens {
                    let of = |bytes| if weight == 0 { MASKED } else { number(bytes) };
                    greatest.iter_mut().zip(vector).for_each(|(greatest, bytes)| *greatest = of(bytes).max(*greatest));
                }
                greatest
            }
        }
    }
}

/// Divided by their length, which counts as no less than PyTorch's bound.
fn normalized(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(LENGTH_MIN);
    vector.iter_mut().for_each(|value| *value /= length);
}

/// Sums of a mask count as no less, so that a text without tokens has the vector of zeros.
const WEIGHTS_MIN: f32 = 1e-9;
/// What the elements of a token count as that the mask has not.
const MASKED: f32 = -1e9;
const LENGTH_MIN: f32 = 1e-12;

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, step, step_with};
    use super::*;
    use crate::engine::LoadOptions;
    use crate::engine::testing::{answer, bytes_of, execute, tensor as floats, values};

    fn inputs(fixture: &Fixture) -> [Tensor; 2] {
        let vectors = bytes_of(DType::F32, &fixture.shape("pool/vectors"), fixture.bytes("pool/vectors"));
        [vectors, bytes_of(DType::I64, &fixture.shape("pool/mask"), fixture.bytes("pool/mask"))]
    }

    #[test]
    fn vectors_are_those_of_numpy() {
        let fixture = Fixture::read();
        let [vectors, mask] = inputs(&fixture);
        let check = |settings: &str, name: &str, entry: Vec<Tensor>| {
            let plan = step(&format!("pool = {{ {settings} }}")).unwrap();
            assert_eq!(plan.merging(), &Merging::Rows);
            let expected = fixture.floats(&format!("pool/{name}"));
            let got = values(&answer(plan, entry).unwrap()[0]);
            let near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-6 * expected.abs().max(1.0);
            assert!(got.len() == 12 && got.iter().zip(&expected).all(near), "{name}: {got:?} {expected:?}");
        };
        let both = vec![vectors.clone(), mask];
        check("", "mean", both.clone());
        check("normalize = true", "mean_normalized", both.clone());
        check("mode = \"max\"", "max", both);
        check("mode = \"cls\"", "cls", vec![vectors]);
    }

    #[test]
    fn rows_are_their_own() {
        let [vectors, mask] = inputs(&Fixture::read());
        let settings = "pool = { normalize = true }";
        let whole = answer(step(settings).unwrap(), vec![vectors.clone(), mask.clone()]).unwrap().remove(0);
        let entries = vectors
            .split_rows(&[1, 2])
            .into_iter()
            .zip(mask.split_rows(&[1, 2]))
            .map(|(vectors, mask)| vec![vectors, mask]);
        let shares = execute(step(settings).unwrap(), entries.collect(), true).1.unwrap().shares;
        assert_eq!(shares.concat(), whole.split_rows(&[1, 2]));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let check = |vectors: &[usize], tokens: usize, reason: &str| {
            let count = vectors.iter().product();
            let mask = bytes_of(DType::I64, &[vectors[0], tokens], vec![0; vectors[0] * tokens * 8]);
            let options = LoadOptions { arena_bytes_max: 40, ..LoadOptions::default() };
            let refused =
                answer(step_with("pool = {}", &options).unwrap(), vec![floats(vectors, &vec![0.0; count]), mask])
                    .unwrap_err();
            assert_eq!(refused.to_string(), format!("the model cannot take these input shapes: {reason}"));
        };
        check(&[2, 0, 4], 0, "expected at least one token, got none");
        check(&[2, 3, 4], 5, "expected a mask of 3 tokens, got 5");
        check(&[3, 3, 4], 3, "the outputs of 3 rows need 48 bytes, the limit is 40");
    }
}
