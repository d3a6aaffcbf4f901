//! The functions, for any vector.

use super::{Arithmetic, Function, Operands};
use crate::vector::{Stored, Vector};

#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: Map<f32>,
    pub(super) combine: unsafe fn(Arithmetic, Operands<'_>, &mut [f32]),
    pub(super) softmax: unsafe fn(&Scores, *mut f32, usize),
    pub(super) normalize: unsafe fn(&Norm, *const f32, *mut f32, usize),
}

/// A function of so many elements, which may be where results go.
pub(super) type Map<E> = unsafe fn(Function, *const E, *mut E, usize);

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
    // SAFETY: the table was found by its level, which proves its instructions; both slices have as many elements.
    unsafe { (table.map)(function, from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// In place.
pub(super) fn call_map_over<E>(map: Map<E>, function: Function, row: &mut [E]) {
    // SAFETY: it was found by its level, which proves its instructions; each element is read before it is written.
    unsafe { map(function, row.as_ptr(), row.as_mut_ptr(), row.len()) }
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
    let from = from.map_or(to.as_ptr(), <[f32]>::as_ptr);
    let scores = Scores { from, scale, mask: mask.map(<[f32]>::as_ptr) };
    // SAFETY: the table was found by its level, which proves its instructions; all slices have as many elements.
    unsafe { (table.softmax)(&scores, to.as_mut_ptr(), to.len()) }
}

/// # Panics
/// When `from`, `scale`, `shift` and `to` differ in length.
pub(super) fn call_normalize(table: &Table, from: &[f32], [scale, shift]: [&[f32]; 2], epsilon: f32, to: &mut [f32]) {
    assert!([from, scale, shift].iter().all(|slice| slice.len() == to.len()), "an element for each");
    let norm = Norm { scale: scale.as_ptr(), shift: shift.as_ptr(), epsilon };
    // SAFETY: the table was found by its level, which proves its instructions; all slices have as many elements.
    unsafe { (table.normalize)(&norm, from.as_ptr(), to.as_mut_ptr(), to.len()) }
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

/// All elements made one: lanes by themselves, then all lanes, then the last few elements in order.
macro_rules! fold {
    ($vector:ident, $from:expr, $count:expr, $start:expr, $method:ident, $single:expr) => {{
        let mut folded = $vector::splat($start);
        let whole = $count / $vector::LANES * $vector::LANES;
        for at in (0..whole).step_by($vector::LANES) {
            folded = $vector::load($from.add(at)).$method(folded);
        }
        join!($vector, folded, $from, $count, $method, $single)
    }};
}

/// Lanes of a fold made one with what no whole vector holds.
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
/// The processor has the instructions of `V`, and `from` and `to` are valid for `count` elements.
#[inline(always)]
pub(super) unsafe fn map<V: Vector, E: Stored<V>>(function: Function, from: *const E, to: *mut E, count: usize) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        match function {
            Function::Exp => each!(V, from, to, count, |x| exp(x)),
            Function::Sigmoid => each!(V, from, to, count, |x| sigmoid(x)),
            Function::Silu => each!(V, from, to, count, |x| x.mul(sigmoid(x))),
            Function::Tanh => each!(V, from, to, count, |x| tanh(x)),
            Function::Erf => each!(V, from, to, count, |x| erf(x)),
            Function::Gelu => each!(V, from, to, count, |x| gelu(x)),
            Function::GeluTanh => each!(V, from, to, count, |x| gelu_tanh(x)),
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
/// As `map`; `scores` has as many elements.
#[inline(always)]
pub(super) unsafe fn softmax<V: Vector>(scores: &Scores, to: *mut f32, count: usize) {
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
        each!(V, to, to, count, |x| x.mul(share));
    }
}

/// The mean first, then the variance about it, so that no digits cancel.
///
/// # Safety
/// As `map`; `norm` has as many elements.
#[inline(always)]
pub(super) unsafe fn normalize<V: Vector>(norm: &Norm, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mean = V::splat(fold!(V, from, count, 0.0, add, |a, b| a + b) / count as f32);
        each!(V, from, to, count, |x| x.sub(mean).mul(x.sub(mean)));
        let variance = fold!(V, to, count, 0.0, add, |a, b| a + b) / count as f32;
        let share = V::splat(1.0 / (variance + norm.epsilon).sqrt());
        pairs!(V, from, norm.scale, to, count, |x, scale| x.sub(mean).mul(share).mul(scale));
        pairs!(V, to, norm.shift, to, count, |x, shift| x.add(shift));
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn gelu<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let inner = erf(x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2)));
        x.mul(V::splat(0.5)).mul(inner.add(V::splat(1.0)))
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
        let mut sum = V::splat(-6.752_969_3e-4);
        for factor in [
            1.859_776_8e-3,
            -1.642_572e-3,
            2.104_159e-3,
            -6.881_319_5e-3,
            1.333_542_4e-2,
            -1.970_474_8e-2,
            2.928_393_7e-2,
            -4.272_458_7e-2,
            5.785_997_6e-2,
            -7.381_312_5e-2,
            9.067_664e-2,
            -1.095_316_2e-1,
            1.346_907_2e-1,
            -1.810_111e-1,
            3.625_839_7e-1,
        ] {
            sum = sum.mul_add(square, V::splat(factor));
        }
        one.min(V::splat(-1.0).max(sum.mul(x)))
    }
}
