//! Sparse initializers become dense ones: tract does not read them.

use tract_onnx::pb::{GraphProto, SparseTensorProto, TensorProto};

use crate::engine::EngineError;

/// Expands every sparse initializer, within `bytes_max` bytes together.
pub(super) fn densify(graph: &mut GraphProto, bytes_max: u64) -> Result<(), EngineError> {
    let mut left = bytes_max;
    for sparse in std::mem::take(&mut graph.sparse_initializer) {
        let name = sparse.values.as_ref().map(|values| values.name.clone()).unwrap_or_default();
        let dense = dense(sparse, &mut left)
            .map_err(|what| EngineError::InvalidModel(format!("sparse initializer {name:?}: {what}")))?;
        graph.initializer.push(dense);
    }
    Ok(())
}

fn dense(sparse: SparseTensorProto, left: &mut u64) -> Result<TensorProto, String> {
    let (values, indices) = (sparse.values.ok_or("it has no values")?, sparse.indices.ok_or("it has no indices")?);
    let stored = values.dims.first().and_then(|&n| usize::try_from(n).ok()).ok_or("its values are no list")?;
    let extents: Vec<u64> =
        sparse.dims.iter().map(|&d| u64::try_from(d)).collect::<Result<_, _>>().map_err(|_| "an extent is negative")?;
    let count =
        extents.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent)).ok_or("it is too large")?;
    let width = values.raw_data.len().checked_div(stored).unwrap_or(0);
    let needed =
        count.checked_mul(width as u64).filter(|needed| *needed <= *left).ok_or("it is too large when dense")?;
    *left -= needed;
    let mut raw_data = vec![0; usize::try_from(needed).map_err(|_| "it is too large")?];
    let positions: Vec<i64> = indices.raw_data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let axes = match indices.dims.as_slice() {
        [_] => 1,
        [_, axes] if usize::try_from(*axes) == Ok(extents.len()) => extents.len(),
        other => return Err(format!("its indices have shape {other:?}")),
    };
    if positions.len() != stored * axes {
        return Err(format!("it has {stored} values and {} indices", positions.len()));
    }
    for (value, position) in values.raw_data.chunks_exact(width.max(1)).zip(positions.chunks_exact(axes.max(1))) {
        let at = if indices.dims.len() == 1 { linear(&[count], position) } else { linear(&extents, position) };
        let at = at.ok_or_else(|| format!("index {position:?} is outside of {extents:?}"))? * width;
        raw_data[at..at + width].copy_from_slice(value);
    }
    Ok(TensorProto {
        name: values.name,
        dims: sparse.dims,
        data_type: values.data_type,
        raw_data,
        ..TensorProto::default()
    })
}

/// The position of an element, or nothing when it is outside.
fn linear(extents: &[u64], position: &[i64]) -> Option<usize> {
    let mut at = 0u64;
    for (&extent, &index) in extents.iter().zip(position) {
        let index = u64::try_from(index).ok().filter(|index| *index < extent)?;
        at = at.checked_mul(extent)?.checked_add(index)?;
    }
    usize::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use super::*;
    use crate::engine::proto::{floats, longs};

    fn expand(dims: &[i64], index_dims: &[i64], indices: &[i64], left: u64) -> Result<Vec<u8>, String> {
        let stored = index_dims[0];
        let values: Vec<f32> = (1..=u8::try_from(stored).unwrap()).map(f32::from).collect();
        let sparse = SparseTensorProto {
            values: Some(floats("w", &[stored], &values)),
            indices: Some(longs("i", index_dims, indices)),
            dims: dims.to_vec(),
        };
        let mut graph = GraphProto { sparse_initializer: vec![sparse], ..GraphProto::default() };
        densify(&mut graph, left).map_err(|error| error.to_string())?;
        assert_eq!(graph.initializer[0].data_type, DataType::Float as i32);
        Ok(graph.initializer.remove(0).raw_data)
    }

    #[test]
    fn both_index_forms_are_expanded() {
        let expected = floats("", &[], &[0., 1., 0., 0., 0., 2.]).raw_data;
        assert_eq!(expand(&[2, 3], &[2], &[1, 5], 100), Ok(expected.clone()));
        assert_eq!(expand(&[2, 3], &[2, 2], &[0, 1, 1, 2], 24), Ok(expected));
    }

    #[test]
    fn hostile_indices_are_refused() {
        for (dims, index_dims, indices, left, why) in [
            (&[2, 3][..], &[1][..], &[6][..], 100, "index [6] is outside of [2, 3]"),
            (&[2, 3], &[1], &[-1], 100, "index [-1] is outside of [2, 3]"),
            (&[2, 3], &[1, 2], &[0, 3], 100, "index [0, 3] is outside of [2, 3]"),
            (&[2, 3], &[1, 3], &[0, 0, 0], 100, "its indices have shape [1, 3]"),
            (&[2, 3], &[2], &[0], 100, "it has 2 values and 1 indices"),
            (&[2, 3], &[1], &[0], 23, "it is too large when dense"),
            (&[i64::MAX, 3], &[1], &[0], 100, "it is too large"),
            (&[-2, 3], &[1], &[0], 100, "an extent is negative"),
        ] {
            let refused = expand(dims, index_dims, indices, left).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
