//! A configured shape held against the one the model has.
//!
//! Knows no file: a mismatch is the key that is wrong and why.

use super::declared::DeclaredTensor;
use super::settings::Reshape;
use crate::engine::{Dim, TensorSpec};

/// How clients see one tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) dims: Vec<Dim>,
    pub(super) reshape: Option<Reshape>,
}

/// The client's view of `spec`. The first `lead` axes are the batch, which the declared shapes leave out; `merges` says
/// whether reshapes are applied to rows or to whole tensors.
///
/// # Errors
/// When datatype or shape do not fit the model's.
pub(super) fn describe(
    spec: &TensorSpec,
    declared: &DeclaredTensor,
    lead: usize,
    merges: bool,
) -> Result<Described, (&'static str, String)> {
    if let Some(got) = declared.dtype.filter(|&got| got != spec.dtype) {
        return Err(("data_type", format!("expected {}, got {got}", spec.dtype)));
    }
    let (batch, own) = spec.dims.split_at(lead.min(spec.dims.len()));
    let key = if declared.reshape.is_some() { "reshape.shape" } else { "dims" };
    let model = declared.reshape.as_ref().unwrap_or(&declared.dims);
    if model.len() != own.len() || !model.iter().zip(own).all(|(&got, dim)| fits(got, dim)) {
        return Err((key, format!("expected {}, got {}", shown(own), numbers(model))));
    }
    let mut dims = batch.to_vec();
    let Some(reshaped) = &declared.reshape else {
        dims.extend(own.iter().zip(&declared.dims).map(|(dim, &got)| narrowed(dim, got)));
        return Ok(Described { dims, reshape: None });
    };
    check_counts(&declared.dims, reshaped)?;
    dims.extend(declared.dims.iter().map(|&got| narrowed(&Dim::Free(None), got)));
    let mut reshape = Reshape { client: declared.dims.clone(), model: reshaped.clone() };
    if lead > 0 && !merges {
        if reshaped.contains(&FREE) {
            let problem = "a free extent besides the batch cannot be reshaped where requests run one at a time";
            return Err((key, problem.into()));
        }
        reshape.client.insert(0, FREE);
        reshape.model.insert(0, FREE);
    }
    Ok(Described { dims, reshape: Some(reshape) })
}

pub(super) fn is_first_free(spec: &TensorSpec) -> bool {
    matches!(spec.dims.first(), Some(Dim::Free(_)))
}

/// A configuration may fix what the model leaves free, not the other way round.
fn fits(got: i64, dim: &Dim) -> bool {
    match dim {
        Dim::Fixed(extent) => usize::try_from(got) == Ok(*extent),
        Dim::Free(_) => true,
    }
}

fn narrowed(dim: &Dim, got: i64) -> Dim {
    usize::try_from(got).map_or_else(|_| dim.clone(), Dim::Fixed)
}

/// Both shapes have as many elements, and at most one free extent each.
fn check_counts(client: &[i64], model: &[i64]) -> Result<(), (&'static str, String)> {
    let free = |shape: &[i64]| shape.iter().filter(|&&dim| dim == FREE).count();
    let known = |shape: &[i64]| {
        shape.iter().filter(|&&dim| dim != FREE).try_fold(1i64, |product, &dim| product.checked_mul(dim))
    };
    if free(client) > 1 || free(client) != free(model) {
        return Err((
            "reshape.shape",
            format!("expected as many -1 as in dims and at most one, got {}", numbers(model)),
        ));
    }
    match (known(client), known(model)) {
        (Some(expected), Some(got)) if expected == got => Ok(()),
        (Some(expected), Some(got)) => {
            Err(("reshape.shape", format!("expected {expected} elements as in dims {}, got {got}", numbers(client))))
        }
        _ => Err(("dims", "expected fewer elements than can be counted".into())),
    }
}

fn shown(dims: &[Dim]) -> String {
    let dims: Vec<_> = dims.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(","))
}

fn numbers(dims: &[i64]) -> String {
    let dims: Vec<_> = dims.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(","))
}

const FREE: i64 = -1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn named(name: &str) -> Dim {
        Dim::Free(Some(name.into()))
    }

    fn check(model: &[Dim], dims: &[i64], reshape: Option<&[i64]>, lead: usize, expected: Result<&str, &str>) {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, dims: model.to_vec() };
        let reshape = reshape.map(<[i64]>::to_vec);
        let declared = DeclaredTensor { name: "x".into(), dtype: None, dims: dims.to_vec(), reshape };
        let described = describe(&spec, &declared, lead, lead > 0).map(|described| shown(&described.dims));
        let described = described.map_err(|(key, problem)| format!("{key}: {problem}"));
        assert_eq!(described.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn configured_shapes_narrow_the_model() {
        let n = named("n");
        check(&[n.clone(), Dim::Fixed(3)], &[3], None, 1, Ok("[n,3]"));
        check(&[n.clone(), Dim::Fixed(3)], &[-1, 3], None, 0, Ok("[n,3]"));
        check(&[n.clone(), Dim::Fixed(3)], &[8, 3], None, 0, Ok("[8,3]"));
        check(&[n.clone(), named("t")], &[16], None, 1, Ok("[n,16]"));
        check(&[], &[], None, 0, Ok("[]"));
        check(&[n.clone(), Dim::Fixed(3)], &[4], None, 1, Err("dims: expected [3], got [4]"));
        check(&[n.clone(), Dim::Fixed(3)], &[-1], None, 1, Err("dims: expected [3], got [-1]"));
        check(&[n, Dim::Fixed(3)], &[3, 1], None, 1, Err("dims: expected [3], got [3,1]"));
    }

    #[test]
    fn reshapes_keep_the_elements() {
        let image = [1, 3, 8, 8].map(Dim::Fixed);
        check(&image, &[3, 8, 8], Some(&[1, 3, 8, 8]), 0, Ok("[3,8,8]"));
        check(&[named("n")], &[1], Some(&[]), 1, Ok("[n,1]"));
        check(&[Dim::Fixed(1), named("t")], &[-1], Some(&[1, -1]), 0, Ok("[-1]"));
        let wrong = "reshape.shape: expected 64 elements as in dims [8,8], got 192";
        check(&image, &[8, 8], Some(&[1, 3, 8, 8]), 0, Err(wrong));
        let wrong = "reshape.shape: expected [1,3,8,8], got [3,8,8]";
        check(&image, &[3, 8, 8], Some(&[3, 8, 8]), 0, Err(wrong));
        let wrong = "reshape.shape: expected as many -1 as in dims and at most one, got [1,-1]";
        check(&[Dim::Fixed(1), named("t")], &[7], Some(&[1, -1]), 0, Err(wrong));
    }

    #[test]
    fn whole_tensors_are_reshaped_where_requests_run_alone() {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, dims: vec![named("n"), Dim::Fixed(4)] };
        let reshape = Some(vec![4]);
        let declared = DeclaredTensor { name: "x".into(), dtype: Some(DType::F32), dims: vec![2, 2], reshape };
        let described = describe(&spec, &declared, 1, false).unwrap();
        assert_eq!(described.reshape, Some(Reshape { client: vec![-1, 2, 2], model: vec![-1, 4] }));
        let wrong = DeclaredTensor { dtype: Some(DType::I32), ..declared };
        assert_eq!(describe(&spec, &wrong, 1, true).unwrap_err(), ("data_type", "expected FP32, got INT32".into()));
    }
}
