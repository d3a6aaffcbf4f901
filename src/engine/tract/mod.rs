//! The adapter to tract-onnx: runs single operators that the native engine does not have.
//!
//! tract makes a plan for concrete shapes; the plans used last are kept. It is called through [`guarded`]: it panics on
//! some broken models, and a model is untrusted.

mod convert;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prost::Message;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModel};
use tract_onnx::tract_hir::internal::{
    Framework, InferenceFact, InferenceModelExt, SimplePlan, TractErrorContext, TractResult, TypedSimplePlan, bail,
};

use super::graph::foreign::Program;
use crate::engine::LoadOptions;
use crate::engine::pool::lock;
use crate::proto::onnx::{ModelProto, NodeProto};
use crate::telemetry::PlanMetrics;
use crate::tensor::{DType, Shape, Tensor};

/// What programs may use.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    plans_max: usize,
    output_bytes_max: u64,
    plans: PlanMetrics,
}

impl Settings {
    pub(super) fn of(options: &LoadOptions) -> Self {
        let plans_max = options.shape_plans_max.max(1);
        Self { plans_max, output_bytes_max: options.arena_bytes_max, plans: options.plans.clone() }
    }
}

/// A program for the graph of a model, or why there is none.
pub(super) fn program(model: &ModelProto, settings: Settings) -> Result<Arc<dyn Program>, String> {
    if let Some(graph) = &model.graph {
        graph.node.iter().try_for_each(known)?;
        if let Some(node) = graph.node.iter().find(|node| of_constants(node)).filter(|_| !graph.input.is_empty()) {
            return Err(format!("tract has {} of constants only", node.op_type));
        }
    }
    Ok(Arc::new(read(model, settings)?))
}

/// What tract answers for a whole model.
#[cfg(test)]
pub(super) fn answers(model: &ModelProto, inputs: &[Tensor]) -> Vec<Tensor> {
    read(model, Settings::of(&LoadOptions::default())).unwrap().run(inputs).unwrap()
}

fn read(model: &ModelProto, settings: Settings) -> Result<Operator, String> {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    let operator = nodes.map(|node| node.op_type.as_str()).collect::<Vec<_>>().join(", ");
    let parsed = guarded(|| {
        let parsed = tract_onnx::onnx().with_ignore_value_info(true).model_for_read(&mut &model.encode_to_vec()[..])?;
        let mut typed = parsed.clone();
        // What is not known yet is no error.
        let _ = typed.analyse(true);
        let types =
            typed.output_outlets()?.iter().map(|outlet| Ok(typed.outlet_fact(*outlet)?.datum_type.concretize()));
        let types = types.collect::<TractResult<Vec<_>>>()?;
        Ok((parsed, types))
    });
    let (parsed, types) = parsed?;
    let dtypes: Option<Vec<DType>> = types.into_iter().map(|made| convert::dtype(made?)).collect();
    let dtypes = dtypes.ok_or("the type of what it makes is not known")?;
    Ok(Operator { parsed, operator, dtypes, settings, plans: Mutex::default(), making: Mutex::default() })
}

/// tract looks operators up by name alone, whatever their domain.
fn known(node: &NodeProto) -> Result<(), String> {
    let contributed = CONTRIBUTED.contains(&node.op_type.as_str());
    let in_domain = match node.domain.as_str() {
        "" | "ai.onnx" => !contributed || BOTH.contains(&node.op_type.as_str()),
        "com.microsoft" => contributed,
        _ => false,
    };
    let graphs = node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty());
    match in_domain && !graphs && tract_onnx::onnx().op_register.0.contains_key(&node.op_type) {
        true => Ok(()),
        false => Err("tract does not have it".into()),
    }
}

fn of_constants(node: &NodeProto) -> bool {
    node.op_type == "MelWeightMatrix"
}

/// Operators of domain com.microsoft.
const CONTRIBUTED: [&str; 12] = [
    "BiasGelu",
    "FastGelu",
    "GatherBlockQuantized",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// Those that the standard domain has too, or that exporters write there.
const BOTH: [&str; 3] = ["Gelu", "RotaryEmbedding", "SimplifiedLayerNormalization"];

/// Operators as tract read them, and the plans that were made for shapes.
struct Operator {
    parsed: InferenceModel,
    operator: String,
    dtypes: Vec<DType>,
    settings: Settings,
    /// The most recently used last.
    plans: Mutex<Vec<(Vec<Shape>, Arc<TypedSimplePlan>)>>,
    /// Held while a plan is made: one at a time, so that a new shape is prepared once.
    making: Mutex<()>,
}

impl Program for Operator {
    fn engine(&self) -> &'static str {
        "tract"
    }

    fn operator(&self) -> &str {
        &self.operator
    }

    fn dtypes(&self) -> &[DType] {
        &self.dtypes
    }

    fn run(&self, operands: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let plan = self.plan(operands)?;
        let given = operands.iter().map(convert::given).collect::<Result<_, _>>()?;
        // A state of its own for every run, which ends on this thread: tract's matrix products keep what they need in a
        // table of the thread until then, and its loops keep what they end with for the next run.
        let made = guarded(|| plan.spawn()?.run(given))?;
        made.into_iter().zip(&self.dtypes).map(|(value, &dtype)| convert::made(value, dtype)).collect()
    }
}

impl Operator {
    fn plan(&self, operands: &[Tensor]) -> Result<Arc<TypedSimplePlan>, String> {
        let shapes: Vec<Shape> = operands.iter().map(|operand| operand.shape().clone()).collect();
        if let Some(found) = self.find(&shapes) {
            return Ok(found);
        }
        let _making = lock(&self.making);
        if let Some(found) = self.find(&shapes) {
            return Ok(found);
        }
        let started = Instant::now();
        let made = self.make(operands);
        self.settings.plans.count_build(started.elapsed());
        let made = made?;
        let mut plans = lock(&self.plans);
        if plans.len() >= self.settings.plans_max {
            plans.remove(0);
        }
        plans.push((shapes, Arc::clone(&made)));
        Ok(made)
    }

    fn find(&self, shapes: &[Shape]) -> Option<Arc<TypedSimplePlan>> {
        let mut plans = lock(&self.plans);
        let position = plans.iter().rposition(|(kept, _)| kept == shapes)?;
        let used = plans.remove(position);
        let plan = Arc::clone(&used.1);
        plans.push(used);
        Some(plan)
    }

    fn make(&self, operands: &[Tensor]) -> Result<Arc<TypedSimplePlan>, String> {
        let limit = self.settings.output_bytes_max;
        guarded(|| {
            let mut model = self.parsed.clone();
            for (at, operand) in operands.iter().enumerate() {
                let datum_type = convert::datum_type(operand.dtype()).context("a type that tract does not have")?;
                model.set_input_fact(at, InferenceFact::dt_shape(datum_type, &operand.shape()[..]))?;
            }
            let typed = model.into_typed()?;
            for outlet in typed.output_outlets()? {
                let fact = typed.outlet_fact(*outlet)?;
                let extents = fact.shape.as_concrete().context("the shape of what it makes is not known")?;
                let bytes =
                    extents.iter().try_fold(fact.datum_type.size_of(), |bytes, extent| bytes.checked_mul(*extent));
                if bytes.is_none_or(|bytes| bytes as u64 > limit) {
                    bail!("what it makes needs more than {limit} bytes");
                }
            }
            SimplePlan::new(typed.into_optimized()?)
        })
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("operator", &self.operator).finish_non_exhaustive()
    }
}

/// Calls tract; a panic becomes an error like any other.
fn guarded<T>(call: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(shortened(&format!("tract: {error:#}"))),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(shortened(&format!("tract panicked: {said}")))
        }
    }
}

/// tract's errors can print whole weights.
fn shortened(message: &str) -> String {
    let line = message.replace('\n', " ");
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Characters of tract's message that are passed on.
const MESSAGE_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::TractError;

    use super::*;
    use crate::engine::proto::{floats, node, untold};
    use crate::engine::testing::{model, tensor, values};
    use crate::proto::onnx::tensor_proto::DataType;

    fn product() -> ModelProto {
        let nodes = vec![node("MatMul", &["x", "weights"], &["y"], vec![])];
        let x = untold("x", DataType::Float);
        model(vec![x], nodes, vec![untold("y", DataType::Float)], vec![floats("weights", &[2, 2], &[1.; 4])])
    }

    #[test]
    fn the_shapes_used_last_are_kept_and_builds_are_counted() {
        let options = LoadOptions { shape_plans_max: 2, ..LoadOptions::default() };
        let product = program(&product(), Settings::of(&options)).unwrap();
        assert_eq!(product.dtypes(), [DType::F32]);
        for (rows, builds) in [(3, 1), (5, 2), (3, 2), (5, 2), (1, 3), (5, 3), (3, 4), (7, 5), (3, 5)] {
            let made = product.run(&[tensor(&[rows, 2], &vec![2.; rows * 2])]).unwrap();
            assert_eq!(values(&made[0]), vec![4.; rows * 2]);
            assert_eq!(options.plans.builds(), builds, "{rows} rows");
        }
        assert!(product.run(&[tensor(&[1, 3], &[0.; 3])]).is_err());
        assert_eq!(options.plans.builds(), 6, "what fails took its time too");
        assert!(options.plans.seconds() > 0.0);
    }

    #[test]
    fn what_is_made_is_bounded() {
        let options = LoadOptions { arena_bytes_max: 79, ..LoadOptions::default() };
        let product = program(&product(), Settings::of(&options)).unwrap();
        assert!(product.run(&[tensor(&[9, 2], &[0.; 18])]).is_ok());
        let refused = product.run(&[tensor(&[10, 2], &[0.; 20])]).unwrap_err();
        assert_eq!(refused, "tract: what it makes needs more than 79 bytes");
    }

    #[test]
    fn operators_are_looked_up_in_their_domain() {
        let is_known = |domain: &str, op_type: &str| {
            let mut node = node(op_type, &["x"], &["y"], vec![]);
            node.domain = domain.into();
            known(&node).is_ok()
        };
        assert!(is_known("", "Multinomial") && is_known("ai.onnx", "Multinomial"));
        assert!(is_known("com.microsoft", "BiasGelu") && !is_known("", "BiasGelu"));
        assert!(!is_known("com.microsoft", "Multinomial") && !is_known("com.example", "Multinomial"));
        assert!(!is_known("", "Unheard"));
    }

    #[test]
    fn panics_and_long_messages_are_tamed() {
        let panicked = guarded::<()>(|| panic!("index {} is out of range", 7));
        assert_eq!(panicked, Err("tract panicked: index 7 is out of range".into()));
        let long = guarded::<()>(|| Err(TractError::msg("é\n".repeat(1000)))).unwrap_err();
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX + 3);
    }
}
