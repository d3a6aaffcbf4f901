//! Made-up inputs for a model: zeros to try it out, noise to compare the ways of running it.

use bytes::Bytes;
use half::f16;

use crate::engine::{BatchInput, Dim, Signature, TensorSpec};
use crate::tensor::{DType, Shape};

/// Inputs of so many rows, unless they would be beyond the limit together: their extents are the model file's word, and
/// nothing is allocated before they are added up. Free axes besides the batch get one element.
pub(super) fn inputs(
    signature: &Signature,
    rows: usize,
    fill: &mut dyn FnMut(DType, usize) -> Vec<u8>,
) -> Option<Vec<BatchInput>> {
    let shape = |spec: &TensorSpec| -> Shape {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Free(_) if axis == 0 => rows,
            Dim::Free(_) => 1,
        };
        spec.dims.iter().enumerate().map(extent).collect()
    };
    let mut left = PROBE_BYTES_MAX;
    let mut counted = Vec::with_capacity(signature.inputs.len());
    for spec in &signature.inputs {
        let shape = shape(spec);
        let count = shape.element_count()?;
        left = left.checked_sub(count.checked_mul(spec.dtype.size()?)?)?;
        counted.push((spec.dtype, shape, count));
    }
    let input = |(dtype, shape, count)| BatchInput { dtype, shape, pieces: vec![Bytes::from(fill(dtype, count))] };
    Some(counted.into_iter().map(input).collect())
}

pub(super) fn zero(dtype: DType, count: usize) -> Vec<u8> {
    vec![0; count * dtype.size().unwrap_or(0)]
}

/// A reproducible source of elements (splitmix64).
#[derive(Debug)]
pub(super) struct Noise {
    state: u64,
    scale: f32,
}

impl Noise {
    /// Floats of the given round are of one magnitude, those of the next of another.
    pub(super) fn of_round(round: u32) -> Self {
        let scale = SCALES[usize::try_from(round).unwrap_or(0) % SCALES.len()];
        Self { state: u64::from(round).wrapping_mul(0xd134_2543_de82_ef95), scale }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between -1 and 1, times the round's scale, with as many bits as a float has.
    fn unit(&mut self) -> f32 {
        let bits = u32::try_from(self.next() >> 41).unwrap_or(0) | 0x3f80_0000;
        (f32::from_bits(bits) * 2.0 - 3.0) * self.scale
    }

    /// Floats around 0; integers 0 and 1, which are indices of nearly everything.
    pub(super) fn elements(&mut self, dtype: DType, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * dtype.size().unwrap_or(0));
        for _ in 0..count {
            match dtype {
                DType::F32 => bytes.extend(self.unit().to_le_bytes()),
                DType::F64 => bytes.extend(f64::from(self.unit()).to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f32(self.unit()).to_le_bytes()),
                _ => {
                    let low = u8::from(self.next() >> 63 == 1);
                    bytes.push(low);
                    bytes.resize(bytes.len() + dtype.size().unwrap_or(1) - 1, 0);
                }
            }
        }
        bytes
    }
}

/// Powers of two would leave the bits as they are.
const SCALES: [f32; 4] = [1.0, 5.3, 0.17, 31.0];

/// Made-up inputs of one run are no larger than this together.
pub(super) const PROBE_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_declares_is_added_up_before_it_is_made() {
        let spec = |dtype, dims: &[usize]| TensorSpec {
            name: "x".into(),
            dtype,
            dims: dims.iter().map(|&extent| Dim::Fixed(extent)).collect(),
        };
        let check = |specs: &[TensorSpec], bytes: Option<usize>| {
            let signature = Signature { inputs: specs.to_vec(), outputs: Vec::new() };
            let mut made = 0;
            let mut fill = |dtype: DType, count: usize| {
                made += count * dtype.size().unwrap();
                Vec::new()
            };
            assert_eq!(inputs(&signature, 1, &mut fill).is_some(), bytes.is_some(), "{specs:?}");
            assert_eq!(made, bytes.unwrap_or(0), "{specs:?}");
        };
        let half = PROBE_BYTES_MAX / 2;
        check(&[spec(DType::I8, &[half]), spec(DType::U8, &[half])], Some(PROBE_BYTES_MAX));
        check(&[spec(DType::I8, &[half]), spec(DType::U8, &[half + 1])], None);
        check(&[spec(DType::F64, &[PROBE_BYTES_MAX / 8])], Some(PROBE_BYTES_MAX));
        check(&[spec(DType::F64, &[PROBE_BYTES_MAX / 8 + 1])], None);
        check(&[spec(DType::U8, &[1 << 40, 1 << 40])], None);
        check(&[spec(DType::F64, &[1 << 62])], None);
        check(&[spec(DType::F64, &[1 << 40, 1 << 40, 0])], Some(0));
    }
}
