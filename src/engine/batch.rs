//! A batch as an engine sees it: for every input the pieces of its entries, not yet copied together.
//!
//! Gathering is the engine's, so that it copies once and into its own layout. What a piece belongs to is not known
//! here: entry *i* of the batch gets share *i* of the answer.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::kept::Kept;
use crate::infer::ComputeTimes;
use crate::tensor::{DType, Shape, Tensor};

/// The inputs of one run, in the signature's order.
#[derive(Clone, Debug)]
pub struct Batch {
    pub inputs: Vec<BatchInput>,
    /// Rows of each entry; a plan that never merges gets one entry.
    pub rows: Vec<usize>,
}

/// One input of all entries: their bytes, in entry order, and the shape they have together.
#[derive(Clone, Debug)]
pub struct BatchInput {
    pub dtype: DType,
    pub shape: Shape,
    pub pieces: Vec<Bytes>,
}

/// The outputs of one entry, in the signature's order.
pub type Share = Vec<Tensor>;

/// What a run gave back: one share per entry, in entry order, and where the time went.
#[derive(Debug)]
pub struct Executed {
    pub shares: Vec<Share>,
    pub times: ComputeTimes,
    /// CPU time of helper threads, which the calling thread's own clock does not see.
    pub helper_cpu: Duration,
}

impl Batch {
    /// Merges the inputs of entries along axis 0. All entries have the same datatypes and row shapes; `rows` says how
    /// many batch elements each has.
    ///
    /// # Panics
    /// When there is no entry.
    pub fn merge(entries: &[Vec<Tensor>], rows: Vec<usize>) -> Self {
        let first = entries.first().expect("a batch has at least one entry");
        let total = rows.iter().sum();
        let inputs = first
            .iter()
            .enumerate()
            .map(|(position, tensor)| BatchInput {
                dtype: tensor.dtype(),
                shape: if entries.len() == 1 { tensor.shape().clone() } else { tensor.shape().with_rows(total) },
                pieces: entries.iter().map(|entry| entry[position].bytes().clone()).collect(),
            })
            .collect();
        Self { inputs, rows }
    }

    pub fn rows_total(&self) -> usize {
        self.rows.iter().sum()
    }

    /// The entry at `position` as a batch of its own.
    pub fn entry(&self, position: usize) -> Self {
        self.entries(position..position + 1)
    }

    /// Some of the entries as a batch of their own.
    pub fn entries(&self, positions: Range<usize>) -> Self {
        let rows = self.rows[positions.clone()].to_vec();
        let all = positions.len() == self.rows.len();
        let input = |input: &BatchInput| BatchInput {
            dtype: input.dtype,
            shape: if all { input.shape.clone() } else { input.shape.with_rows(rows.iter().sum()) },
            pieces: input.pieces[positions.clone()].to_vec(),
        };
        Self { inputs: self.inputs.iter().map(input).collect(), rows }
    }
}

impl BatchInput {
    /// Fills `into` from the pieces, one behind the other, `skip` bytes of them left out first.
    ///
    /// # Panics
    /// When there are not so many bytes: shapes were checked before.
    pub fn gather_from(&self, skip: usize, into: &mut [u8]) {
        let (mut skip, mut at) = (skip, 0);
        for piece in &self.pieces {
            let taken = (piece.len() - skip.min(piece.len())).min(into.len() - at);
            into[at..at + taken].copy_from_slice(&piece[piece.len().min(skip)..][..taken]);
            skip = skip.saturating_sub(piece.len());
            at += taken;
        }
        assert_eq!(at, into.len(), "the pieces of an input fill its gathered form");
    }

    /// The pieces as one tensor, without a copy where there is only one.
    pub fn to_tensor(&self) -> Tensor {
        let bytes = match self.pieces.as_slice() {
            [piece] => piece.clone(),
            pieces => pieces.concat().into(),
        };
        Tensor::new(self.dtype, self.shape.clone(), bytes).expect("pieces of checked tensors make a checked tensor")
    }
}

/// Cuts outputs that cover the whole batch into one share per entry, sharing their bytes.
pub fn scatter(outputs: &[Tensor], rows: &[usize]) -> Vec<Share> {
    if rows.len() == 1 {
        return vec![outputs.to_vec()];
    }
    let mut shares: Vec<Share> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        for (share, piece) in shares.iter_mut().zip(output.split_rows(rows)) {
            share.push(piece);
        }
    }
    shares
}

/// Puts rows together again as the entries had them, that ran in pieces of these sizes.
pub(super) fn regroup(pieces: &[Vec<Tensor>], sizes: &[usize], rows: &[usize], kept: &Kept) -> Vec<Share> {
    let outputs = pieces[0].len();
    let (mut piece, mut from) = (0, 0);
    let mut shares = Vec::with_capacity(rows.len());
    for &wanted in rows {
        let mut parts: Vec<(usize, usize, usize)> = Vec::new();
        let mut left = wanted;
        while left > 0 {
            let taken = left.min(sizes[piece] - from);
            parts.push((piece, from, taken));
            left -= taken;
            from += taken;
            if from == sizes[piece] {
                piece += 1;
                from = 0;
            }
        }
        shares.push((0..outputs).map(|output| joined(pieces, sizes, &parts, output, kept)).collect());
    }
    shares
}

/// One output of one entry: without a copy where its rows ran together.
fn joined(
    pieces: &[Vec<Tensor>],
    sizes: &[usize],
    parts: &[(usize, usize, usize)],
    output: usize,
    kept: &Kept,
) -> Tensor {
    let rows_of = |&(piece, from, taken): &(usize, usize, usize)| {
        let tensor = &pieces[piece][output];
        if taken == sizes[piece] {
            return tensor.clone();
        }
        tensor.split_rows(&[from, taken, sizes[piece] - from - taken]).swap_remove(1)
    };
    match parts {
        [part] => rows_of(part),
        [] => pieces[0][output].split_rows(&[0, sizes[0]]).swap_remove(0),
        parts => {
            let rows: usize = parts.iter().map(|(_, _, taken)| taken).sum();
            let tensors: Vec<Tensor> = parts.iter().map(rows_of).collect();
            let bytes = || tensors.iter().map(|tensor| &tensor.bytes()[..]);
            let bytes = kept.joined(bytes().map(<[u8]>::len).sum(), bytes());
            let shape = tensors[0].shape().with_rows(rows);
            Tensor::new(tensors[0].dtype(), shape, bytes).expect("rows of one output have one shape")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(rows: usize, seed: u8) -> Vec<Tensor> {
        let tensor = |width: usize| {
            let bytes: Bytes = (0..rows * width).map(|i| seed.wrapping_add(u8::try_from(i % 251).unwrap())).collect();
            Tensor::new(DType::U8, Shape::new(&[rows, width]), bytes).unwrap()
        };
        vec![tensor(3), tensor(0), tensor(1)]
    }

    #[test]
    fn rows_are_cut_across_pieces() {
        let pieces = [&[0u8, 1][..], &[], &[2, 3, 4, 5], &[6, 7]].map(Bytes::from_static).to_vec();
        let input = BatchInput { dtype: DType::U8, shape: Shape::new(&[8]), pieces };
        for from in 0..8 {
            for length in 0..=8 - from {
                let mut into = vec![99; length];
                input.gather_from(from, &mut into);
                assert!(into.iter().enumerate().all(|(at, &byte)| usize::from(byte) == from + at), "{from} {into:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn scatter_undoes_gather(rows in prop::collection::vec(1usize..5, 1..6)) {
            let entries: Vec<_> = rows.iter().zip(0..).map(|(&rows, seed)| entry(rows, seed * 40)).collect();
            let batch = Batch::merge(&entries, rows);
            let whole: Vec<Tensor> = batch.inputs.iter().map(BatchInput::to_tensor).collect();
            prop_assert_eq!(&scatter(&whole, &batch.rows), &entries);
            for (position, entry) in entries.iter().enumerate() {
                let alone: Vec<Tensor> = batch.entry(position).inputs.iter().map(BatchInput::to_tensor).collect();
                prop_assert_eq!(&alone, entry);
            }
            let mut gathered = vec![0; whole[0].bytes().len()];
            batch.inputs[0].gather_from(0, &mut gathered);
            prop_assert_eq!(&gathered[..], &whole[0].bytes()[..]);
            let skip = gathered.len() / 3;
            batch.inputs[0].gather_from(skip, &mut gathered[skip..]);
            prop_assert_eq!(&gathered[..], &whole[0].bytes()[..]);
        }
    }
}
