//! A node as importers read it: operands, attributes, and errors that name it.

use super::{Importer, unsupported};
use crate::engine::EngineError;
use crate::engine::graph::op::{Axes, Binary};
use crate::engine::graph::{ValueId, integers, tensor_of_integers};
use crate::engine::proto;
use crate::proto::onnx::NodeProto;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::tensor::{DType, Tensor};

pub(super) struct Source<'a> {
    pub(super) proto: &'a NodeProto,
}

/// The axes that something is reduced along, and the operand that lists them if they are not known.
pub(super) struct Along {
    pub(super) axes: Axes,
    pub(super) operand: Option<ValueId>,
}

impl Along {
    pub(super) fn given(axes: &[i64]) -> Self {
        Self { axes: Axes::given(axes), operand: None }
    }

    /// This one and all behind it.
    pub(super) fn from(axis: usize) -> Self {
        Self { axes: Axes::From(axis), operand: None }
    }
}

impl Source<'_> {
    /// The operator and the node's name, or its output's.
    pub(super) fn shown(&self) -> String {
        proto::shown(self.proto).trim_end().to_owned()
    }

    pub(super) fn refuse(&self, reason: &str) -> EngineError {
        unsupported(self.shown(), reason)
    }

    pub(super) fn invalid(&self, what: &str) -> EngineError {
        EngineError::InvalidModel(format!("{}: {what}", self.shown()))
    }

    /// Whether anything may take an output.
    pub(super) fn has_output(&self, at: usize) -> bool {
        self.proto.output.get(at).is_some_and(|name| !name.is_empty())
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64, EngineError> {
        self.typed(name, AttributeType::Int, |attribute| attribute.i).map(|value| value.unwrap_or(default))
    }

    pub(super) fn float(&self, name: &str, default: f32) -> Result<f32, EngineError> {
        self.typed(name, AttributeType::Float, |attribute| attribute.f).map(|value| value.unwrap_or(default))
    }

    pub(super) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, EngineError> {
        self.typed(name, AttributeType::Ints, |attribute| attribute.ints.clone())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, EngineError> {
        self.typed(name, AttributeType::String, |attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }

    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, EngineError> {
        self.typed(name, AttributeType::Floats, |attribute| attribute.floats.clone())
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        let text = |text: &Vec<u8>| String::from_utf8_lossy(text).into_owned();
        self.typed(name, AttributeType::Strings, |attribute| attribute.strings.iter().map(text).collect())
    }

    /// Whether there is an attribute that is a tensor.
    pub(super) fn is_tensor(&self, name: &str) -> bool {
        proto::attribute(self.proto, name).is_some_and(|attribute| attribute.r#type == AttributeType::Tensor as i32)
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Option<Tensor>, EngineError> {
        let tensor = self.typed(name, AttributeType::Tensor, |attribute| attribute.t.clone())?;
        tensor.flatten().map(|tensor| super::tensor(&tensor)).transpose()
    }

    /// A type by its number in the standard.
    pub(super) fn dtype(&self, number: i64) -> Result<DType, EngineError> {
        let dtype = i32::try_from(number).ok().and_then(super::dtype);
        dtype.ok_or_else(|| self.refuse(&format!("type {number} is none that is computed with")))
    }

    /// What scattered elements do to those that are there; nothing where they replace them.
    pub(super) fn reduction(&self) -> Result<Option<Binary>, EngineError> {
        Ok(match self.text("reduction")?.as_deref().unwrap_or("none") {
            "none" => None,
            "add" => Some(Binary::Add),
            "mul" => Some(Binary::Mul),
            "min" => Some(Binary::Min),
            "max" => Some(Binary::Max),
            other => return Err(self.invalid(&format!("reduction {other:?} is none"))),
        })
    }

    /// Numbers that are neither negative nor beyond any image, so that sums of them do not overflow.
    pub(super) fn extents(&self, name: &str) -> Result<Option<Vec<usize>>, EngineError> {
        let Some(ints) = self.ints(name)? else { return Ok(None) };
        let extent = |&int: &i64| usize::try_from(int).ok().filter(|extent| *extent <= EXTENT_MAX);
        let extents: Option<Vec<usize>> = ints.iter().map(extent).collect();
        extents.map(Some).ok_or_else(|| self.invalid(&format!("{name} must be from 0 to {EXTENT_MAX}, got {ints:?}")))
    }

    pub(super) fn axis(&self, default: i64) -> Result<isize, EngineError> {
        let axis = self.int("axis", default)?;
        isize::try_from(axis).map_err(|_| self.invalid(&format!("axis {axis} is none")))
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: AttributeType,
        read: impl Fn(&crate::proto::onnx::AttributeProto) -> T,
    ) -> Result<Option<T>, EngineError> {
        let Some(attribute) = proto::attribute(self.proto, name) else { return Ok(None) };
        if attribute.r#type != expected as i32 {
            let expected = expected.as_str_name();
            return Err(self.invalid(&format!("attribute {name} is no {expected}")));
        }
        Ok(Some(read(attribute)))
    }
}

impl Importer {
    /// An operand that must be there.
    pub(super) fn operand(&self, node: &Source<'_>, at: usize) -> Result<ValueId, EngineError> {
        self.optional(node, at)?.ok_or_else(|| node.invalid(&format!("operand {at} is missing")))
    }

    pub(super) fn optional(&self, node: &Source<'_>, at: usize) -> Result<Option<ValueId>, EngineError> {
        node.proto.input.get(at).filter(|name| !name.is_empty()).map(|name| self.value(name)).transpose()
    }

    /// All operands, none missing.
    pub(super) fn operands(&self, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
        (0..node.proto.input.len()).map(|at| self.operand(node, at)).collect()
    }

    /// Integers from an attribute of older versions, or from a constant operand.
    pub(super) fn integers(&self, node: &Source<'_>, name: &str, at: usize) -> Result<Option<Vec<i64>>, EngineError> {
        if let Some(ints) = node.ints(name)? {
            return Ok(Some(ints));
        }
        let Some(value) = self.optional(node, at)? else { return Ok(None) };
        let constant = self.graph.constant(value).ok_or_else(|| node.refuse(&format!("{name} must be constant")))?;
        integers(constant)
            .map(|list| Some(list.into_vec()))
            .ok_or_else(|| node.invalid(&format!("{name} must be integers")))
    }

    /// Up to opset 6 operands were broadcast on request, from the axis that was named on.
    pub(super) fn expect_trailing(&self, node: &Source<'_>) -> Result<(), EngineError> {
        match self.versions.get("") == Some(&6) && proto::attribute(node.proto, "axis").is_some() {
            true => Err(node.refuse("its operands are broadcast along a named axis")),
            false => Ok(()),
        }
    }

    /// Up to opset 6 these operators trained unless they were told not to.
    pub(super) fn expect_test(&self, node: &Source<'_>) -> Result<(), EngineError> {
        match self.versions.get("") == Some(&6) && node.int("is_test", 0)? == 0 {
            true => Err(node.refuse("it trains")),
            false => Ok(()),
        }
    }

    /// The axes of a reduction, an attribute of older versions and an operand of newer ones; none where it reduces
    /// nothing.
    pub(super) fn axes(&self, node: &Source<'_>) -> Result<Option<Along>, EngineError> {
        let keeps = node.int("noop_with_empty_axes", 0)? != 0;
        let computed = self.optional(node, 1)?.filter(|operand| self.graph.constant(*operand).is_none());
        if let (None, Some(_)) = (node.ints("axes")?, computed) {
            return Ok(Some(Along { axes: Axes::Operand { keeps }, operand: computed }));
        }
        let axes = self.integers(node, "axes", 1)?.unwrap_or_default();
        if axes.is_empty() {
            return Ok((!keeps).then_some(Along::from(0)));
        }
        Ok(Some(Along::given(&axes)))
    }

    /// Integers as an operand.
    pub(super) fn list_of(&mut self, name: &str, ints: &[i64]) -> ValueId {
        self.graph.add_constant(format!("{name} integers"), tensor_of_integers(&[ints.len()], ints))
    }

    /// Integers of an attribute as an operand, as newer versions have them.
    pub(super) fn list(&mut self, node: &Source<'_>, name: &str, at: usize) -> Result<Option<ValueId>, EngineError> {
        match node.ints(name)? {
            Some(ints) => {
                let tensor = tensor_of_integers(&[ints.len()], &ints);
                Ok(Some(self.graph.add_constant(format!("{} {name}", node.shown()), tensor)))
            }
            None => self.optional(node, at),
        }
    }
}

/// The largest kernel, stride, dilation or padding.
const EXTENT_MAX: usize = (1 << 31) - 1;
