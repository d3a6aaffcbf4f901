//! What tells the inputs of one request from those of another: 128 bits that nobody can foretell.
//!
//! A collision would give a client somebody else's answer, and clients choose the inputs. So the digest is SipHash-2-4
//! (Aumasson and Bernstein, 2012), a pseudorandom function, under a key that the process has drawn: two of its values are
//! equal after some 2^64 requests and not before, whoever chooses them. docs/adr/012 has what was weighed.

use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::turns::Turns;
use crate::tensor::Tensor;

/// The key of a process. It is never shown, and neither are digests.
#[derive(Clone)]
pub(super) struct Secret([u8; 16]);

impl Secret {
    /// Of the randomness that the system gives to the standard library's hash maps.
    pub(super) fn draw() -> Self {
        let state = RandomState::new();
        let half = |which: u8| u128::from(state.hash_one(which));
        Self((half(0) << 64 | half(1)).to_le_bytes())
    }

    /// The digest of inputs in a signature's order, which stands for their names and datatypes. Nothing is copied.
    pub(super) async fn digest(&self, inputs: &[Tensor], turns: &mut Turns) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for input in inputs {
            // Lengths stand before what they are of: no two lists of tensors are written the same way.
            hasher.write_usize(input.shape().len());
            input.shape().iter().for_each(|&extent| hasher.write_usize(extent));
            hasher.write_usize(input.bytes().len());
            turns.over(input.bytes(), |piece| hasher.write(piece)).await;
        }
        hasher.finish128().as_u128()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensor::{DType, Shape};

    fn tensor(shape: &[usize], bytes: &[u8]) -> Tensor {
        Tensor::new(DType::U8, Shape::new(shape), bytes.to_vec().into()).unwrap()
    }

    fn digest(secret: &Secret, inputs: &[Tensor]) -> u128 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(secret.digest(inputs, &mut Turns::begin()))
    }

    #[test]
    fn shapes_borders_and_order_count() {
        let secret = Secret::draw();
        let lists = [
            vec![tensor(&[2, 3], &[0; 6])],
            vec![tensor(&[3, 2], &[0; 6])],
            vec![tensor(&[6], &[0; 6])],
            vec![tensor(&[1, 2, 3], &[0; 6])],
            vec![tensor(&[2], &[0; 2]), tensor(&[4], &[0; 4])],
            vec![tensor(&[4], &[0; 4]), tensor(&[2], &[0; 2])],
            vec![tensor(&[0], &[])],
            vec![tensor(&[0, 1], &[])],
            vec![tensor(&[0], &[]), tensor(&[0], &[])],
            vec![],
        ];
        let mut seen: Vec<u128> = lists.iter().map(|inputs| digest(&secret, inputs)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), lists.len());
    }

    #[test]
    fn every_process_has_its_own() {
        let inputs = [tensor(&[1], &[7])];
        assert_ne!(digest(&Secret::draw(), &inputs), digest(&Secret::draw(), &inputs));
    }

    #[test]
    fn pieces_make_no_difference() {
        let (secret, bytes) = (Secret::draw(), vec![3; (1 << 20) + 17]);
        let whole = [tensor(&[bytes.len()], &bytes)];
        let mut once = SipHasher24::new_with_key(&secret.0);
        for length in [1, bytes.len(), bytes.len()] {
            once.write_usize(length);
        }
        once.write(&bytes);
        assert_eq!(digest(&secret, &whole), once.finish128().as_u128());
    }

    proptest! {
        #[test]
        fn one_bit_makes_another_digest(bytes in prop::collection::vec(any::<u8>(), 1..200), at in any::<usize>()) {
            let (secret, bit) = (Secret::draw(), at % (bytes.len() * 8));
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let of = |bytes: &[u8]| digest(&secret, &[tensor(&[bytes.len()], bytes)]);
            prop_assert_eq!(of(&bytes), of(&bytes));
            prop_assert_ne!(of(&bytes), of(&other));
        }
    }
}
