//! The loops, for any vector.

use super::Scale;
use crate::vector::{ToBytes, Vector};

/// The loops of an instruction set. Pointers are valid for as many elements as the last argument says.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) quantize: unsafe fn(*const f32, Scale, *mut u8, usize),
    pub(super) dequantize: unsafe fn(*const u8, Scale, *mut f32, usize),
    pub(super) add: unsafe fn([*const u8; 2], &Sum, *mut u8, usize),
}

/// How two operands become one: each times its ratio, together with a shift.
pub(super) struct Sum {
    pub(super) ratios: [f32; 2],
    pub(super) shift: f32,
    pub(super) bytes: ToBytes,
}

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

pub(super) fn call_add(table: &Table, from: [&[u8]; 2], sum: &Sum, out: &mut [u8]) {
    assert!(from[0].len() == out.len() && from[1].len() == out.len(), "as many elements");
    // SAFETY: as above.
    unsafe { (table.add)([from[0].as_ptr(), from[1].as_ptr()], sum, out.as_mut_ptr(), out.len()) }
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
pub(super) unsafe fn add<V: Vector>(from: [*const u8; 2], sum: &Sum, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut at = 0;
        while at < count {
            let taken = V::LANES.min(count - at);
            let b = V::load_bytes(from[1].add(at), taken).mul_add(V::splat(sum.ratios[1]), V::splat(sum.shift));
            let both = V::load_bytes(from[0].add(at), taken).mul_add(V::splat(sum.ratios[0]), b);
            sum.bytes.store(both, out.add(at), taken);
            at += taken;
        }
    }
}
