//! Made-up inputs for a model: zeros to try it out, noise to compare the ways of running it.

use bytes::Bytes;
use half::f16;

use crate::engine::{BatchInput, Dim, Signature};
use crate::tensor::{DType, Shape};

/// Inputs of so many rows; free axes besides the batch get one element.
pub(super) fn inputs(
    signature: &Signature,
    rows: usize,
    fill: &mut dyn FnMut(DType, usize) -> Vec<u8>,
) -> Vec<BatchInput> {
    let input = |spec: &crate::engine::TensorSpec| {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Free(_) if axis == 0 => rows,
            Dim::Free(_) => 1,
        };
        let shape: Shape = spec.dims.iter().enumerate().map(extent).collect();
        // A hostile signature asks for no memory here: sizes beyond the limit are given up by the callers.
        let count = shape.element_count().filter(|count| *count <= PROBE_BYTES_MAX).unwrap_or(PROBE_BYTES_MAX);
        BatchInput { dtype: spec.dtype, shape, pieces: vec![Bytes::from(fill(spec.dtype, count))] }
    };
    signature.inputs.iter().map(input).collect()
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

/// Made-up inputs are no larger than this.
pub(super) const PROBE_BYTES_MAX: usize = 64 << 20;
