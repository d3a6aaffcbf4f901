//! The functions, for any vector.

use super::Function;
use crate::vector::Vector;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: unsafe fn(Function, *const f32, *mut f32, usize),
    pub(super) softmax: unsafe fn(*const f32, *mut f32, usize),
}

/// # Panics
/// When `from` and `to` differ in length.
pub(super) fn call_map(table: &Table, function: Function, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "an element for each");
    // SAFETY: the table was found by its level, which proves its instructions; both slices have as many elements.
    unsafe { (table.map)(function, from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// # Panics
/// When `from` and `to` differ in length.
pub(super) fn call_softmax(table: &Table, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "an element for each");
    // SAFETY: the table was found by its level, which proves its instructions; both slices have as many elements.
    unsafe { (table.softmax)(from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// # Safety
/// The processor has the instructions of `V`, and `from` and `to` are valid for `count` elements.
#[inline(always)]
pub(super) unsafe fn map<V: Vector>(function: Function, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match function {
            Function::Exp => each::<V>(from, to, count, |x| exp(x)),
            Function::Sigmoid => each::<V>(from, to, count, |x| sigmoid(x)),
            Function::Silu => each::<V>(from, to, count, |x| x.mul(sigmoid(x))),
            Function::Tanh => each::<V>(from, to, count, |x| tanh(x)),
            Function::Erf => each::<V>(from, to, count, |x| erf(x)),
            Function::Gelu => each::<V>(from, to, count, |x| {
                let inner = erf(x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2)));
                x.mul(V::splat(0.5)).mul(inner.add(V::splat(1.0)))
            }),
        }
    }
}

/// # Safety
/// As `map`.
#[inline(always)]
unsafe fn each<V: Vector>(from: *const f32, to: *mut f32, count: usize, f: impl Fn(V) -> V) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut at = 0;
        while at + V::LANES <= count {
            f(V::load(from.add(at))).store(to.add(at));
            at += V::LANES;
        }
        if at < count {
            f(V::load_first(from.add(at), count - at)).store_first(to.add(at), count - at);
        }
    }
}

/// # Safety
/// As `map`.
#[inline(always)]
pub(super) unsafe fn softmax<V: Vector>(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut greatest = f32::NEG_INFINITY;
        for at in 0..count {
            greatest = greatest.max(*from.add(at));
        }
        let shift = V::splat(greatest);
        each::<V>(from, to, count, |x| exp(x.sub(shift)));
        let mut sum = 0.0;
        for at in 0..count {
            sum += *to.add(at);
        }
        let sum = V::splat(sum);
        each::<V>(to, to, count, |x| x.div(sum));
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let k = |factor: f32| V::splat(factor);
        // Beyond these bounds lie zero and infinity.
        let x = k(89.0).min(k(-104.0).max(x));
        let power = x.mul(k(std::f32::consts::LOG2_E)).round();
        // The logarithm of two in two parts, the first of few digits.
        let rest = power.mul_add(k(-0.693_359_4), x);
        let rest = power.mul_add(k(2.121_944_4e-4), rest);
        let mut sum = k(1.987_569_1e-4);
        for factor in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            sum = sum.mul_add(rest, k(factor));
        }
        sum.mul_add(rest.mul(rest), rest).add(k(1.0)).scale(power)
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn sigmoid<V: Vector>(x: V) -> V {
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
unsafe fn tanh<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let k = |factor: f32| V::splat(factor);
        let square = x.mul(x);
        let mut sum = k(-5.704_988_7e-3);
        for factor in [2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1] {
            sum = sum.mul_add(square, k(factor));
        }
        let near = sum.mul(square).mul_add(x, x);
        let far = k(1.0).sub(k(2.0).div(exp(x.add(x)).add(k(1.0))));
        let magnitude = k(0.0).sub(x).max(x);
        magnitude.sub(k(0.625)).where_negative(near, far)
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn erf<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let k = |factor: f32| V::splat(factor);
        let magnitude = k(0.0).sub(x).max(x);
        let t = k(1.0).div(magnitude.mul_add(k(0.327_591_1), k(1.0)));
        let mut sum = k(1.061_405_4);
        for factor in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            sum = sum.mul_add(t, k(factor));
        }
        let rest = sum.mul(t).mul(exp(k(0.0).sub(magnitude.mul(magnitude))));
        let value = k(1.0).sub(rest);
        x.where_negative(k(0.0).sub(value), value)
    }
}
