//! Sparse constants, made dense: a few elements and where they are, zeros elsewhere.

use super::Importer;
use crate::engine::EngineError;
use crate::proto::onnx::{SparseTensorProto, TensorProto};
use crate::tensor::Tensor;

impl Importer {
    /// All elements of a sparse tensor, within what the model may yet take.
    pub(super) fn dense(&self, sparse: &SparseTensorProto) -> Result<Tensor, EngineError> {
        let left = self.dense_bytes_left.get();
        let name = sparse.values.as_ref().map(|values| values.name.clone()).unwrap_or_default();
        let invalid = |what: String| EngineError::InvalidModel(format!("sparse tensor {name:?}: {what}"));
        let dense = dense(sparse, left).map_err(invalid)?;
        self.dense_bytes_left.set(left - dense.raw_data.len() as u64);
        super::tensor(&dense)
    }
}

fn dense(sparse: &SparseTensorProto, bytes_max: u64) -> Result<TensorProto, String> {
    let values = sparse.values.as_ref().ok_or("it has no values")?;
    let indices = sparse.indices.as_ref().ok_or("it has no indices")?;
    let stored = values.dims.first().and_then(|&count| usize::try_from(count).ok()).ok_or("its values are no list")?;
    let extents: Result<Vec<u64>, _> = sparse.dims.iter().map(|&extent| u64::try_from(extent)).collect();
    let extents = extents.map_err(|_| "an extent is negative")?;
    let count = extents.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent)).ok_or("it is too large")?;
    let width = values.raw_data.len().checked_div(stored).unwrap_or(0);
    let bytes = count.checked_mul(width as u64).filter(|bytes| *bytes <= bytes_max);
    let bytes = bytes.ok_or_else(|| format!("dense it needs more than the {bytes_max} bytes that are left"))?;
    let mut raw_data = vec![0; usize::try_from(bytes).map_err(|_| "it is too large")?];
    let places: Vec<i64> = indices.raw_data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let by_axes = match indices.dims.as_slice() {
        [_] => vec![count],
        [_, axes] if usize::try_from(*axes) == Ok(extents.len()) => extents.clone(),
        other => return Err(format!("its indices have shape {other:?}, expected [{stored}] or [{stored}, axes]")),
    };
    if places.len() != stored * by_axes.len() {
        return Err(format!("it has {stored} values and {} indices", places.len()));
    }
    for (value, place) in values.raw_data.chunks_exact(width.max(1)).zip(places.chunks_exact(by_axes.len().max(1))) {
        let at = linear(&by_axes, place).ok_or_else(|| format!("index {place:?} is outside of {extents:?}"))? * width;
        raw_data[at..at + width].copy_from_slice(value);
    }
    let (name, dims, data_type) = (values.name.clone(), sparse.dims.clone(), values.data_type);
    Ok(TensorProto { name, dims, data_type, raw_data: raw_data.into(), ..TensorProto::default() })
}

/// The place of an element among all, or nothing where it is outside.
fn linear(extents: &[u64], place: &[i64]) -> Option<usize> {
    let mut at = 0u64;
    for (&extent, &index) in extents.iter().zip(place) {
        let index = u64::try_from(index).ok().filter(|index| *index < extent)?;
        at = at.checked_mul(extent)?.checked_add(index)?;
    }
    usize::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::proto::{floats, longs};

    fn sparse(values: &[f32], indices: TensorProto, dims: &[i64]) -> SparseTensorProto {
        let values = floats("w", &[i64::try_from(values.len()).unwrap()], values);
        SparseTensorProto { values: Some(values), indices: Some(indices), dims: dims.to_vec() }
    }

    fn elements(of: &SparseTensorProto) -> Result<Vec<f32>, String> {
        let dense = dense(of, 100)?;
        Ok(dense.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    #[test]
    fn elements_are_where_their_indices_say() {
        let linear = sparse(&[5.0, 7.0], longs("i", &[2], &[1, 5]), &[2, 3]);
        assert_eq!(elements(&linear).unwrap(), [0.0, 5.0, 0.0, 0.0, 0.0, 7.0]);
        let by_axes = sparse(&[5.0, 7.0], longs("i", &[2, 2], &[0, 2, 1, 0]), &[2, 3]);
        assert_eq!(elements(&by_axes).unwrap(), [0.0, 0.0, 5.0, 7.0, 0.0, 0.0]);
    }

    #[test]
    fn hostile_ones_are_told() {
        let told = |indices: TensorProto, dims: &[i64]| elements(&sparse(&[5.0], indices, dims)).unwrap_err();
        assert_eq!(told(longs("i", &[1], &[6]), &[2, 3]), "index [6] is outside of [2, 3]");
        assert_eq!(told(longs("i", &[1, 2], &[0, -1]), &[2, 3]), "index [0, -1] is outside of [2, 3]");
        assert_eq!(told(longs("i", &[2], &[0, 1]), &[2, 3]), "it has 1 values and 2 indices");
        assert!(told(longs("i", &[1, 3], &[0, 0, 0]), &[2, 3]).starts_with("its indices have shape [1, 3]"));
        assert_eq!(told(longs("i", &[1], &[0]), &[26]), "dense it needs more than the 100 bytes that are left");
        assert_eq!(told(longs("i", &[1], &[0]), &[1 << 40, 1 << 40]), "it is too large");
        assert_eq!(told(longs("i", &[1], &[0]), &[-1]), "an extent is negative");
    }
}
