//! Attention against its plain form, at every level this processor has.

mod support;

use kinglet_kernels::f32_attention::{Attention, Extents, Order, Strided};
use kinglet_kernels::{Grid, Level, reference};
use support::{assert_close, values};

/// Which axes a mask has elements along.
#[derive(Clone, Copy, Debug)]
enum Mask {
    None,
    Keys,
    Queries,
    All,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    extents: Extents,
    mask: Mask,
    /// Of queries, keys, values and results.
    heads_inside: [bool; 4],
}

fn strides(heads_inside: bool, heads: usize, tokens: usize, elements: usize) -> [usize; 4] {
    let batch = heads * tokens * elements;
    if heads_inside { [batch, elements, heads * elements, 1] } else { [batch, tokens * elements, elements, 1] }
}

impl Case {
    fn check(self) {
        let Extents { batch, heads, queries, keys, depth, width } = self.extents;
        let random = |tokens: usize, elements: usize, seed| values(batch * heads * tokens * elements, seed);
        let operands = [(queries, depth), (keys, depth), (keys, width)];
        let elements = [0, 1, 2].map(|of| random(operands[of].0, operands[of].1, of as u64 + 1));
        let [q, k, v] = [0, 1, 2].map(|of| Strided {
            elements: &elements[of],
            strides: strides(self.heads_inside[of], heads, operands[of].0, operands[of].1),
        });
        let mut mask = values(batch * heads * queries * keys, 9);
        mask.iter_mut().step_by(3).for_each(|x| *x = f32::NEG_INFINITY);
        let mask_strides = match self.mask {
            Mask::None => None,
            Mask::Keys => Some([keys, 0, 0, 1]),
            Mask::Queries => Some([0, 0, keys, 1]),
            Mask::All => Some(strides(false, heads, queries, keys)),
        };
        // A row of which everything is masked has no softmax.
        if keys == 1 {
            mask.fill(0.5);
        }
        let mask = mask_strides.map(|strides| Strided { elements: &mask, strides });
        let scale = 1.0 / (depth as f32).sqrt();
        let expected = reference::f32_attention(self.extents, scale, [&q, &k, &v], mask.as_ref());
        let order = if self.heads_inside[3] { Order::HeadsInside } else { Order::HeadsOutside };
        let out_strides = strides(self.heads_inside[3], heads, queries, width);
        for level in Level::all() {
            let attention = Attention::new(level, self.extents, scale);
            let mut packed = vec![7.0; attention.packed_elements()];
            let grid = attention.packed_grid(&mut packed);
            attention.pack(&k, &v, &grid);
            let mut out = vec![7.0; expected.len() + 3];
            let grid = attention.grid(&mut out[..expected.len()], order);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let mut room = vec![7.0; attention.room_elements()];
                        attention.run(&q, mask.as_ref(), &packed, order, &grid, &mut room);
                    });
                }
            });
            assert!(out[expected.len()..].iter().all(|&x| x == 7.0), "{level}");
            let at = |row: usize, element: usize| {
                let (outer, query) = (row / queries, row % queries);
                let [batch, head, token, one] = out_strides;
                out[outer / heads * batch + outer % heads * head + query * token + element * one]
            };
            let rows = batch * heads * queries;
            let got: Vec<f32> =
                (0..rows).flat_map(|row| (0..width).map(move |e| (row, e))).map(|(r, e)| at(r, e)).collect();
            assert_close(&got, &expected, keys.max(depth), &format!("{level} {self:?}"));
        }
    }
}

#[test]
fn every_order_mask_and_tail() {
    let extents =
        |[batch, heads, queries, keys, depth, width]: [usize; 6]| Extents { batch, heads, queries, keys, depth, width };
    let all = [
        [1, 1, 1, 1, 1, 1],
        [2, 3, 7, 5, 4, 6],
        [1, 2, 65, 33, 32, 32],
        [2, 2, 100, 128, 17, 64],
        [3, 1, 30, 200, 64, 31],
    ];
    for size in all {
        for mask in [Mask::None, Mask::Keys, Mask::Queries, Mask::All] {
            for inside in 0..16 {
                let heads_inside = [1, 2, 4, 8].map(|bit| inside & bit != 0);
                Case { extents: extents(size), mask, heads_inside }.check();
            }
        }
    }
}

#[test]
fn nothing_to_attend() {
    for size in [[0, 2, 3, 4, 5, 6], [2, 2, 0, 4, 5, 6], [1, 2, 3, 4, 5, 0]] {
        let [batch, heads, queries, keys, depth, width] = size;
        let extents = Extents { batch, heads, queries, keys, depth, width };
        Case { extents, mask: Mask::Keys, heads_inside: [true; 4] }.check();
    }
}

#[test]
#[should_panic(expected = "an element for each result")]
fn a_grid_of_another_size_is_refused() {
    let extents = Extents { batch: 1, heads: 1, queries: 2, keys: 2, depth: 2, width: 2 };
    let attention = Attention::new(Level::all().next().unwrap(), extents, 1.0);
    let q = Strided { elements: &[0.0; 4], strides: [4, 4, 2, 1] };
    let mut out = [0.0; 8];
    let grid = Grid::new(&mut out, 4, [2, 4], [2, 2]);
    attention.run(&q, None, &[0.0; 200], Order::HeadsInside, &grid, &mut [0.0; 4]);
}
