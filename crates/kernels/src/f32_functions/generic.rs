//! The functions, for any vector.

use half::bf16;

use super::{Arithmetic, Function, Operands};
use crate::aligned::LANES_MAX;
use crate::grid::Tile;
use crate::vector::{Stored, Vector};

#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: Map<f32>,
    pub(super) combine: unsafe fn(Arithmetic, Operands<'_>, &mut [f32]),
    pub(super) softmax: Softmax<f32>,
    pub(super) normalize: Normalize<f32, f32>,
}

/// Those whose operands and results may be bf16.
#[derive(Debug)]
pub(super) struct Halves {
    pub(super) map: Map<bf16>,
    pub(super) softmax: Softmax<bf16>,
    pub(super) normalize: Normalize<bf16, bf16>,
    pub(super) normalize_floats: Normalize<f32, bf16>,
    pub(super) normalize_to_floats: Normalize<bf16, f32>,
}

/// The softmax of scores, for which there is room in floats, and where results go: at or before that room.
pub(super) type Softmax<E> = unsafe fn(&Scores, *mut f32, *mut E, usize);

/// From elements to as many.
pub(super) type Normalize<I, O> = unsafe fn(&Norm, *const I, *mut O, usize);

/// A function of the elements of rows.
pub(super) type Map<E> = unsafe fn(Function, &Rows<E>);

/// Rows of `count` elements, which may be where results go.
#[derive(Debug)]
pub(super) struct Rows<E> {
    pub(super) from: *const E,
    pub(super) to: *mut E,
    /// Elements from a row to the next, of both.
    pub(super) pitch: usize,
    pub(super) rows: usize,
    pub(super) count: usize,
}

/// What softmax is taken of: `scale * from + mask`, elements of both as many as results.
#[derive(Debug)]
pub(super) struct Scores {
    pub(super) from: *const f32,
    pub(super) scale: f32,
    pub(super) mask: Option<*const f32>,
}

/// What a row with a mean of zero and a variance of one is multiplied by and added to: as many elements as the row.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) scale: *const f32,
    pub(super) shift: *const f32,
    pub(super) epsilon: f32,
}

/// # Panics
/// When `from` and `to` differ in length.
pub(super) fn call_map(table: &Table, function: Function, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "an element for each");
    let (count, pitch) = (to.len(), 0);
    // SAFETY: the table was found by its level, which proves its instructions; both slices have as many elements.
    unsafe { (table.map)(function, &Rows { from: from.as_ptr(), to: to.as_mut_ptr(), pitch, rows: 1, count }) }
}

/// In place.
pub(super) fn call_map_over<E>(map: Map<E>, function: Function, tile: &mut Tile<'_, E>) {
    let [rows, count] = tile.size;
    // SAFETY: it was found by its level, which proves its instructions; the tile has its elements to itself, and each is
    // read before it is written.
    unsafe { map(function, &Rows { from: tile.out, to: tile.out, pitch: tile.pitch, rows, count }) }
}

/// # Panics
/// When an operand of many elements and `to` differ in length, or a row does not divide it.
pub(super) fn call_combine(table: &Table, arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    let fits = match operands {
        Operands::Each([a, b]) => a.len() == to.len() && b.len() == to.len(),
        Operands::WithOne(each, _) | Operands::OneWith(_, each) => each.len() == to.len(),
        Operands::WithRow(each, row) | Operands::RowWith(row, each) => {
            each.len() == to.len() && (to.is_empty() || !row.is_empty() && to.len().is_multiple_of(row.len()))
        }
    };
    assert!(fits, "an element for each");
    // SAFETY: the table was found by its level, which proves its instructions; the operands fit.
    unsafe { (table.combine)(arithmetic, operands, to) }
}

/// Over `from`, or over the row itself.
///
/// # Panics
/// When `from`, `mask` and `to` differ in length.
pub(super) fn call_softmax(table: &Table, from: Option<&[f32]>, scale: f32, mask: Option<&[f32]>, to: &mut [f32]) {
    let long = |slice: Option<&[f32]>| slice.is_none_or(|slice| slice.len() == to.len());
    assert!(long(from) && long(mask), "an element for each");
    let (count, to) = (to.len(), to.as_mut_ptr());
    let scores = Scores { from: from.map_or(to.cast_const(), <[f32]>::as_ptr), scale, mask: mask.map(<[f32]>::as_ptr) };
    // SAFETY: the table was found by its level, which proves its instructions; all slices have as many elements.
    unsafe { (table.softmax)(&scores, to, to, count) }
}

/// Over the row itself, whose first half holds the results then; one more, which is zero, where they are odd.
///
/// # Panics
/// When `mask` and the row differ in length.
pub(super) fn call_softmax_to_halves(table: &Halves, scale: f32, mask: Option<&[f32]>, row: &mut [f32]) {
    assert!(mask.is_none_or(|mask| mask.len() == row.len()), "an element for each");
    let (count, room) = (row.len(), row.as_mut_ptr());
    let scores = Scores { from: room.cast_const(), scale, mask: mask.map(<[f32]>::as_ptr) };
    // SAFETY: the table was found by its level, which proves its instructions; both slices have as many elements, and two
    // results take the place of one, which has been read by then.
    unsafe { (table.softmax)(&scores, room, room.cast(), count) };
    if !count.is_multiple_of(2) {
        bytemuck::cast_slice_mut::<f32, bf16>(row)[count] = bf16::ZERO;
    }
}

/// # Panics
/// When `from`, `scale`, `shift` and `to` differ in length.
pub(super) fn call_normalize<I, O>(
    normalize: Normalize<I, O>,
    from: &[I],
    [scale, shift]: [&[f32]; 2],
    epsilon: f32,
    to: &mut [O],
) {
    assert!([from.len(), scale.len(), shift.len()] == [to.len(); 3], "an element for each");
    let norm = Norm { scale: scale.as_ptr(), shift: shift.as_ptr(), epsilon };
    // SAFETY: it was found by its level, which proves its instructions; all slices have as many elements.
    unsafe { normalize(&norm, from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// Every vector of `count` elements through an expression. A macro, because a closure would not be inlined into a function
/// that enables more instructions than its own.
macro_rules! each {
    ($vector:ident, $from:expr, $to:expr, $count:expr, |$x:ident| $value:expr) => {{
        let mut at = 0;
        while at + $vector::LANES <= $count {
            let $x: $vector = Stored::load($from.add(at), $vector::LANES);
            Stored::store($value, $to.add(at), $vector::LANES);
            at += $vector::LANES;
        }
        if at < $count {
            let $x: $vector = Stored::load($from.add(at), $count - at);
            Stored::store($value, $to.add(at), $count - at);
        }
    }};
}

/// As `each`, for elements of two.
macro_rules! pairs {
    ($vector:ident, $from:expr, $with:expr, $to:expr, $count:expr, |$x:ident, $y:ident| $value:expr) => {{
        let mut at = 0;
        while at + $vector::LANES <= $count {
            let ($x, $y) = ($vector::load($from.add(at)), $vector::load($with.add(at)));
            $value.store($to.add(at));
            at += $vector::LANES;
        }
        if at < $count {
            let left = $count - at;
            let ($x, $y) = ($vector::load_first($from.add(at), left), $vector::load_first($with.add(at), left));
            $value.store_first($to.add(at), left);
        }
    }};
}

/// All elements made one: lanes of a fold, then the last few elements, which no whole vector holds, in order.
macro_rules! join {
    ($vector:ident, $folded:expr, $from:expr, $count:expr, $method:ident, $single:expr) => {{
        let mut one: f32 = join!($method, $folded);
        for at in $count / $vector::LANES * $vector::LANES..$count {
            one = $single(one, *$from.add(at));
        }
        one
    }};
    (add, $folded:expr) => {
        $folded.sum()
    };
    (max, $folded:expr) => {
        $folded.greatest()
    };
}

/// As `each` or `pairs`, with the results of whole vectors folded as they are written.
macro_rules! folding {
    ($vector:ident, $each:ident, ($($from:expr),+), $to:expr, $count:expr, |$($x:ident),+| $value:expr, $start:expr, $method:ident, $single:expr) => {{
        let mut folded = $vector::splat($start);
        let whole = $count / $vector::LANES * $vector::LANES;
        $each!($vector, $($from),+, $to, whole, |$($x),+| {
            let value = $value;
            folded = value.$method(folded);
            value
        });
        let left = $count - whole;
        $each!($vector, $($from.add(whole)),+, $to.add(whole), left, |$($x),+| $value);
        join!($vector, folded, $to, $count, $method, $single)
    }};
}

/// # Safety
/// The processor has the instructions of `V`, and `rows` are valid.
#[inline(always)]
pub(super) unsafe fn map<V: Gelu, E: Stored<V>>(function: Function, rows: &Rows<E>) {
    macro_rules! every {
        (|$x:ident| $value:expr) => {
            for row in 0..rows.rows {
                let (from, to) = (rows.from.add(row * rows.pitch), rows.to.add(row * rows.pitch));
                each!(V, from, to, rows.count, |$x| $value);
            }
        };
    }
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        match function {
            Function::Exp => every!(|x| exp(x)),
            Function::Sigmoid => every!(|x| sigmoid(x)),
            Function::Silu => every!(|x| x.mul(sigmoid(x))),
            Function::Tanh => every!(|x| tanh(x)),
            Function::Erf => every!(|x| erf(x)),
            Function::Gelu => every!(|x| x.gelu()),
            Function::GeluTanh => every!(|x| gelu_tanh(x)),
        }
    }
}

/// # Safety
/// The processor has the instructions of `V`, operands of many elements have as many as `to`, and rows divide them.
#[inline(always)]
pub(super) unsafe fn combine<V: Vector>(arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    let (to, count) = (to.as_mut_ptr(), to.len());
    macro_rules! by {
        ($method:ident) => {
            match operands {
                Operands::Each([a, b]) => {
                    let (a, b) = (a.as_ptr(), b.as_ptr());
                    pairs!(V, a, b, to, count, |a, b| a.$method(b))
                }
                Operands::WithOne(a, b) => {
                    let (a, b) = (a.as_ptr(), V::splat(b));
                    each!(V, a, to, count, |a| a.$method(b))
                }
                Operands::OneWith(a, b) => {
                    let (a, b) = (V::splat(a), b.as_ptr());
                    each!(V, b, to, count, |b| a.$method(b))
                }
                Operands::WithRow(a, b) => {
                    let (a, b, width) = (a.as_ptr(), b.as_ptr(), b.len());
                    for row in (0..count).step_by(width.max(1)) {
                        let (a, to) = (a.add(row), to.add(row));
                        pairs!(V, a, b, to, width, |a, b| a.$method(b))
                    }
                }
                Operands::RowWith(a, b) => {
                    let (a, b, width) = (a.as_ptr(), b.as_ptr(), a.len());
                    for row in (0..count).step_by(width.max(1)) {
                        let (b, to) = (b.add(row), to.add(row));
                        pairs!(V, a, b, to, width, |a, b| a.$method(b))
                    }
                }
            }
        };
    }
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        match arithmetic {
            Arithmetic::Add => by!(add),
            Arithmetic::Sub => by!(sub),
            Arithmetic::Mul => by!(mul),
            Arithmetic::Div => by!(div),
        }
    }
}

/// # Safety
/// As `map`; `scores` has as many elements, and `results` lies at `to` or before it.
#[inline(always)]
pub(super) unsafe fn softmax<V: Vector, E: Stored<V>>(scores: &Scores, to: *mut f32, results: *mut E, count: usize) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let (from, scale) = (scores.from, V::splat(scores.scale));
        let greatest = match scores.mask {
            Some(mask) => {
                folding!(
                    V,
                    pairs,
                    (from, mask),
                    to,
                    count,
                    |x, mask| x.mul_add(scale, mask),
                    f32::NEG_INFINITY,
                    max,
                    f32::max
                )
            }
            None => folding!(V, each, (from), to, count, |x| x.mul(scale), f32::NEG_INFINITY, max, f32::max),
        };
        let shift = V::splat(greatest);
        let sum = folding!(V, each, (to), to, count, |x| exp(x.sub(shift)), 0.0, add, |a, b| a + b);
        let share = V::splat(1.0 / sum);
        each!(V, to, results, count, |x| x.mul(share));
    }
}

/// The mean first, then the variance about it, so that no digits cancel.
///
/// # Safety
/// As `map`; `norm` has as many elements.
#[inline(always)]
pub(super) unsafe fn normalize<V: Vector, I: Stored<V>, O: Stored<V>>(
    norm: &Norm,
    from: *const I,
    to: *mut O,
    count: usize,
) {
    // Every vector folded; lanes behind the last element count as zero.
    macro_rules! sum {
        (|$x:ident| $value:expr) => {{
            let mut sums = [V::splat(0.0); CHAINS];
            let mut at = 0;
            while at + CHAINS * V::LANES <= count {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let $x = I::load(from.add(at + n * V::LANES), V::LANES);
                    *sum = $value.add(*sum);
                }
                at += CHAINS * V::LANES;
            }
            while at + V::LANES <= count {
                let $x = I::load(from.add(at), V::LANES);
                sums[0] = $value.add(sums[0]);
                at += V::LANES;
            }
            let mut sum = sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum();
            let mut last = [0.0f32; LANES_MAX];
            if at < count {
                let $x = I::load(from.add(at), count - at);
                $value.store_first(last.as_mut_ptr(), count - at);
            }
            for last in &last[..count - at] {
                sum += *last;
            }
            sum
        }};
    }
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mean = V::splat(sum!(|x| x) / count as f32);
        let variance = sum!(|x| x.sub(mean).mul(x.sub(mean))) / count as f32;
        let share = V::splat(1.0 / (variance + norm.epsilon).sqrt());
        let mut at = 0;
        while at < count {
            let left = count - at;
            let x = I::load(from.add(at), left);
            let [scale, shift]: [V; 2] =
                [Stored::load(norm.scale.add(at), left), Stored::load(norm.shift.add(at), left)];
            O::store(x.sub(mean).mul(share).mul(scale).add(shift), to.add(at), left);
            at += V::LANES;
        }
    }
}

/// Sums beside each other: one alone waits for itself.
const CHAINS: usize = 4;

/// [`Function::Gelu`](super::Function::Gelu), in its own way where an instruction set has a better one.
///
/// # Safety
/// As the methods of [`Vector`].
pub(super) trait Gelu: Vector {
    #[inline(always)]
    unsafe fn gelu(self) -> Self {
        // SAFETY: the caller's promise is that of these calls.
        unsafe {
            let half = self.mul(Self::splat(0.5));
            half.mul_add(erf(self.mul(Self::splat(std::f32::consts::FRAC_1_SQRT_2))), half)
        }
    }
}

/// One half of one more than a tangent is a logistic function of twice its argument.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn gelu_tanh<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let slope = x.mul(x).mul_add(V::splat(0.044_715), V::splat(1.0));
        x.mul(sigmoid(x.mul(slope).mul(V::splat(1.595_769))))
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        // Beyond these bounds lie zero and infinity.
        let x = V::splat(89.0).min(V::splat(-104.0).max(x));
        let power = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // The logarithm of two in two parts, the first of few digits.
        let rest = power.mul_add(V::splat(-0.693_359_4), x);
        let rest = power.mul_add(V::splat(2.121_944_4e-4), rest);
        let mut sum = V::splat(1.987_569_1e-4);
        for factor in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            sum = sum.mul_add(rest, V::splat(factor));
        }
        sum.mul_add(rest.mul(rest), rest).add(V::splat(1.0)).scale(power)
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let one = V::splat(1.0);
        one.div(one.add(exp(V::splat(0.0).sub(x))))
    }
}

/// A polynomial near zero (Cephes), where the quotient of exponentials loses digits.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub(crate) unsafe fn tanh<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let square = x.mul(x);
        let mut sum = V::splat(-5.704_988_7e-3);
        for factor in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
            sum = sum.mul_add(square, V::splat(factor));
        }
        let near = sum.mul(square).mul_add(x, x);
        let far = V::splat(1.0).sub(V::splat(2.0).div(exp(x.add(x)).add(V::splat(1.0))));
        let magnitude = V::splat(0.0).sub(x).max(x);
        magnitude.sub(V::splat(0.625)).where_negative(near, far)
    }
}

/// An odd polynomial up to where the function is one: of degree 15 in the square, which lies between -1 and 1 (fitted by
/// least squares of the error at the points of Chebyshev; within 2.1e-7, and 4.5e-7 of the value).
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn erf<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let (end, one) = (3.9, V::splat(1.0));
        let x = V::splat(end).min(V::splat(-end).max(x));
        let square = x.mul(x).mul_add(V::splat(2.0 / (end * end)), V::splat(-1.0));
        // Four chains of every fourth power beside each other, because one alone would wait for itself.
        let second = square.mul(square);
        let fourth = second.mul(second);
        macro_rules! chain {
            ($first:literal, $($factor:literal),+) => {{
                let mut sum = V::splat($first);
                $(sum = sum.mul_add(fourth, V::splat($factor));)+
                sum
            }};
        }
        let even = chain!(2.104_159e-3, 2.928_393_7e-2, 9.067_664e-2, 3.625_839_7e-1);
        let odd = chain!(-1.642_572e-3, -1.970_474_8e-2, -7.381_312_5e-2, -1.810_111e-1);
        let upper_even = chain!(1.859_776_8e-3, 1.333_542_4e-2, 5.785_997_6e-2, 1.346_907_2e-1);
        let upper_odd = chain!(-6.752_969_3e-4, -6.881_319_5e-3, -4.272_458_7e-2, -1.095_316_2e-1);
        let upper = upper_odd.mul_add(square, upper_even);
        let sum = upper.mul_add(second, odd.mul_add(square, even));
        one.min(V::splat(-1.0).max(sum.mul(x)))
    }
}
