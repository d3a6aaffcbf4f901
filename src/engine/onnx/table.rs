//! Every operator that is imported: its domain, the versions that mean the same, and who reads it.

use std::ops::RangeInclusive;

use super::node::Source;
use super::{
    Importer, arrangement, attention, bytes, composed, constant, control, einsum, elementwise, fused, image, integer,
    loss, low_bit, movement, normalization, product, quantization, recurrent, resize, selection, signal, tabular,
    trees,
};
use crate::engine::EngineError;
use crate::engine::graph::ValueId;

pub(super) struct Row {
    operator: &'static str,
    /// Versions of the operator set.
    versions: RangeInclusive<i64>,
    pub(super) import: Import,
}

/// Reads an operator of one output, or of several.
#[derive(Clone, Copy)]
pub(super) enum Import {
    One(fn(&mut Importer, &Source<'_>) -> Result<ValueId, EngineError>),
    Several(fn(&mut Importer, &Source<'_>) -> Result<Vec<ValueId>, EngineError>),
}

pub(super) fn find(domain: &str, operator: &str, version: i64) -> Option<&'static Row> {
    let fits = |row: &&Row| row.operator == operator && row.versions.contains(&version);
    match domain {
        "" => STANDARD.iter().find(fits),
        "ai.onnx.ml" => CLASSICAL.iter().find(fits),
        "com.microsoft" => MICROSOFT.iter().find(fits),
        _ => None,
    }
}

const fn row(
    operator: &'static str,
    versions: RangeInclusive<i64>,
    import: fn(&mut Importer, &Source<'_>) -> Result<ValueId, EngineError>,
) -> Row {
    Row { operator, versions, import: Import::One(import) }
}

const fn several(
    operator: &'static str,
    versions: RangeInclusive<i64>,
    import: fn(&mut Importer, &Source<'_>) -> Result<Vec<ValueId>, EngineError>,
) -> Row {
    Row { operator, versions, import: Import::Several(import) }
}

/// The oldest and the newest version of the standard operators that are known here.
const FIRST: i64 = 6;
const LAST: i64 = 22;

const STANDARD: &[Row] = &[
    row("Abs", FIRST..=LAST, elementwise::unary),
    row("Acos", FIRST..=LAST, elementwise::unary),
    row("Acosh", 9..=LAST, elementwise::unary),
    row("Add", FIRST..=LAST, elementwise::binary),
    row("AffineGrid", 20..=LAST, resize::affine_grid),
    row("And", FIRST..=LAST, elementwise::compare),
    row("ArgMax", FIRST..=LAST, selection::arg),
    row("ArgMin", FIRST..=LAST, selection::arg),
    row("Asin", FIRST..=LAST, elementwise::unary),
    row("Asinh", 9..=LAST, elementwise::unary),
    row("Atan", FIRST..=LAST, elementwise::unary),
    row("Atanh", 9..=LAST, elementwise::unary),
    several("AveragePool", FIRST..=LAST, image::pool),
    several("BatchNormalization", FIRST..=LAST, normalization::batch_normalization),
    row("BitShift", 11..=LAST, elementwise::shift),
    row("BitwiseAnd", 18..=LAST, elementwise::binary),
    row("BitwiseNot", 18..=LAST, elementwise::unary),
    row("BitwiseOr", 18..=LAST, elementwise::binary),
    row("BitwiseXor", 18..=LAST, elementwise::binary),
    row("BlackmanWindow", 17..=LAST, signal::window),
    row("Cast", FIRST..=LAST, movement::cast),
    row("CastLike", 15..=LAST, movement::cast_like),
    row("Ceil", FIRST..=LAST, elementwise::unary),
    row("Celu", 12..=LAST, composed::celu),
    row("CenterCropPad", 18..=LAST, arrangement::centre),
    row("Clip", FIRST..=LAST, elementwise::clip),
    row("Col2Im", 18..=LAST, resize::fold),
    row("Compress", 9..=LAST, selection::compress),
    row("Concat", FIRST..=LAST, movement::concat),
    row("Constant", FIRST..=LAST, constant::constant),
    row("ConstantOfShape", 9..=LAST, constant::fill),
    row("Conv", FIRST..=LAST, image::conv),
    row("ConvInteger", 10..=LAST, integer::conv),
    row("ConvTranspose", FIRST..=LAST, image::conv_transpose),
    row("Cos", FIRST..=LAST, elementwise::unary),
    row("Cosh", 9..=LAST, elementwise::unary),
    row("CumSum", 11..=LAST, selection::cumulative_sum),
    row("DFT", 17..=LAST, signal::fourier),
    row("DepthToSpace", 1..=LAST, arrangement::depth_to_space),
    row("DequantizeLinear", 10..=LAST, quantization::dequantize),
    row("Det", 11..=LAST, resize::determinant),
    row("Div", FIRST..=LAST, elementwise::binary),
    several("Dropout", FIRST..=LAST, movement::dropout),
    several("DynamicQuantizeLinear", 11..=LAST, quantization::quantize_dynamically),
    row("Einsum", 12..=LAST, einsum::einsum),
    row("Elu", FIRST..=LAST, composed::elu),
    row("Equal", FIRST..=LAST, elementwise::compare),
    row("Erf", 9..=LAST, elementwise::function),
    row("Exp", FIRST..=LAST, elementwise::function),
    row("Expand", 8..=LAST, movement::expand),
    row("EyeLike", 9..=LAST, arrangement::eye),
    row("Flatten", FIRST..=LAST, movement::flatten),
    row("Floor", FIRST..=LAST, elementwise::unary),
    several("GRU", 7..=LAST, recurrent::recurrent),
    row("Gather", FIRST..=LAST, movement::gather),
    row("GatherElements", 11..=LAST, selection::gather_elements),
    row("GatherND", 11..=LAST, arrangement::gather_tuples),
    row("Gelu", 20..=LAST, composed::gelu),
    row("Gemm", FIRST..=LAST, product::gemm),
    row("GlobalAveragePool", FIRST..=LAST, image::global_pool),
    row("GlobalLpPool", 2..=LAST, normalization::global_lp_pool),
    row("GlobalMaxPool", FIRST..=LAST, image::global_pool),
    row("Greater", FIRST..=LAST, elementwise::compare),
    row("GreaterOrEqual", 12..=LAST, elementwise::compare),
    row("GridSample", 16..=LAST, resize::grid_sample),
    row("GroupNormalization", 18..=LAST, normalization::group_normalization),
    row("HammingWindow", 17..=LAST, signal::window),
    row("HannWindow", 17..=LAST, signal::window),
    row("HardSigmoid", FIRST..=LAST, elementwise::hard_sigmoid),
    row("HardSwish", 14..=LAST, elementwise::hard_swish),
    row("Hardmax", 1..=LAST, arrangement::hardmax),
    row("Identity", FIRST..=LAST, movement::identity),
    several("If", FIRST..=LAST, control::branch),
    row("InstanceNormalization", FIRST..=LAST, composed::instance_normalization),
    row("IsInf", 10..=LAST, composed::is_inf),
    row("IsNaN", 9..=LAST, composed::is_nan),
    row("LRN", 1..=LAST, normalization::local_response),
    several("LSTM", 7..=LAST, recurrent::recurrent),
    // Of version 17; ONNX Runtime's optimizer writes it into older models, too.
    several("LayerNormalization", FIRST..=LAST, composed::layer_normalization),
    row("LeakyRelu", FIRST..=LAST, elementwise::leaky_relu),
    row("Less", FIRST..=LAST, elementwise::compare),
    row("LessOrEqual", 12..=LAST, elementwise::compare),
    row("Log", FIRST..=LAST, elementwise::unary),
    row("LogSoftmax", FIRST..=12, elementwise::softmax_of_two_axes),
    row("LogSoftmax", 13..=LAST, elementwise::softmax),
    several("Loop", FIRST..=LAST, control::repeat),
    row("LpNormalization", 1..=LAST, normalization::lp_normalization),
    several("LpPool", FIRST..=LAST, image::pool),
    row("MatMul", FIRST..=LAST, product::matmul),
    row("MatMulInteger", 10..=LAST, integer::matmul),
    row("Max", FIRST..=LAST, elementwise::binary),
    several("MaxPool", FIRST..=LAST, image::pool),
    row("MaxUnpool", 9..=LAST, image::unpool),
    row("Mean", FIRST..=LAST, composed::sum),
    row("MeanVarianceNormalization", 9..=LAST, composed::mean_variance_normalization),
    row("Min", FIRST..=LAST, elementwise::binary),
    row("Mish", 18..=LAST, composed::mish),
    row("Mod", 10..=LAST, elementwise::modulo),
    row("Mul", FIRST..=LAST, elementwise::binary),
    row("Neg", FIRST..=LAST, elementwise::unary),
    row("NegativeLogLikelihoodLoss", 12..=LAST, loss::negative_log_likelihood),
    row("NonMaxSuppression", 10..=LAST, selection::non_max_suppression),
    row("NonZero", 9..=LAST, selection::non_zero),
    row("Not", 1..=LAST, elementwise::not),
    row("OneHot", 9..=LAST, arrangement::one_hot),
    row("Or", FIRST..=LAST, elementwise::compare),
    row("PRelu", FIRST..=LAST, normalization::prelu),
    row("Pad", FIRST..=LAST, movement::pad),
    row("Pow", FIRST..=LAST, elementwise::power),
    row("QLinearConv", 10..=LAST, quantization::conv),
    row("QLinearMatMul", 10..=LAST, quantization::matmul),
    row("QuantizeLinear", 10..=LAST, quantization::quantize),
    several("RNN", 7..=LAST, recurrent::recurrent),
    row("Range", 11..=LAST, arrangement::range),
    row("Reciprocal", FIRST..=LAST, elementwise::unary),
    row("ReduceL1", FIRST..=LAST, composed::reduce),
    row("ReduceL2", FIRST..=LAST, composed::reduce),
    row("ReduceLogSum", FIRST..=LAST, composed::reduce),
    row("ReduceLogSumExp", FIRST..=LAST, composed::reduce),
    row("ReduceMax", FIRST..=LAST, elementwise::reduce),
    row("ReduceMean", FIRST..=LAST, elementwise::reduce),
    row("ReduceMin", FIRST..=LAST, elementwise::reduce),
    row("ReduceProd", FIRST..=LAST, elementwise::reduce),
    row("ReduceSum", FIRST..=LAST, elementwise::reduce),
    row("ReduceSumSquare", FIRST..=LAST, composed::reduce),
    row("Relu", FIRST..=LAST, elementwise::relu),
    row("Reshape", FIRST..=LAST, movement::reshape),
    row("Resize", 11..=LAST, resize::resize),
    row("ReverseSequence", 10..=LAST, arrangement::reverse),
    row("RoiAlign", 10..=LAST, resize::regions),
    row("Round", 11..=LAST, elementwise::unary),
    row("STFT", 17..=LAST, signal::short_time_fourier),
    several("Scan", 9..=LAST, control::scan),
    row("Scatter", 9..=10, selection::scatter_elements),
    row("ScatterElements", 11..=LAST, selection::scatter_elements),
    row("ScatterND", 11..=LAST, arrangement::scatter_tuples),
    row("Selu", FIRST..=LAST, composed::selu),
    row("Shape", FIRST..=LAST, movement::shape),
    row("Shrink", 9..=LAST, composed::shrink),
    row("Sigmoid", FIRST..=LAST, elementwise::function),
    row("Sign", 9..=LAST, elementwise::unary),
    // ONNX Runtime's optimizer puts it into the standard domain.
    row("SimplifiedLayerNormalization", FIRST..=LAST, fused::simplified_normalization),
    row("Sin", FIRST..=LAST, elementwise::unary),
    row("Sinh", 9..=LAST, elementwise::unary),
    row("Size", FIRST..=LAST, movement::size),
    row("Slice", FIRST..=LAST, movement::slice),
    row("Softmax", FIRST..=12, elementwise::softmax_of_two_axes),
    row("Softmax", 13..=LAST, elementwise::softmax),
    several("SoftmaxCrossEntropyLoss", 12..=LAST, loss::softmax_cross_entropy),
    row("Softplus", FIRST..=LAST, elementwise::unary),
    row("Softsign", FIRST..=LAST, composed::softsign),
    row("SpaceToDepth", 1..=LAST, arrangement::space_to_depth),
    several("Split", FIRST..=LAST, movement::split),
    row("Sqrt", FIRST..=LAST, elementwise::unary),
    row("Squeeze", FIRST..=LAST, movement::squeeze),
    row("Sub", FIRST..=LAST, elementwise::binary),
    row("Sum", FIRST..=LAST, composed::sum),
    row("Tan", FIRST..=LAST, elementwise::unary),
    row("Tanh", FIRST..=LAST, elementwise::function),
    row("ThresholdedRelu", 10..=LAST, composed::thresholded_relu),
    row("Tile", FIRST..=LAST, arrangement::tile),
    several("TopK", 10..=LAST, selection::top),
    row("Transpose", FIRST..=LAST, movement::transpose),
    row("Trilu", 14..=LAST, arrangement::triangle),
    several("Unique", 11..=LAST, selection::unique),
    row("Unsqueeze", FIRST..=LAST, movement::unsqueeze),
    row("Upsample", 7..=9, resize::upsample),
    row("Where", 9..=LAST, elementwise::choose),
    row("Xor", FIRST..=LAST, composed::xor),
];

/// Classical machine learning, `ai.onnx.ml`.
const CLASSICAL: &[Row] = &[
    row("ArrayFeatureExtractor", 1..=5, tabular::array_feature_extractor),
    row("Binarizer", 1..=5, tabular::binarizer),
    row("FeatureVectorizer", 1..=5, tabular::feature_vectorizer),
    row("Imputer", 1..=5, tabular::imputer),
    row("LabelEncoder", 1..=5, tabular::label_encoder),
    several("LinearClassifier", 1..=5, tabular::linear_classifier),
    row("LinearRegressor", 1..=5, tabular::linear_regressor),
    row("Normalizer", 1..=5, tabular::normalizer),
    row("OneHotEncoder", 1..=5, tabular::one_hot_encoder),
    row("Scaler", 1..=5, tabular::scaler),
    row("TreeEnsemble", 5..=5, trees::ensemble),
    several("TreeEnsembleClassifier", 1..=5, trees::classifier),
    row("TreeEnsembleRegressor", 1..=5, trees::regressor),
];

/// Operators of ONNX Runtime's own that its quantizer and its optimizer write.
const MICROSOFT: &[Row] = &[
    several("Attention", 1..=1, attention::attention),
    row("BiasGelu", 1..=1, fused::gelu),
    row("BiasSoftmax", 1..=1, fused::bias_softmax),
    row("DequantizeLinear", 1..=1, quantization::dequantize),
    row("DynamicQuantizeMatMul", 1..=1, quantization::matmul_dynamically),
    several("EmbedLayerNormalization", 1..=1, fused::embedding),
    row("FastGelu", 1..=1, fused::gelu),
    row("FusedConv", 1..=1, fused::conv),
    row("FusedGemm", 1..=1, fused::gemm),
    row("FusedMatMul", 1..=1, product::fused_matmul),
    row("Gelu", 1..=1, fused::gelu),
    row("MatMulIntegerToFloat", 1..=1, quantization::matmul_to_floats),
    several("MatMulNBits", 1..=1, low_bit::matmul_n_bits),
    several("MultiHeadAttention", 1..=1, attention::multi_head),
    row("NhwcMaxPool", 1..=1, image::max_pool_of_last),
    row("Pad", 1..=1, movement::pad),
    several("QAttention", 1..=1, attention::of_bytes),
    several("QEmbedLayerNormalization", 1..=1, fused::embedding),
    row("QGemm", 1..=1, quantization::gemm),
    row("QLinearAdd", 1..=1, bytes::add),
    row("QLinearAveragePool", 1..=1, bytes::pool),
    row("QLinearConcat", 1..=1, bytes::concat),
    row("QLinearGlobalAveragePool", 1..=1, bytes::pool),
    row("QLinearLeakyRelu", 1..=1, bytes::function),
    row("QLinearMul", 1..=1, bytes::multiply),
    row("QLinearSigmoid", 1..=1, bytes::function),
    row("QLinearSoftmax", 1..=1, bytes::softmax),
    row("QLinearWhere", 1..=1, bytes::choose),
    row("QuantizeLinear", 1..=1, quantization::quantize),
    row("QuickGelu", 1..=1, fused::gelu),
    row("SimplifiedLayerNormalization", 1..=1, fused::simplified_normalization),
    several("SkipLayerNormalization", 1..=1, fused::skip_normalization),
    several("SkipSimplifiedLayerNormalization", 1..=1, fused::skip_normalization),
    row("Trilu", 1..=1, arrangement::triangle),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_apart() {
        for pair in [STANDARD, CLASSICAL, MICROSOFT].into_iter().flat_map(|rows| rows.windows(2)) {
            let (a, b) = (&pair[0], &pair[1]);
            let apart = a.operator == b.operator && a.versions.end() < b.versions.start();
            assert!(a.operator < b.operator || apart, "{} before {}", a.operator, b.operator);
        }
    }

    #[test]
    fn versions_decide() {
        assert!(find("", "Softmax", 12).is_some_and(|row| *row.versions.end() == 12));
        assert!(find("", "Softmax", 13).is_some_and(|row| *row.versions.start() == 13));
        assert!(find("", "Softmax", 5).is_none());
        assert!(find("com.example", "Softmax", 13).is_none());
    }
}
