//! Where the parameters of a tensor say that it lies: the same keys for inputs and outputs, on both wires.

use std::sync::Arc;

use bytes::Bytes;

use super::SharedMemory;
use super::error::MemoryError;
use super::region::Region;
use crate::frontend::parameters::Value;
use crate::frontend::{OutputWish, Refusal};
use crate::pipeline::Answer;
use crate::tensor::{DType, NamedTensor, Shape, Tensor, TensorError};

/// What the parameters say.
#[derive(Debug, Default)]
pub struct Placement {
    region: Option<String>,
    offset: Option<u64>,
    byte_size: Option<u64>,
}

/// A part of a region. It keeps the region for as long as a request needs it, whatever is registered meanwhile.
#[derive(Clone, Debug)]
pub struct Slot {
    name: String,
    region: Arc<Region>,
    pub(super) offset: u64,
    pub(super) byte_size: u64,
}

/// An input that has yet to be copied out of its slot.
#[derive(Debug)]
pub struct Placed {
    /// Its place among all inputs.
    pub at: usize,
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
    pub slot: Slot,
}

impl Placement {
    /// Takes note of one parameter; others than those of shared memory pass.
    ///
    /// # Errors
    /// When the value is of the wrong kind.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<(), Refusal> {
        match key {
            REGION => self.region = Some(value.as_text(key)?.to_owned()),
            OFFSET => self.offset = Some(value.as_uint(key)?),
            BYTE_SIZE => self.byte_size = Some(value.as_uint(key)?),
            _ => {}
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.region.is_none() && self.offset.is_none() && self.byte_size.is_none()
    }

    /// The slot, where the parameters name one. An error is about the input or output of that name.
    ///
    /// # Errors
    /// When a parameter is missing, the region is not registered, or has no such part.
    pub fn find(self, memory: &SharedMemory, kind: &str, name: &str) -> Result<Option<Slot>, Refusal> {
        if self.is_empty() {
            return Ok(None);
        }
        memory.regions().map_err(|error| about(kind, name, error))?;
        match (self.region, self.byte_size) {
            (Some(region), Some(byte_size)) => {
                let slot = memory.slot(region, self.offset.unwrap_or(0), byte_size);
                slot.map(Some).map_err(|error| about(kind, name, error))
            }
            (Some(_), None) => Err(about(kind, name, needs(BYTE_SIZE, REGION))),
            (None, size) => {
                let given = if size.is_some() { BYTE_SIZE } else { OFFSET };
                Err(about(kind, name, needs(REGION, given)))
            }
        }
    }
}

fn needs(missing: &str, given: &str) -> Refusal {
    Refusal::invalid(format!("expected parameter {missing:?} beside {given:?}"))
}

impl Slot {
    /// # Errors
    /// When the region has no such part.
    pub(super) fn of(name: String, region: Arc<Region>, offset: u64, byte_size: u64) -> Result<Self, MemoryError> {
        if !region.has(offset, byte_size) {
            let has = region.registration.byte_size;
            return Err(MemoryError::BeyondRegion { region: name, has, offset, byte_size });
        }
        Ok(Self { name, region, offset, byte_size })
    }

    /// Whether a tensor can be written there.
    ///
    /// # Errors
    /// When it has more bytes.
    pub fn check(&self, output: &str, tensor: &Tensor) -> Result<(), Refusal> {
        let (needed, byte_size) = (tensor.bytes().len() as u64, self.byte_size);
        if needed <= byte_size {
            return Ok(());
        }
        Err(about("output", output, MemoryError::TooSmall { needed, byte_size }))
    }

    /// # Errors
    /// When the segment has become shorter.
    pub fn write(&self, output: &str, tensor: &Tensor) -> Result<(), Refusal> {
        self.region.write(self.offset, tensor.bytes()).map_err(|error| about("output", output, error))
    }

    /// What an answer tells of a tensor that lies there.
    pub fn parameters(&self, tensor: &Tensor) -> impl Iterator<Item = (&'static str, Value)> {
        let offset = (self.offset > 0).then_some((OFFSET, Value::Uint(self.offset)));
        let size = Value::Uint(tensor.bytes().len() as u64);
        [(REGION, Value::Text(self.name.clone())), (BYTE_SIZE, size)].into_iter().chain(offset)
    }

    fn read(&self) -> Result<Bytes, MemoryError> {
        // It was held to the limit of a body before.
        self.region.read(self.offset, usize::try_from(self.byte_size).unwrap_or(usize::MAX))
    }
}

impl Placed {
    /// Whether the slot has as many bytes as the tensor, as far as that is known without them.
    ///
    /// # Errors
    /// When it has not.
    pub(super) fn check(&self) -> Result<(), TensorError> {
        let (dtype, shape) = (self.dtype, &self.shape);
        let overflow = || TensorError::ShapeOverflow(shape.clone());
        let count = shape.element_count().ok_or_else(overflow)?;
        let Some(size) = dtype.size() else { return Ok(()) };
        let expected = count.checked_mul(size).ok_or_else(overflow)?;
        if expected as u64 == self.slot.byte_size {
            return Ok(());
        }
        let got = usize::try_from(self.slot.byte_size).unwrap_or(usize::MAX);
        Err(TensorError::LengthMismatch { dtype, shape: shape.clone(), expected, got })
    }

    /// A copy of what lies there.
    ///
    /// # Errors
    /// When it is no such tensor, or the segment has become shorter.
    pub(super) fn read(self) -> Result<(usize, NamedTensor), Refusal> {
        let Self { at, name, dtype, shape, slot } = self;
        let bytes = slot.read().map_err(|error| about("input", &name, error))?;
        let tensor = Tensor::new(dtype, shape, bytes).map_err(|error| about("input", &name, error))?;
        Ok((at, NamedTensor { name, tensor }))
    }
}

pub(super) fn about(kind: &str, name: &str, error: impl Into<Refusal>) -> Refusal {
    let refusal = error.into();
    Refusal { message: format!("{kind} {name:?}: {}", refusal.message), ..refusal }
}

/// Bytes of an answer's outputs that go to shared memory.
pub fn bytes_to_copy(answer: &Answer, wishes: &[OutputWish]) -> u64 {
    let wishes = wishes.iter().filter(|wish| wish.slot.is_some());
    let outputs = wishes.filter_map(|wish| answer.response.outputs.iter().find(|named| named.name == wish.name));
    outputs.map(|named| named.tensor.bytes().len() as u64).sum()
}

pub const REGION: &str = "shared_memory_region";
const OFFSET: &str = "shared_memory_offset";
const BYTE_SIZE: &str = "shared_memory_byte_size";
