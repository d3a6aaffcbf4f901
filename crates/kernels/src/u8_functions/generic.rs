//! The loops, for any vector.

use super::Scale;
use crate::vector::{ToBytes, Vector};

/// The loops of an instruction set. Pointers are valid for as many elements as the last argument says.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) quantize: unsafe fn(*const f32, Scale, *mut u8, usize),
    pub(super) dequantize: unsafe fn(*const u8, Scale, *mut f32, usize),
    pub(super) add: unsafe fn([*const u8; 2], &Added, *mut u8, usize),
    /// Of each plane as many as the last argument says.
    pub(super) interleave: unsafe fn([*const u8; 3], *mut u8, usize),
}

/// How two operands become one: each times its ratio, together with a shift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Added {
    pub(super) ratios: [f32; 2],
    pub(super) shift: f32,
    pub(crate) bytes: ToBytes,
}

impl Added {
    /// Whether no sum of bytes is beyond the integers of 32 bits.
    pub(crate) fn is_small(&self) -> bool {
        let [a, b] = self.ratios.map(|ratio| ratio.abs() * 255.0);
        a + b + self.shift.abs() < INTEGERS_END
    }

    /// The sum of two vectors of bytes, in units of the output.
    ///
    /// # Safety
    /// As the methods of [`Vector`].
    #[inline(always)]
    pub(crate) unsafe fn of<V: Vector>(&self, [a, b]: [V; 2]) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let b = b.mul_add(V::splat(self.ratios[1]), V::splat(self.shift));
            a.mul_add(V::splat(self.ratios[0]), b)
        }
    }
}

/// Where integers of 32 bits end.
pub(crate) const INTEGERS_END: f32 = (1u32 << 31) as f32;

pub(super) fn call_quantize(table: &Table, from: &[f32], to: Scale, out: &mut [u8]) {
    assert_eq!(from.len(), out.len(), "as many elements");
    // SAFETY: a table is found by its level, which proves its instructions; the slices are of one length.
    unsafe { (table.quantize)(from.as_ptr(), to, out.as_mut_ptr(), out.len()) }
}

pub(super) fn call_dequantize(table: &Table, from: &[u8], of: Scale, out: &mut [f32]) {
    assert_eq!(from.len(), out.len(), "as many elements");
    // SAFETY: as above.
    unsafe { (table.dequantize)(from.as_ptr(), of, out.as_mut_ptr(), out.len()) }
}

pub(super) fn call_add(table: &Table, from: [&[u8]; 2], sum: &Added, out: &mut [u8]) {
    assert!(from[0].len() == out.len() && from[1].len() == out.len(), "as many elements");
    // SAFETY: as above.
    unsafe { (table.add)([from[0].as_ptr(), from[1].as_ptr()], sum, out.as_mut_ptr(), out.len()) }
}

pub(super) fn call_interleave(table: &Table, planes: [&[u8]; 3], out: &mut [u8]) {
    let count = planes[0].len();
    assert!(planes.iter().all(|plane| plane.len() == count) && out.len() == 3 * count, "as many elements");
    // SAFETY: as above.
    unsafe { (table.interleave)(planes.map(<[u8]>::as_ptr), out.as_mut_ptr(), count) }
}

/// # Safety
/// The pointers are valid for `count` elements of each plane, and the output for all.
#[inline(always)]
pub(super) unsafe fn interleave(planes: [*const u8; 3], out: *mut u8, count: usize) {
    for at in 0..count {
        for (nth, plane) in planes.into_iter().enumerate() {
            // SAFETY: the caller's promise is that of these reads and writes.
            unsafe { *out.add(3 * at + nth) = *plane.add(at) }
        }
    }
}

/// # Safety
/// The processor has the instructions of `V`, and the pointers are valid for `count` elements.
#[inline(always)]
pub(super) unsafe fn quantize<V: Vector>(from: *const f32, to: Scale, out: *mut u8, count: usize) {
    let bytes = ToBytes::within(to.zero, [0, u8::MAX]);
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut at = 0;
        while at < count {
            let taken = V::LANES.min(count - at);
            let x = if taken < V::LANES { V::load_first(from.add(at), taken) } else { V::load(from.add(at)) };
            bytes.store(x.div(V::splat(to.scale)), out.add(at), taken);
            at += taken;
        }
    }
}

/// # Safety
/// As `quantize`.
#[inline(always)]
pub(super) unsafe fn dequantize<V: Vector>(from: *const u8, of: Scale, out: *mut f32, count: usize) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut at = 0;
        while at < count {
            let taken = V::LANES.min(count - at);
            let byte = V::load_bytes(from.add(at), taken);
            let x = byte.sub(V::splat(f32::from(of.zero))).mul(V::splat(of.scale));
            if taken < V::LANES {
                x.store_first(out.add(at), taken)
            } else {
                x.store(out.add(at))
            }
            at += taken;
        }
    }
}

/// # Safety
/// As `quantize`.
#[inline(always)]
pub(super) unsafe fn add<V: Vector>(from: [*const u8; 2], sum: &Added, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut at = 0;
        while at + 4 * V::LANES <= count {
            let mut sums = [V::splat(0.0); 4];
            for (n, both) in sums.iter_mut().enumerate() {
                *both = added::<V>(from, sum, at + n * V::LANES, V::LANES);
            }
            sum.bytes.store_several(sums, out.add(at), 4 * V::LANES);
            at += 4 * V::LANES;
        }
        while at < count {
            let taken = V::LANES.min(count - at);
            sum.bytes.store(added::<V>(from, sum, at, taken), out.add(at), taken);
            at += taken;
        }
    }
}

/// The sums of a vector of elements, of which there are `count`.
///
/// # Safety
/// As `quantize`.
#[inline(always)]
unsafe fn added<V: Vector>(from: [*const u8; 2], sum: &Added, at: usize, count: usize) -> V {
    // SAFETY: the caller's promise is that of these reads.
    unsafe { sum.of([V::load_bytes(from[0].add(at), count), V::load_bytes(from[1].add(at), count)]) }
}
